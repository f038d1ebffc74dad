"""Loading of a site's cohort: images and table joined by DICOM keys."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.cohort.column_check import doubt_of, numbers_of
from client.cohort.given_split import given_splits, split_problem
from client.cohort.image_gate import WantedImages
from client.cohort.image_masks import MaskRules
from client.cohort.images import Prepared, prepare_images
from client.cohort.label_join import rows_of_refused
from client.cohort.left_out import ColumnsUnusable, LeftOut, NobodyUsable, whats_there
from client.cohort.nobody import blank_row, no_maps
from client.cohort.other_formats import other_formats
from client.cohort.split import Part, SplitKey, part_named, part_of
from client.dicom.contained import contained
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.labels.clinical_columns import encode_rows
from client.labels.label_table import Labels, Row, key_of_row, read_labels
from client.site.cache import Cache
from common.config.run_config import RunConfig, Split
from common.data.sample import Patients
from common.platform.errors import CohortError
from common.tasks import Task, UnusableLabel, task_of

_NOTHING = LeftOut()


@dataclass(frozen=True, kw_only=True)
class SiteCohort:
    """All usable items of a site, before they are split; stays at the site."""

    name: str
    items: Patients
    given: Mapping[str, Part]  # by pseudonym: the split that labels.csv gives
    confounder: tuple[str, ...]  # of each item; empty strings where there is none
    unusable: tuple[Unusable, ...]
    sources: tuple[str, ...] = ()  # of each item: its file (2-D) or series (3-D)
    #: Why the run cannot learn here, where it has privacy and goes on all the same; else empty.
    doubt: str = ""
    #: By pseudonym: (channel, *spatial), the first image of a few patients, for people to look at.
    examples: Mapping[str, Tensor] = field(default_factory=dict)

    def with_images(self, image: Tensor) -> SiteCohort:
        """Return the cohort with other image tensors, such as features, one per item."""
        return replace(self, items=replace(self.items, image=image))

    def parts(self, rules: Split, key: SplitKey, fold: int = 0) -> dict[str, Part]:
        """Return each patient's part, by pseudonym."""
        given = self.given
        return {p: part_of(p, given.get(p), rules, key, fold) for p in self.items.pseudonyms}

    def split(self, rules: Split, key: SplitKey, fold: int = 0) -> dict[Part, Patients]:
        """Return the patients of each part."""
        parts = self.parts(rules, key, fold)
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
        image=patients.image[keep],
        table=patients.table[keep],
        target=patients.target[keep],
        patient=owner[keep],
        pseudonyms=tuple(patients.pseudonyms[i] for i in chosen),
    )


def load_cohort(
    site: Path,
    config: RunConfig,
    task: Task,
    cache: Cache,
    labels_csv: Path | None = None,
    left_out: LeftOut = _NOTHING,
) -> SiteCohort:
    """Read a site's folder for a run; its table is `labels_csv`, or labels.csv in the folder.

    Nothing is read of patients who were withdrawn; whoever hands them over asked for them while
    holding the cache (`Cache.in_use`), so that no withdrawal comes in between. Images that the
    site's rules of quality refuse are listed with the rule's reason.

    CohortError when the folder or its table is missing, nobody in it can be used, or a column that
    the run reads says nothing here (client/cohort/column_check.py); single files, rows and patients
    that cannot be used are listed in `unusable` and left out.

    Guarantee for a run with privacy: what becomes of a patient follows from the files and rows of
    that PatientID alone. Rows must name it, and speak of its images alone; UIDs that PatientIDs
    share, copies and broken files are each one's own; files that do not say whose they are are
    nobody's. Neither few patients nor what a column holds stop such a run: `doubt` says it.
    """
    if not site.is_dir():
        message = f"There is no folder {site}. Each site is a folder with a labels.csv."
        raise CohortError(message)
    needed = needed_columns(config, task)
    rules = config.cohort.images
    table = labels_csv or site / "labels.csv"
    labels = _labels(table, needed, config, left_out)
    problems = [*labels.unusable, *_withdrawn(left_out)]
    prepared = None
    if rules is not None:
        masks = _mask_rules(config, labels)
        wanted = WantedImages(rules=rules, labels=labels, left_out=left_out, masks=masks)
        prepared = prepare_images(site, wanted, cache)
        problems += prepared.problems
    joined = (
        _rows(labels, needed)
        if prepared is None
        else (_join(site, prepared, labels, problems, cache))
    )
    doubt = doubt_of(labels, [row for _, row, _ in joined], config, table)
    if doubt and not labels.by_patient:
        raise ColumnsUnusable(doubt, problems)
    items = _usable_items(joined, labels, config, task, problems)
    if not items and not labels.by_patient:
        usable = None if prepared is None else len(prepared.keys)
        message = f"Nobody in {site} can be used for run {config.name}: "
        raise NobodyUsable(message + whats_there(labels, usable, problems, site), problems)
    cohort = _assemble(site, config, labels, prepared, items, problems)
    return replace(cohort, doubt=doubt or ("" if items else "Nobody here can be used for it."))


