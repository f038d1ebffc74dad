"""Two hospitals that differ by one patient, from the folder of files on: what a run sees of each.

`hospital` writes random patients, some of them odd, and one more who may be hostile: whose files
and rows use others' UIDs, contradict themselves and others, are broken, extreme or of two people.
`World` is what a run makes of a folder, by the very functions that a site calls.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydicom.dataset import FileDataset
from torch import Tensor

from client.cohort.left_out import LeftOut
from client.cohort.loading import load_cohort
from client.cohort.quality_refusals import CohortPaths, images_left_out
from client.cohort.split import simulated_key
from client.cohort_statistics.brightness import mean_intensities
from client.cohort_statistics.description import account_of, facts_of, tables_of
from client.cohort_statistics.released_counts import CountMembers, by_patient_apart, sensitivity
from client.privacy.patient_gradients import LOOP, Backend, Objective
from client.site.cache import Cache
from client.site.quality_section import QualityRules
from client.training.cohort_features import site_of, with_features
from client.training.local_model import LocalModel, open_local_model
from client.training.training_site import Site
from common.config.run_config import RunConfig, load_config, parse_config
from common.privacy.plan import PrivacyPlan
from common.tasks import task_of
from tests.client.dicom_files import image, placed, save, uid, write_labels
from tests.privacy.guarantees import clipped_sum
from tests.privacy.made_up import mechanism_of, plan_of
from tests.privacy.tables import odd_areas, odd_rows, write_parquet, write_xlsx

SHIPPED = Path(__file__).parents[2] / "configs" / "simulations"
#: Every rule of quality is on, and leaves out.
STRICT = QualityRules(
    same_pixels="leave_out",
    derived="warn",
    saturated="leave_out",
    spacing_outliers="leave_out",
    burned_in_text="leave_out",
)
SIDE = 12
LABELS = tuple(f"label{number}" for number in range(14))
_PRIVATE = "privacy: {unit: patient, epsilon: 3.0, default_patients: 10}"
_SPLIT = "split: {test_fraction: 0.2, validation_fraction: 0.15}"

Row = dict[str, object]
Table = Literal["csv", "xlsx", "parquet"]
#: Formats of the hospitals' tables, by seed.
TABLES: tuple[Table, ...] = ("csv", "xlsx", "csv", "xlsx", "parquet")


def _multilabel(labels: int) -> str:
    names = ", ".join(LABELS[:labels])
    return f"""
name: labels
task: {{kind: diagnosis, type: multilabel, target: [{names}]}}
cohort: {{images: {{size: [{SIDE}, {SIDE}]}}, {_SPLIT}, smallest_cohort: 1}}
model: {{network: small_cnn, width: 4}}
training: {{rounds: 1, images_per_patient: 2}}
{_PRIVATE}
"""


_BINARY = _multilabel(1).replace("type: multilabel, target: [label0]", "target: label0")
_WRITTEN: Mapping[str, str] = {
    "1 label": _BINARY,
    "2 labels": _multilabel(2),
    "5 labels": _multilabel(5),
    "14 labels": _multilabel(14),
    "given splits": _BINARY.replace("split: {", "split: {column: part, "),
    "images as units": _BINARY + "evaluation: {unit: image}\n",
    "volumes": _BINARY.replace(f"[{SIDE}, {SIDE}]", f"[8, {SIDE}, {SIDE}]"),
    "outlines": f"""
name: outlines
task: {{kind: segmentation, mask: mask, structures: {{lesion: [1]}}}}
cohort: {{images: {{size: [16, 16]}}, {_SPLIT}, smallest_cohort: 1}}
model: {{network: unet, width: 4}}
training: {{rounds: 1, images_per_patient: 2}}
{_PRIVATE}
""",
    "a table": f"""
name: survival
task: {{kind: prognosis, event: died, time: days, intervals: [100, 200, 400]}}
cohort:
  table: {{numbers: [{{column: age}}], categories: [{{column: sex, values: [f, m]}}]}}
  {_SPLIT}
  smallest_cohort: 1
