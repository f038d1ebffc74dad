"""Patients as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from common.data.kept_items import Items


class Batch(NamedTuple):
    """Items (images, volumes or table rows) of some patients, several for one patient or one."""

    image: Tensor  # (items, channel, *spatial) or (items, features); (items, 0) without images
    table: Tensor  # (items, columns); (items, 0) without a table
    target: Tensor  # (items, ...) as the task encodes it
    patient: Tensor  # (items,) int64: position of the item's patient, 0 to patients - 1
    weight: Tensor  # (items,) 1 / items of the same patient here: each patient weighs 1


@dataclass(frozen=True, kw_only=True)
class Patients:
    """One site's patients of one split, ready for training; never leaves the site."""

    image: Items  # (items, channel, *spatial) or (items, features); (items, 0) without images
    table: Tensor  # (items, columns); (items, 0) without a table
    target: Items  # (items, ...) as the task encodes it
    patient: Tensor  # (items,) int64, rising: items of one patient stand together
    pseudonyms: tuple[str, ...]  # one per patient; stays at the site

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.pseudonyms)

    def items_of(self, patient: int) -> Tensor:
        """Return the positions of one patient's items, shape (items of the patient,)."""
        return torch.nonzero(self.patient == patient).flatten()


def take(patients: Patients, items: Tensor) -> Batch:
    """Return the batch of these items; patients are renumbered in order of first position."""
    owners, position, counts = torch.unique(
        patients.patient[items], return_inverse=True, return_counts=True
    )
    del owners
    return Batch(
        image=patients.image[items],
        table=patients.table[items],
        target=patients.target[items],
        patient=position,
        weight=1.0 / counts[position].to(torch.float32),
    )


def patient_mean(values: Tensor, batch: Batch) -> Tensor:
    """Average a value per item into one per patient: (items, ...) -> (patients, ...)."""
    count = int(batch.patient.max()) + 1 if len(batch.patient) else 0
    shape = (count, *values.shape[1:])
    weight = batch.weight.reshape(-1, *([1] * (values.dim() - 1))).to(values.dtype)
    return torch.zeros(shape, dtype=values.dtype).index_add_(0, batch.patient, values * weight)


def patient_loss(losses: Tensor, batch: Batch) -> Tensor:
    """Return the mean over patients of the mean over their items: () of (items,)."""
    return (losses * batch.weight).sum() / batch.weight.sum()