def _labels(table: Path, needed: tuple[str, ...], config: RunConfig, left_out: LeftOut) -> Labels:
    return read_labels(
        table,
        needed,
        with_images=config.cohort.images is not None,
        withdrawn=left_out.withdrawn,
        numbers=numbers_of(config),
        by_patient=config.privacy != "none",
    )


def _withdrawn(left_out: LeftOut) -> list[Unusable]:
    gone = sorted(left_out.withdrawn)
    return [Unusable(reason=Reason.WITHDRAWN, what=f"patient {name}") for name in gone]


def _mask_rules(config: RunConfig, labels: Labels) -> MaskRules | None:
    if config.task.kind != "segmentation":
        return None
    column = config.task.mask
    rules = labels.schema.columns.get(column)
    return MaskRules(
        structures=config.task.structures,
        column=column,
        resample=rules is not None and rules.resample is not None,
    )


def needed_columns(config: RunConfig, task: Task) -> tuple[str, ...]:
    """Return every column of labels.csv that the run reads."""
    table, split = config.cohort.table, config.cohort.split
    names = list(task.columns())
    if table is not None:
        names += [c.column for c in table.numbers]
        names += [c.column for c in table.categories]
    side = config.cohort.images.laterality_column if config.cohort.images else None
    names += [n for n in (split.column, config.cohort.confounder, side) if n is not None]
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True, kw_only=True)
class _Item:
    """One image with its row, or one row."""

    patient: str
    row: int
    image: int  # position among the prepared images; 0 without images
    target: np.ndarray


#: (patient, row, image) of an item before its label is looked at.
_Joined = tuple[str, int, int]


def _rows(labels: Labels, needed: tuple[str, ...]) -> list[_Joined]:
    return [(labels.rows[row]["PatientID"], row, 0) for row in labels.distinct(needed)]


def _join(
    site: Path, prepared: Prepared, labels: Labels, problems: list[Unusable], cache: Cache
) -> list[_Joined]:
    """Return images with their rows, and list rows without an image.

    A row whose images are there and were refused is told by their reasons alone.
    """
    joined: list[_Joined] = []
    used: set[int] = set()
    for image, keys in enumerate(prepared.keys):
        row = labels.find(keys)
        used.add(row)
        if labels.rows[row].get("PatientID") not in {None, "", keys["PatientID"]}:
            problems.append(
                Unusable(
                    reason=Reason.PATIENT_MISMATCH,
                    what=keys["source"],
                    detail=f"line {labels.lines[row]}",
                    patient=keys["PatientID"],
                )
            )
            continue
        joined.append((keys["PatientID"], row, image))
    unseen = set(labels.index.values()) - used
    lonely = sorted(unseen - rows_of_refused(site, labels, prepared.problems, cache.index, unseen))
    instead = other_formats(site, labels.rows) if lonely else ""
    for row in lonely:
        line, key = f"line {labels.lines[row]}", " ".join(key_of_row(labels.rows[row]) or ())
        detail = f"{key}. {instead}" if instead else key
        whose = labels.rows[row].get("PatientID", "")
        problems.append(Unusable(reason=Reason.NO_IMAGE, what=line, detail=detail, patient=whose))
    return joined