model: {{network: table}}
training: {{rounds: 1, images_per_patient: 2}}
{_PRIVATE}
""",
}
SHIPPED_PRIVATE = tuple(
    path.stem for path in sorted(SHIPPED.glob("*.yaml")) if load_config(path).privacy != "none"
)
RUNS = (*SHIPPED_PRIVATE, *_WRITTEN)


@lru_cache
def run_named(name: str) -> RunConfig:
    """Return a run with privacy in force: a shipped one on small images, or one of ours."""
    if name in _WRITTEN:
        return parse_config(_WRITTEN[name]).in_force()
    config = load_config(SHIPPED / f"{name}.yaml").in_force()
    assert config.cohort.images is not None
    images = config.cohort.images.model_copy(update={"size": (32, 32)})  # seconds, not minutes
    return config.model_copy(update={"cohort": config.cohort.model_copy(update={"images": images})})


# --- what is written ---------------------------------------------------------------------


@dataclass
class Patient:
    """One patient's files and rows, before they are written."""

    name: str
    files: dict[str, FileDataset | bytes] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)  # of the table, as they are
    odd_rows: list[str] = field(default_factory=list)  # of a sheet, as XML
    areas: list[str] = field(default_factory=list)  # of merged cells

    @property
    def images(self) -> list[FileDataset]:
        """Those of its files that are DICOM."""
        return [file for file in self.files.values() if isinstance(file, FileDataset)]


def hospital(run: str, chance: random.Random) -> tuple[list[Patient], Patient]:
    """Return patients and one more; the more is hostile in up to four ways."""
    count = chance.randint(4, 9)
    others = [_patient(f"P{number:02d}", run, chance) for number in range(count)]
    for odd in chance.sample(others, chance.randint(0, 2)):
        chance.choice(_WAYS)(odd, others, chance)
    names = [f"Q{chance.randint(0, 99):02d}", "p00", "0P00", "P00X", "P 00", "AAA", "zzz"]
    one = _patient(chance.choice(names), run, chance)
    for way in chance.sample(_WAYS, chance.randint(0, 4)):
        way(one, others, chance)
    return others, one


def _patient(name: str, run: str, chance: random.Random) -> Patient:
    found = Patient(name)
    config = run_named(run)
    images = config.cohort.images
    label = chance.randint(0, 1)
    for number in range(chance.choice((1, 1, 2, 3)) if images is not None else 0):
        _add_image(found, config, number, chance)
    mask = next(iter(found.masks), "")
    row = _row(name, label, chance) | {"mask": mask}
    if images is not None and chance.random() < 0.5:
        for number, one in enumerate(found.images):
            masks = sorted(found.masks)
            found.rows.append(
                row
                | {
                    "StudyInstanceUID": one.StudyInstanceUID,
                    "mask": masks[number] if number < len(masks) else mask,
                }
            )
    else:
        found.rows.append(row)
    return found


def _row(name: str, label: int, chance: random.Random) -> Row:
    labels = {column: chance.choice((label, label, "")) for column in LABELS[1:]}
    return {
        "PatientID": name,
        "StudyInstanceUID": "",
        "SeriesInstanceUID": "",
        LABELS[0]: label,
        **labels,
        "malignant": label,
        "finding": ("benign", "malignant")[label],
        "age": chance.randint(20, 90),
        "crp": chance.random() * 9,
        "ldh": 200,
        "sex": chance.choice("fm"),
        "died": label,
        "days": chance.randint(1, 500),
        "part": chance.choice(("train", "train", "test", "validation")),
        "mask": "",
    }


def _add_image(found: Patient, config: RunConfig, number: int, chance: random.Random) -> None:
    images = config.cohort.images
    assert images is not None
    rng = np.random.default_rng(chance.getrandbits(32))
    planes = 4 if images.dimensions == 3 else 1
    for plane in range(planes):
        values = rng.integers(0, 4000, (SIDE, SIDE)).astype("uint16")
        one = image(values, found.name, f"study {number}", f"series {number}", plane + 1)
        if planes > 1:
            placed(one, (0, 0, 2.0 * plane))
        one.Modality = images.modalities[0] if images.modalities else ("CT" if planes > 1 else "CR")
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
        one.PatientBirthDate, one.PatientSex = "19600101", "F"
        one.PixelSpacing = [0.5, 0.5]
        found.files[f"{found.name}-{number}-{plane}.dcm"] = one
    if config.task.kind == "segmentation":
        found.masks[f"{found.name}-{number}.png"] = (rng.random((SIDE, SIDE)) < 0.5).astype("uint8")


# --- ways to be hostile ------------------------------------------------------------------

Way = Callable[[Patient, list[Patient], random.Random], None]


