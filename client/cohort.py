"""A site's patients: images and table joined by DICOM keys, ready to be split."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.cache import Cache
from client.dicom.reasons import Reason, Unusable
from client.images import MaskRules, Prepared, prepare_images
from client.labels import KEYS, Labels, Row, read_labels
from client.split import Part, part_named, split_patients
from common.config import RunConfig, Split, Table
from common.errors import CohortError
from common.sample import Patients
from common.tasks import Task, UnusableLabel


@dataclass(frozen=True, kw_only=True)
class SiteCohort:
    """All usable items of a site, before they are split; stays at the site."""

    name: str
    items: Patients
    strata: Mapping[str, str]  # by pseudonym: what splits are balanced by
    given: Mapping[str, Part]  # by pseudonym: the split that labels.csv gives
    confounder: tuple[str, ...]  # of each item; empty strings where there is none
    unusable: tuple[Unusable, ...]
    #: By pseudonym: (channel, *spatial), the first image of a few patients, for people to look at.
    examples: Mapping[str, Tensor] = field(default_factory=dict)

    def with_images(self, image: Tensor) -> SiteCohort:
        """Return the cohort with other image tensors, such as features, one per item."""
        return replace(self, items=replace(self.items, image=image))

    def split(self, rules: Split, seed: int, fold: int = 0) -> dict[Part, Patients]:
        """Return the patients of each part."""
        parts = split_patients(self.strata, self.given, rules, seed, fold)
        found: dict[Part, Patients] = {}
        for part in ("train", "validation", "test"):
            chosen = [i for i, p in enumerate(self.items.pseudonyms) if parts[p] == part]
            found[part] = select(self.items, chosen)
        return found

    def reasons(self) -> Counter[Reason]:
        """Return how often each reason left something out."""
        return Counter(problem.reason for problem in self.unusable)


def select(patients: Patients, chosen: list[int]) -> Patients:
    """Return the patients at these positions, renumbered."""
    wanted = torch.tensor(chosen, dtype=torch.int64)
    number = torch.full((len(patients),), -1, dtype=torch.int64)
    number[wanted] = torch.arange(len(chosen))
    owner = number[patients.patient]
    keep = torch.nonzero(owner >= 0).flatten()
    # Items of one patient must stand together, in the order of `chosen`.
    keep = keep[owner[keep].argsort(stable=True)]
    return Patients(
        image=patients.image[keep], table=patients.table[keep], target=patients.target[keep],
        patient=owner[keep], pseudonyms=tuple(patients.pseudonyms[i] for i in chosen),
    )  # fmt: skip


def load_cohort(site: Path, config: RunConfig, task: Task, cache: Cache) -> SiteCohort:
    """Read a site's folder for a run.

    CohortError when the folder or its table is missing or nobody in it can be used; single
    files, rows and patients that cannot be used are listed in `unusable` and left out.
    """
    if not site.is_dir():
        message = f"There is no folder {site}. Each site is a folder with a labels.csv."
        raise CohortError(message)
    labels = read_labels(site / "labels.csv", needed_columns(config, task))
    problems = list(labels.unusable)
    prepared = _images(site, config, labels, cache)
    if prepared is None:
        joined: list[tuple[int, int | None]] = [
            (row, None) for row in sorted(labels.index.values())
        ]
    else:
        problems += prepared.problems
        joined = list(_join(prepared, labels, problems))
    rows = _usable_rows(joined, labels, config, task, problems)
    if not rows:
        counts = Counter(p.reason.name for p in problems)
        listed = ", ".join(f"{n} x {name}" for name, n in counts.most_common(4))
        message = f"Nobody in {site} can be used for run {config.name}: {listed or 'no rows'}."
        raise CohortError(message)
    return _assemble(site.name, config, task, prepared, rows, problems)


def needed_columns(config: RunConfig, task: Task) -> tuple[str, ...]:
    """Return every column of labels.csv that the run reads."""
    table, split = config.cohort.table, config.cohort.split
    names = list(task.columns())
    if table is not None:
        names += [c.column for c in table.numbers]
        names += [c.column for c in table.categories]
    names += [name for name in (split.column, config.cohort.confounder) if name is not None]
    return tuple(dict.fromkeys(names))


def _images(site: Path, config: RunConfig, labels: Labels, cache: Cache) -> Prepared | None:
    if config.cohort.images is None:
        return None
    masks = None
    if config.task.kind == "segmentation":
        column = config.task.mask
        path_of = {
            (key, row[key]): row[column]
            for row in labels.rows
            for key in KEYS
            if row.get(key) and row[column]
        }
        masks = MaskRules(structures=config.task.structures, path_of=path_of)
    return prepare_images(site, config.cohort.images, masks, cache)


def _join(
    prepared: Prepared, labels: Labels, problems: list[Unusable]
) -> list[tuple[int, int | None]]:
    """Return (row, image) pairs, and list images without a row and rows without an image."""
    joined: list[tuple[int, int | None]] = []
    for image, keys in enumerate(prepared.keys):
        row = labels.find(keys)
        if row is None:
            problems.append(Unusable(reason=Reason.LABEL_MISSING, what=keys["StudyInstanceUID"]))
        elif labels.rows[row]["PatientID"] != keys["PatientID"]:
            problems.append(Unusable(
                reason=Reason.LABEL_CONFLICT, what=keys["StudyInstanceUID"],
                detail="PatientID of the row is not the image's",
            ))  # fmt: skip
        else:
            joined.append((row, image))
    used = {row for row, _ in joined}
    problems += [
        Unusable(reason=Reason.NO_IMAGE, what=f"row {row + 2}")
        for row in sorted(set(labels.index.values()) - used)
    ]
    return joined


@dataclass(frozen=True, kw_only=True)
class _Item:
    row: Row
    image: int | None
    target: np.ndarray


def _usable_rows(
    joined: list[tuple[int, int | None]], labels: Labels, config: RunConfig, task: Task,
    problems: list[Unusable],
) -> dict[str, list[_Item]]:  # fmt: skip
    """Return items by patient, without those whose label or split cannot be used."""
    items: dict[str, list[_Item]] = defaultdict(list)
    for row_number, image in joined:
        row = labels.rows[row_number]
        try:
            target = task.encode(row)
        except UnusableLabel as problem:
            problems.append(Unusable(
                reason=Reason.LABEL_UNUSABLE, what=row["PatientID"], detail=str(problem)
            ))  # fmt: skip
            continue
        items[row["PatientID"]].append(_Item(row=row, image=image, target=target))
    for patient in sorted(items):
        reason = _disagreement(items[patient], config)
        if reason is not None:
            problems.append(Unusable(reason=reason, what=patient))
            del items[patient]
    return dict(sorted(items.items()))


def _disagreement(items: list[_Item], config: RunConfig) -> Reason | None:
    """Return why a patient's items do not go together, if they do not."""
    column = config.cohort.split.column
    if column is not None and len({part_named(item.row[column]) for item in items}) > 1:
        return Reason.TWO_SPLITS
    by_patient = config.evaluation.unit == "patient" and config.task.kind != "segmentation"
    first = items[0].target
    if by_patient and any(
        not np.array_equal(item.target, first, equal_nan=True) for item in items[1:]
    ):
        return Reason.LABEL_CONFLICT
    return None