def _usable_items(
    joined: list[_Joined], labels: Labels, config: RunConfig, task: Task, problems: list[Unusable]
) -> dict[str, list[_Item]]:
    """Return items by patient, without those whose label or split cannot be used."""
    targets: dict[int, np.ndarray] = {}
    for row in sorted({row for _, row, _ in joined}):
        try:
            with contained():
                targets[row] = _encoded(task, labels.rows[row])
        except UnusableFile as problem:
            whose = labels.rows[row].get("PatientID", "")
            problems.append(problem.listed(f"line {labels.lines[row]}", whose))
    items: dict[str, list[_Item]] = defaultdict(list)
    for patient, row, image in joined:
        if row in targets:
            item = _Item(patient=patient, row=row, image=image, target=targets[row])
            items[patient].append(item)
    splits = given_splits(labels, joined, config.cohort.split.column)
    for patient in sorted(items):
        reason = split_problem(splits.get(patient)) or _disagreement(items[patient], config)
        if reason is not None:
            what = f"patient {patient}"
            problems.append(Unusable(reason=reason, what=what, patient=patient))
            del items[patient]
    return dict(sorted(items.items()))


def _encoded(task: Task, row: Row) -> np.ndarray:
    try:
        return task.encode(row)
    except UnusableLabel as problem:
        raise UnusableFile(Reason.LABEL_UNUSABLE, str(problem)) from problem


def _disagreement(items: list[_Item], config: RunConfig) -> Reason | None:
    """Return LABEL_CONFLICT where one label a patient is wanted and there are several."""
    by_patient = config.evaluation.unit == "patient" and config.task.kind != "segmentation"
    first = items[0].target
    if by_patient and any(
        not np.array_equal(item.target, first, equal_nan=True) for item in items[1:]
    ):
        return Reason.LABEL_CONFLICT
    return None


def _assemble(
    site: Path,
    config: RunConfig,
    labels: Labels,
    prepared: Prepared | None,
    by_patient: dict[str, list[_Item]],
    problems: list[Unusable],
) -> SiteCohort:
    """Stack items into tensors, patients in order of their identifiers."""
    flat = [item for items in by_patient.values() for item in items]
    rows = [item.row for item in flat]
    table = torch.zeros((len(flat), 0))
    if config.cohort.table is not None:
        table, odd = encode_rows(labels, rows, config.cohort.table)
        problems += odd
    image = torch.zeros((len(flat), 0))
    targets = [item.target for item in flat] or [task_of(config.task).encode(blank_row(config))]
    target = torch.from_numpy(np.stack(targets))[: len(flat)]
    if prepared is not None:
        chosen = [item.image for item in flat]
        image = _take(prepared.image, chosen)
        if config.task.kind == "segmentation":
            maps = prepared.labels if len(prepared.image) else no_maps(config)
            target = _take(maps, chosen)
    numbers = {patient: number for number, patient in enumerate(by_patient)}
    column, confounder = config.cohort.split.column, config.cohort.confounder
    first = {patient: labels.rows[items[0].row] for patient, items in by_patient.items()}
    return SiteCohort(
        name=site.name,
        items=Patients(
            image=image,
            table=table,
            target=target,
            patient=torch.tensor([numbers[item.patient] for item in flat], dtype=torch.int64),
            pseudonyms=tuple(by_patient),
        ),
        given={
            patient: part
            for patient, row in first.items()
            if column is not None and (part := part_named(row[column])) is not None
        },
        confounder=tuple(labels.rows[row][confounder] if confounder else "" for row in rows),
        unusable=tuple(problems),
        sources=tuple(prepared.keys[item.image]["source"] for item in flat) if prepared else (),
    )


def _take(tensor: Tensor, chosen: list[int]) -> Tensor:
    """Return these items; all of them in their order are not copied."""
    if chosen == list(range(len(tensor))):
        return tensor
    return tensor[torch.tensor(chosen, dtype=torch.int64)]
