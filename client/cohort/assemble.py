"""Assemble: the tensors of a cohort, of those items whose label and split can be used.

The last step from a folder to tensors (client/cohort/loading.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from client.cohort.join import Joined, JoinedItem
from client.cohort.prepare import Prepared
from client.cohort.site_cohort import SiteCohort
from client.cohort.split import Part, part_named
from client.dicom.contained import contained
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.labels.clinical_columns import encode_rows
from client.labels.label_table import Labels, Row
from common.config.run_config import RunConfig
from common.data.cell_values import number_of
from common.data.kept_items import Items, held, taken
from common.data.sample import Patients
from common.tasks import Task, UnusableLabel, task_of
from common.tasks.extension_classes import encoding_task


@dataclass(frozen=True, kw_only=True)
class _Item:
    """One image with its row, or one row, and its label."""

    joined: JoinedItem
    target: np.ndarray


def assemble(
    name: str, config: RunConfig, labels: Labels, prepared: Prepared | None, joined: Joined
) -> SiteCohort:
    """Return the cohort, patients in order of their identifiers; nobody in it is no error.

    `unusable` holds what this step leaves out, and nothing of the steps before.
    """
    problems: list[Unusable] = []
    by_patient = _usable_items(joined.items, labels, config, problems)
    flat = [item for items in by_patient.values() for item in items]
    rows = [item.joined.row for item in flat]
    table = torch.zeros((len(flat), 0))
    if config.cohort.table is not None:
        table, odd = encode_rows(labels, rows, config.cohort.table)
        problems += odd
    images = config.cohort.images
    image: Items = torch.zeros((len(flat), 0))
    blank = task_of(config.task).blank_target(() if images is None else tuple(images.size))
    targets = [item.target for item in flat] or [blank]
    target: Items = torch.from_numpy(np.stack(targets))[: len(flat)]
    if prepared is not None:
        chosen = [item.joined.image for item in flat]
        image = held(_take(prepared.image, chosen))
        if config.task.outlines:
            # Of the shape of maps also where nobody can be used: a private run goes on.
            maps = prepared.labels if len(prepared.image) else torch.from_numpy(blank[None])[:0]
            target = held(_take(maps, chosen))
    numbers = {patient: number for number, patient in enumerate(by_patient)}
    confounder = config.cohort.confounder
    return SiteCohort(
        name=name,
        items=Patients(
            image=image,
            table=table,
            target=target,
            patient=torch.tensor(
                [numbers[item.joined.patient] for item in flat], dtype=torch.int64
            ),
            pseudonyms=tuple(by_patient),
        ),
        given=_given_parts(by_patient, labels, config.cohort.split.column),
        confounder=tuple(labels.rows[row][confounder] if confounder else "" for row in rows),
        unusable=tuple(problems),
        sources=()
        if prepared is None
        else tuple(prepared.keys[item.joined.image]["source"] for item in flat),
        views={} if prepared is None else prepared.views,
    )


def _given_parts(
    by_patient: Mapping[str, Sequence[_Item]], labels: Labels, column: str | None
) -> dict[str, Part]:
    """Return the part of each patient whose rows give one."""
    if column is None:
        return {}
    named = {
        patient: part_named(labels.rows[items[0].joined.row][column])
        for patient, items in by_patient.items()
    }
    return {patient: part for patient, part in named.items() if part is not None}


def _usable_items(
    joined: Sequence[JoinedItem], labels: Labels, config: RunConfig, problems: list[Unusable]
) -> dict[str, list[_Item]]:
    """Return items by patient, without those whose label or split cannot be used."""
    task = encoding_task(config, task_of(config.task))
    targets: dict[int, np.ndarray] = {}
    for row in sorted({item.row for item in joined}):
        try:
            with contained():
                targets[row] = _encoded(task, labels.rows[row])
                problems += _clipped(labels, row, config)
        except UnusableFile as problem:
            whose = labels.rows[row].get("PatientID", "")
            problems.append(problem.listed(f"line {labels.lines[row]}", whose))
    items: dict[str, list[_Item]] = defaultdict(list)
    for one in joined:
        if one.row in targets:
            items[one.patient].append(_Item(joined=one, target=targets[one.row]))
    splits = _given_splits(labels, joined, config.cohort.split.column)
    for patient in sorted(items):
        reason = _split_problem(splits.get(patient)) or _disagreement(items[patient], config)
        if reason is not None:
            what = f"patient {patient}"
            problems.append(Unusable(reason=reason, what=what, patient=patient))
            del items[patient]
    return dict(sorted(items.items()))


def _clipped(labels: Labels, row: int, config: RunConfig) -> Iterator[Unusable]:
    """Yield a notice of each outcome that lies beyond what the run can hold."""
    cells = labels.rows[row]
    for column, (low, high) in config.task.clipped.items():
        value = number_of(cells[column])
        if value is not None and not low <= value <= high:
            end = low if value < low else high
            yield Unusable(
                reason=Reason.LABEL_CLIPPED,
                what=f"line {labels.lines[row]}",
                detail=f"column {column} holds {cells[column]}, counted as {end:g}",
                patient=cells.get("PatientID", ""),
            )


def _encoded(task: Task, row: Row) -> np.ndarray:
    try:
        return task.encode(row)
    except UnusableLabel as problem:
        raise UnusableFile(Reason.LABEL_UNUSABLE, str(problem)) from problem


def _disagreement(items: list[_Item], config: RunConfig) -> Reason | None:
    """Return LABEL_CONFLICT where one label a patient is wanted and there are several."""
    by_patient = config.evaluation.unit == "patient" and not config.task.outlines
    first = items[0].target
    if by_patient and any(
        not np.array_equal(item.target, first, equal_nan=True) for item in items[1:]
    ):
        return Reason.LABEL_CONFLICT
    return None


def _given_splits(
    labels: Labels, joined: Sequence[JoinedItem], column: str | None
) -> dict[str, set[Part | None]]:
    """Return what all rows of each patient say of its split, those without an image too."""
    found: dict[str, set[Part | None]] = defaultdict(set)
    if column is not None:
        for row in labels.rows:
            if row.get("PatientID"):
                found[row["PatientID"]].add(part_named(row[column]))
        for item in joined:
            found[item.patient].add(part_named(labels.rows[item.row][column]))
    return found


def _split_problem(named: set[Part | None] | None) -> Reason | None:
    """Return why a patient's given split cannot be used, or None."""
    if named is None:
        return None
    if None in named:
        return Reason.SPLIT_UNKNOWN
    return Reason.PATIENT_IN_TWO_SPLITS if len(named) > 1 else None


def _take(items: Items, chosen: list[int]) -> Items:
    """Return these items; all of them in their order are not copied."""
    if chosen == list(range(len(items))):
        return items
    return taken(items, torch.tensor(chosen, dtype=torch.int64))
