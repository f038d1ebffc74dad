"""Norms, clip factors and sums of patients' gradients, with bounded rounding errors.

Public: clip_factor, patient_norms, add_in_units, exact_sum.

One gradient a patient, however many images: client/privacy/patient_gradients.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

#: AUTO-S keeps small gradients from being blown up (Bu et al. 2023, eq. 4.2).
_AUTO_GAMMA = 0.01
#: float32 holds whole numbers up to 2^24: the sum of 16 contributions of at most 2^20 each.
EXACT_IN_FLOAT32 = 16
#: Squares added up at a time in float32. Over 10 million at once they came out 4e-4 too small,
#: which let as much through the clip.
_NORM_BLOCK = 4096
#: Above what a block's norm can be off by: 512 additions in each of 8 lanes, 2^-24 each, halved.
FLOAT_ERROR = 2e-5
#: Above what one patient, present or absent, moves the others' contributions by in all, where
#: several are side by side, as in simulations: a product of matrices rounds by the number of its
#: rows. As part of the clip norm; 6e-5 was the most in 108 cohorts of up to 2,000 patients and
#: 9,000 values, with weights of a training. It is no bound for weights that are made for it.
PEER_ERROR = 2e-4
#: Values that are scaled, rounded and added before the next: they stay in the processor's cache.
_AT_A_TIME = 2**16


def clip_factor(norm: Tensor, clip_norm: float, clipping: Literal["automatic", "flat"]) -> Tensor:
    """Return what a gradient of this norm is multiplied by; 0 where the norm is not finite."""
    finite = torch.isfinite(norm)
    match clipping:
        case "automatic":
            return torch.where(finite, clip_norm / (norm + _AUTO_GAMMA), 0.0)
        case "flat":
            return torch.where(finite, (clip_norm / norm.clamp_min(1e-30)).clamp_max(1.0), 0.0)


def patient_norms(samples: Sequence[Tensor]) -> Tensor:
    """Return each patient's L2 norm over all parameters, (patients,) in float64."""
    rows = [sample.flatten(1) for sample in samples]
    # The small ones go together: most parameters of a network are small.
    small = torch.cat([row for row in rows if row.shape[1] < _NORM_BLOCK] or [rows[0][:, :0]], 1)
    parts = [_squares(row) for row in (small, *rows) if row is small or row.shape[1] >= _NORM_BLOCK]
    return torch.sqrt(torch.stack(parts).sum(0))


def _squares(rows: Tensor) -> Tensor:
    """Return sums of squares by row, (rows,) in float64, from blocks in float32."""
    whole = rows.shape[1] // _NORM_BLOCK * _NORM_BLOCK
    rest: Tensor = torch.linalg.vector_norm(rows[:, whole:].float(), dim=1).double() ** 2
    if whole == 0:
        return rest
    blocks = rows[:, :whole].float().reshape(len(rows), -1, _NORM_BLOCK)
    whole_blocks: Tensor = torch.linalg.vector_norm(blocks, dim=2).double() ** 2
    return whole_blocks.sum(1) + rest


def add_in_units(sums: Sequence[Tensor], samples: Sequence[Tensor], factor: Tensor) -> None:
    """Add each parameter's gradients, scaled and rounded to whole numbers, to its sum.

    In float32 sums, which hold up to 16 patients exactly, and in float64 any number.
    """
    if len(factor) == 1:
        for total, sample in zip(sums, samples, strict=True):
            _add_one(total, sample[0], float(factor))
        return
    finite = bool((factor > 0).all())
    scale = factor.to(samples[0].dtype)
    # By parameter, not in one row: each stays in the processor's cache until it is added.
    for part, sample in zip(sums, samples, strict=True):
        by_patient = scale.reshape(-1, *[1] * (sample.dim() - 1))
        # nan times 0 is nan, so what is not finite is replaced before it is scaled.
        gradient = sample if finite else torch.where(by_patient > 0, sample, 0.0)
        part.add_(exact_sum((gradient * by_patient).round_()))


def _add_one(total: Tensor, gradient: Tensor, factor: float) -> None:
    """Add one patient's gradient, some thousand values at a time, which the cache holds."""
    if factor <= 0:
        return
    row, values = total.view(-1), gradient.reshape(-1)
    scratch = values.new_empty(min(len(values), _AT_A_TIME))
    pieces = (torch.split(values, _AT_A_TIME), torch.split(row, _AT_A_TIME))
    for some, sums in zip(*pieces, strict=True):
        # Not in place: autograd may return one tensor for two parameters, or an expanded one.
        sums.add_(torch.mul(some, factor, out=scratch[: len(some)]).round_())


def exact_sum(units: Tensor) -> Tensor:
    """Return the sum over rows: 16 at a time in float32, which holds them, and those in float64."""
    if len(units) <= EXACT_IN_FLOAT32:
        return units.sum(0)
    whole = len(units) // EXACT_IN_FLOAT32 * EXACT_IN_FLOAT32
    groups = units[:whole].reshape(-1, EXACT_IN_FLOAT32, *units.shape[1:]).sum(1)
    return groups.sum(0, dtype=torch.float64) + units[whole:].sum(0)
