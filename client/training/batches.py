"""Batches: which patients, and which of their images, are in a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from common.config.patches import PatchRules
from common.data.sample import Batch, Patients, take
from common.data.volumes import drawn_patches, numbers_of


def batches(
    patients: Patients,
    size: int | Literal["all"],
    images_per_patient: int,
    steps: int,
    generator: torch.Generator,
    patches: PatchRules | None = None,
) -> Iterator[Batch]:
    """Yield `steps` batches of patients, each patient once before any patient twice.

    Of volumes as many patches a patient as `patches` says, in place of `images_per_patient`.
    """
    count = len(patients) if size == "all" else min(size, len(patients))
    if patches is not None:
        for chosen in _draw(len(patients), count, steps, generator):
            yield _patches(patients, chosen, patches, generator)
        return
    first, items = _spans(patients)
    if count == len(patients) and int(items.max()) <= images_per_patient:
        whole = take(patients, torch.arange(len(patients.patient)))
        yield from (whole for _ in range(steps))
        return
    for chosen in _draw(len(patients), count, steps, generator):
        yield take(patients, _items(first[chosen], items[chosen], images_per_patient, generator))


def _patches(
    patients: Patients, chosen: Tensor, rules: PatchRules, generator: torch.Generator
) -> Batch:
    """Return patches of the patients at these positions, each patient's together."""
    owner = chosen.sort().values.repeat_interleave(rules.per_patient)
    shape = (len(owner), numbers_of(len(rules.size)))
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
    found = drawn_patches(patients, owner, drawn, rules.foreground)
    return take(found, torch.arange(len(owner)))


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