def _copy_uids(level: str) -> Way:
    def copies(one: Patient, others: list[Patient], chance: random.Random) -> None:
        theirs = [file for other in others for file in other.images]
        for place, file in enumerate(theirs):
            ours = image(
                np.random.default_rng(place).integers(0, 4000, (SIDE, SIDE)).astype("uint16"),
                one.name,
                f"copied {level} {place}",
            )
            ours.Modality, ours.SOPClassUID = file.Modality, file.SOPClassUID
            ours.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
            setattr(ours, level, getattr(file, level))
            if chance.random() < 0.5:
                ours.PixelData = file.PixelData
            if "ImagePositionPatient" in file:
                placed(ours, file.ImagePositionPatient)
            one.files[f"{one.name}-{level}-{place}.dcm"] = ours

    return copies


def _rows_of_others(one: Patient, others: list[Patient], chance: random.Random) -> None:
    """Rows that name others' studies and series with another label, split and mask."""
    for other in others:
        for file in other.images:
            level = chance.choice(("StudyInstanceUID", "SeriesInstanceUID"))
            one.rows.append(
                _row(one.name, 1 - chance.randint(0, 1), chance)
                | {
                    level: getattr(file, level),
                    "part": "test",
                    "mask": chance.choice([*other.files, *other.masks, ""]),
                }
            )


def _rows_of_nobody(one: Patient, others: list[Patient], chance: random.Random) -> None:
    for other in others:
        for file in other.images:
            one.rows.append(
                _row("", chance.randint(0, 1), chance) | {"StudyInstanceUID": file.StudyInstanceUID}
            )


def _two_labels(one: Patient, _others: list[Patient], chance: random.Random) -> None:
    one.rows += [_row(one.name, 0, chance), _row(one.name, 1, chance)]


def _two_parts(one: Patient, _others: list[Patient], chance: random.Random) -> None:
    one.rows += [dict(one.rows[0], part="train"), dict(one.rows[0], part="test")]
    one.rows += [dict(one.rows[0], part="nonsense")] * chance.randint(0, 1)


def _broken(one: Patient, others: list[Patient], _chance: random.Random) -> None:
    """Files that are cut or no DICOM, of others' series and of none."""
    for place, file in enumerate(f for other in others for f in other.images):
        copy = image(np.zeros((SIDE, SIDE), "uint16"), one.name, "broken", "b", place)
        copy.SeriesInstanceUID = file.SeriesInstanceUID
        copy.BitsStored = 33
        one.files[f"{one.name}-broken-{place}.dcm"] = copy
    one.files[f"{one.name}-empty.dcm"] = b""
    one.files[f"{one.name}-garbage.dcm"] = b"\x00DICM garbage" * 20


def _outliers(one: Patient, _others: list[Patient], chance: random.Random) -> None:
    for number in range(12):
        far = image(np.full((SIDE, SIDE), 7, "uint16"), one.name, f"far {number}", f"f{number}")
        far.Modality, far.PixelSpacing = "CT", [90.0, 90.0]
        one.files[f"{one.name}-far-{number}.dcm"] = far
    for file in one.images:
        file.PixelSpacing = [chance.choice((0.001, 80.0))] * 2


def _extreme(one: Patient, _others: list[Patient], chance: random.Random) -> None:
    for file in one.images:
        slope = chance.choice(("1e30", "1e-30", "NaN", "1e300", "-1"))
        file.add_new("RescaleSlope", "DS", None)
        file["RescaleSlope"]._value = slope
        file.RescaleIntercept = 0


def _duplicates(one: Patient, _others: list[Patient], chance: random.Random) -> None:
    for place, file in enumerate(one.images):
        copy = image(
            np.random.default_rng(chance.getrandbits(16))
            .integers(0, 9, (SIDE, SIDE))
            .astype("uint16"),
            one.name,
        )
        copy.SOPInstanceUID = file.SOPInstanceUID
        copy.SeriesInstanceUID = file.SeriesInstanceUID
        one.files[f"{one.name}-again-{place}.dcm"] = copy


def _two_people(one: Patient, _others: list[Patient], chance: random.Random) -> None:
    fields = (
        ("IssuerOfPatientID", ("A", "B")),
        ("PatientSex", ("M", "F")),
        ("PatientBirthDate", ("19500101", "19510101")),
    )
    name, values = chance.choice(fields)
    for place, file in enumerate(one.images):
        setattr(file, name, values[place % 2])


def _many(one: Patient, _others: list[Patient], chance: random.Random) -> None:
    del chance
    for place, file in enumerate(one.images[:1] * 5):
        copy = image(
            np.random.default_rng(place).integers(0, 4000, (SIDE, SIDE)).astype("uint16"),
            one.name,
            f"more {place}",
            f"m{place}",
        )
        copy.Modality, copy.SOPClassUID = file.Modality, file.SOPClassUID
        copy.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
        one.files[f"0-{one.name}-more-{place}.dcm"] = copy