def _assemble(
    name: str, config: RunConfig, task: Task, prepared: Prepared | None,
    by_patient: dict[str, list[_Item]], problems: list[Unusable],
) -> SiteCohort:  # fmt: skip
    """Stack items into tensors, patients in order of their identifiers."""
    flat = [item for items in by_patient.values() for item in items]
    owner = [number for number, items in enumerate(by_patient.values()) for _ in items]
    table = config.cohort.table
    split = config.cohort.split.column
    strata = {p: task.stratum(items[0].row) for p, items in by_patient.items()}
    given = {
        p: part
        for p, items in by_patient.items()
        if split is not None and (part := part_named(items[0].row[split])) is not None
    }
    rows = [item.row for item in flat]
    chosen = torch.tensor([item.image or 0 for item in flat])
    none = torch.zeros((len(flat), 0))
    target = torch.from_numpy(np.stack([item.target for item in flat]))
    if config.task.kind == "segmentation" and prepared is not None:
        target = prepared.labels[chosen]
    confounder = config.cohort.confounder
    return SiteCohort(
        name=name,
        items=Patients(
            image=none if prepared is None else prepared.image[chosen],
            table=none if table is None else encode_table(rows, table, problems),
            target=target,
            patient=torch.tensor(owner),
            pseudonyms=tuple(by_patient),
        ),
        strata=strata,
        given=given,
        confounder=tuple(item.row[confounder] if confounder else "" for item in flat),
        unusable=tuple(problems),
    )


def encode_table(rows: list[Row], table: Table, problems: list[Unusable]) -> Tensor:
    """Return (items, Table.width): scaled numbers, categories, then missing indicators."""
    encoded = torch.zeros((len(rows), table.width))
    values = len(table.numbers) + sum(len(c.values) for c in table.categories)
    for item, row in enumerate(rows):
        for place, column in enumerate(table.numbers):
            number = _number(row, column.column, problems)
            if number is None or (column.transform == "log" and number <= -1):
                encoded[item, values + place] = 1.0
                continue
            number = math.log1p(number) if column.transform == "log" else number
            encoded[item, place] = (number - column.center) / column.scale
        start = len(table.numbers)
        for place, category in enumerate(table.categories):
            text = row[category.column]
            if text in category.values:
                encoded[item, start + category.values.index(text)] = 1.0
            else:
                encoded[item, values + len(table.numbers) + place] = 1.0
                if text:
                    problems.append(_odd(row, category.column, text))
            start += len(category.values)
    return encoded


def _number(row: Row, column: str, problems: list[Unusable]) -> float | None:
    text = row[column]
    if text.lower() in {"", "na", "n/a", "nan", "none", "null", "-", "?"}:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    problems.append(_odd(row, column, text))
    return None


def _odd(row: Row, column: str, text: str) -> Unusable:
    return Unusable(
        reason=Reason.VALUE_UNUSABLE, what=row["PatientID"], detail=f"{column} is {text!r}"
    )
