"""Row of each patient in the tables of outcomes, by its first item; and in that of outlines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from client.cohort.site_cohort import SiteCohort
from common.config.parts.ranges import bin_of
from common.config.run_config import RunConfig
from common.data.kept_items import pieces
from common.data.volumes import are_volumes
from common.messages.cohort_statistics import FOREGROUND, FOREGROUND_SHARES, layout_of
from common.tasks import task_of

Rows = Mapping[str, tuple[str, ...]]


def outcomes_of(cohort: SiteCohort, config: RunConfig) -> dict[str, Rows]:
    """Return the patients of each row of the tables of outcomes, by their first item."""
    items, tables = cohort.items, config.task.outcome_tables
    if not tables:
        return {}
    task = task_of(config.task)
    first = torch.from_numpy(np.unique(items.patient.numpy(), return_index=True)[1])
    held: dict[str, dict[str, list[str]]] = {
        name: {row: [] for row in rows} for name, rows in tables.items()
    }
    for patient, target in zip(items.pseudonyms, items.target[first].numpy(), strict=True):
        for name, row in zip(tables, task.outcome_rows(target), strict=True):
            held[name][row].append(patient)
    return {
        name: {row: tuple(people) for row, people in rows.items()} for name, rows in held.items()
    }


def foreground_of(cohort: SiteCohort, config: RunConfig) -> dict[str, Rows]:
    """Return the patients of each row of the table of the share that lies in structures.

    Of their first volume, read one at a time; empty where the run is told nothing of it.
    """
    rows, items = layout_of(config).get(FOREGROUND), cohort.items
    if rows is None or not are_volumes(items.target):
        return {}
    held: dict[str, list[str]] = {row: [] for row in rows}
    seen: set[int] = set()
    for owner, labels in zip(items.patient.tolist(), pieces(items.target), strict=True):
        if owner not in seen:
            share = float((labels > 0).double().mean())
            held[bin_of(share, FOREGROUND_SHARES)].append(items.pseudonyms[owner])
            seen.add(owner)
    return {FOREGROUND: {row: tuple(people) for row, people in held.items()}}