def _bad_values(one: Patient, _others: list[Patient], chance: random.Random) -> None:
    for row in one.rows:
        row |= {chance.choice(["age", "label0", "malignant", "days", "sex", "died"]): "1e999"}


def _wrong_masks(one: Patient, others: list[Patient], chance: random.Random) -> None:
    for row in one.rows:
        theirs = [name for other in others for name in (*other.files, *other.masks)]
        row["mask"] = chance.choice([*theirs, "nothing.png", "../outside.png", ""])


def _bad_lines(one: Patient, others: list[Patient], chance: random.Random) -> None:
    """Lines that are no rows of the table: more of them than of all others together."""
    theirs = b"".join(chance.choice(others).name.encode() + b"," for _ in range(3))
    kinds = (
        one.name.encode() + b',"',
        b'"' + theirs,
        theirs,
        b"\xff\xfe" + theirs,
        b"\0" + theirs,
        b"M\xfcller",
        b"," * 40 + one.name.encode(),
        b"x" * 140_000,
        b"\x0c\x85" + theirs,
    )
    one.lines += [chance.choice(kinds) for _ in range(60)]
    one.odd_rows += odd_rows(one.name, chance, 30)
    one.areas += odd_areas(chance)


def _odd_ages(one: Patient, _others: list[Patient], chance: random.Random) -> None:
    """Digits to Python that are no numbers, in fields that are read as numbers."""
    for file in one.images:
        file.add_new("PatientAge", "AS", None)
        file["PatientAge"]._value = chance.choice(("\xb2\xb3\xb9Y", "-05Y", "1e9Y", ""))
        file.add_new("PatientBirthDate", "DA", None)
        file["PatientBirthDate"]._value = "\xb2" * 8


def _odd_masks(one: Patient, _others: list[Patient], chance: random.Random) -> None:
    """Masks of several classes at once, of none, and of no kind of file."""
    mask = image(np.ones((SIDE, SIDE), "uint16"), one.name, "mask", "mask")
    mask.SOPClassUID = ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.3"]
    one.files[f"{one.name}-two-classes.dcm"] = mask
    one.files[f"{one.name}-no-mask.png"] = b"\x89PNG\r\n\x1a\n" + b"\xff" * 60
    one.files[f"{one.name}-no-mask.nii"] = b"\x5c\x01\0\0" + b"\xff" * 400
    names = [name for name in one.files if "mask" in name or "classes" in name]
    for row in one.rows:
        row["mask"] = chance.choice(names)


_WAYS: tuple[Way, ...] = (
    _copy_uids("SOPInstanceUID"),
    _copy_uids("SeriesInstanceUID"),
    _copy_uids("StudyInstanceUID"),
    _rows_of_others,
    _rows_of_nobody,
    _two_labels,
    _two_parts,
    _broken,
    _outliers,
    _extreme,
    _duplicates,
    _two_people,
    _many,
    _bad_values,
    _wrong_masks,
    _odd_ages,
    _odd_masks,
    _bad_lines,
)


def write(folder: Path, patients: list[Patient], table: Table = "csv") -> None:
    """Write the patients' files, as far as they are not there, and the table."""
    folder.mkdir(parents=True, exist_ok=True)
    for patient in patients:
        for name, file in patient.files.items():
            path = folder / name
            if path.exists():
                continue
            if isinstance(file, bytes):
                path.write_bytes(file)
            else:
                save(path, file)
        for name, mask in patient.masks.items():
            Image.fromarray(mask * 255).save(folder / name)
    rows = [row for patient in patients for row in patient.rows]
    rows = rows or [_row("", 0, random.Random(0))]
    lines = [line for patient in patients for line in patient.lines]
    path = folder / f"labels.{table}"
    match table:
        case "csv":
            write_labels(folder, rows)
            header, *more = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join((header, *(line + b"\r\n" for line in lines), *more)))
        case "xlsx":
            odd = [row for patient in patients for row in patient.odd_rows]
            write_xlsx(path, rows, odd, [area for patient in patients for area in patient.areas])
        case "parquet":
            named = [(patient.name, line) for patient in patients for line in patient.lines]
            write_parquet(path, rows, named)


