"""Batches: which patients, and which of their images, are in a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from common.data.sample import Batch, Patients, take


def batches(
    patients: Patients,
    size: int | Literal["all"],
    images_per_patient: int,
    steps: int,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Yield `steps` batches of patients, each patient once before any patient twice."""
    count = len(patients) if size == "all" else min(size, len(patients))
    first, items = _spans(patients)
    if count == len(patients) and int(items.max()) <= images_per_patient:
        whole = take(patients, torch.arange(len(patients.patient)))
        yield from (whole for _ in range(steps))
        return
    for chosen in _draw(len(patients), count, steps, generator):
        yield take(patients, _items(first[chosen], items[chosen], images_per_patient, generator))


def _spans(patients: Patients) -> tuple[Tensor, Tensor]:
    """Return where each patient's items begin and how many they are, both (patients,)."""
    items = torch.bincount(patients.patient, minlength=len(patients))
    return items.cumsum(0) - items, items


def _draw(patients: int, count: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield positions of the patients of each step, by shuffled passes over all of them."""
    order = torch.randperm(patients, generator=generator)
    for _ in range(steps):
        if len(order) < count:
            rest = torch.randperm(patients, generator=generator)
            # A patient left over from the last pass must not stand in the batch twice.
            order = torch.cat([order, rest[~torch.isin(rest, order)]])
        yield order[:count]
        order = order[count:]


def _items(first: Tensor, items: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return the positions of at most `most` items of each patient, drawn without repetition."""
    if int(items.max()) == 1:
        return first
    chosen = [
        start + torch.randperm(count, generator=generator)[:most]
        for start, count in zip(first.tolist(), items.tolist(), strict=True)
    ]
    return torch.cat(chosen)