# --- what a run sees ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class World:
    """What a run makes of a folder."""

    site: Site
    sum: Tensor  # un-noised, of clipped gradients, flat, float64
    tables: Mapping[str, CountMembers]  # the patients behind every count that may be told, noised

    def counts(self) -> dict[tuple[str, str], int]:
        """Return every count that noise would be added to."""
        return {
            (name, row): len(people)
            for name, members in by_patient_apart(self.tables).items()
            for row, people in members.rows.items()
        }

    @property
    def reach(self) -> float:
        """How far one patient may move all counts together, as it is charged."""
        return sensitivity(self.tables)

    def items(self) -> dict[str, tuple[str, tuple[Tensor, ...]]]:
        """Return each patient's part and items."""
        found = {}
        parts = {
            "train": self.site.train,
            "validation": self.site.validation,
            "test": self.site.test,
        }
        for part, held in parts.items():
            for place, name in enumerate(held.pseudonyms):
                own = held.items_of(place)
                found[name] = part, (held.image[own], held.table[own], held.target[own])
        return found


def world(folder: Path, run: str, cache: Path, backend: Backend = LOOP) -> World:
    """Load a folder as a site does for a run."""
    config, store = run_named(run), Cache(cache)
    (labels,) = folder.glob("labels.*")
    paths = CohortPaths(data=folder, labels=labels, index=store.index, cache=cache)
    left_out = LeftOut(images=images_left_out(paths, config, STRICT))
    cohort = load_cohort(folder, config, task_of(config.task), store, labels, left_out)
    if config.model.network == "frozen_features":
        cohort = with_features(cohort, config, store)
    site = site_of(cohort, config, simulated_key(0))
    facts = facts_of(cohort, site, config)
    studies = account_of(paths, facts) if config.cohort.images is not None else ()
    tables = tables_of(config, studies, facts, mean_intensities(studies, cache))
    local_model, plan = _local_model(run), _plan(config)
    objective = Objective(
        model=local_model.model,
        item_loss=local_model.task.item_loss,
        patients=site.train,
        images_per_patient=config.training.images_per_patient,
    )
    return World(site=site, sum=clipped_sum(objective, plan, backend), tables=tables)


@lru_cache
def _local_model(run: str) -> LocalModel:
    local_model = open_local_model(run_named(run), 0)
    generator = torch.Generator().manual_seed(1)
    for value in local_model.trained.values():
        value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return local_model


def _plan(config: RunConfig) -> PrivacyPlan:
    privacy = config.privacy
    assert privacy != "none"
    return plan_of(mechanism_of(clip_norm=privacy.clip_norm), clipping=privacy.clipping)


# --- the guarantee -----------------------------------------------------------------------


def check(without: World, with_one: World, name: str, clip_norm: float) -> None:
    """Raise unless one patient more moves the sum, the counts and nobody else, as is charged."""
    moved = float((with_one.sum - without.sum).norm())
    if not moved <= clip_norm * (1 + 1e-6):
        message = f"one patient moved the sum by {moved}, clip_norm={clip_norm}"
        raise AssertionError(message)
    before, after = without.items(), with_one.items()
    after.pop(name, None)
    if before.keys() != after.keys():
        message = f"one patient changed who is there: {sorted(before.keys() ^ after.keys())}"
        raise AssertionError(message)
    for other, (part, held) in before.items():
        now, items = after[other]
        if part != now:
            message = f"one patient moved {other} from {part} to {now}"
            raise AssertionError(message)
        if not all(_same(a, b) for a, b in zip(held, items, strict=True)):
            message = f"one patient changed the items of {other}"
            raise AssertionError(message)
    counts, others = with_one.counts(), without.counts()
    total = sum((counts[row] - others[row]) ** 2 for row in counts) ** 0.5
    if not total <= with_one.reach * (1 + 1e-9):
        changed = {row: counts[row] - others[row] for row in counts if counts[row] != others[row]}
        message = f"one patient moved the counts by {total} > {with_one.reach}: {changed}"
        raise AssertionError(message)


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are the same to the bit; a missing label is a missing label."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def check_random(run: str, seed: int, folder: Path) -> None:
    """Raise unless the guarantee holds for the hospital of a seed."""
    others, one = hospital(run, random.Random(f"{run}/{seed}"))
    data, cache, table = folder / "data", folder / "cache", TABLES[seed % len(TABLES)]
    write(data, others, table)
    before = world(data, run, cache)
    write(data, [*others, one], table)
    after = world(data, run, cache)
    privacy = run_named(run).privacy
    assert privacy != "none"
    check(before, after, one.name, privacy.clip_norm)


__all__ = ["RUNS", "SHIPPED_PRIVATE", "World", "check", "check_random", "hospital", "uid", "world"]
