"""Norms, clip factors and sums of patients' gradients, exact enough to promise a bound.

Public: clip_factor, patient_norms, to_units, plain_sum, exact_sum.
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


def clip_factor(
    norm: Tensor, clip_norm: float, clipping: Literal["automatic", "flat"]
) -> Tensor:  # fmt: skip
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


def to_units(gradient: Tensor, factor: Tensor) -> Tensor:
    """Return a parameter's gradients scaled and rounded to whole numbers, (patients, ...)."""
    scale = factor.to(gradient.dtype).reshape(-1, *[1] * (gradient.dim() - 1))
    if not bool((factor > 0).all()):
        # nan times 0 is nan, so what is not finite is replaced before it is scaled.
        gradient = torch.where(scale > 0, gradient, 0.0)
    # Not in place: autograd may return one tensor for two parameters, or an expanded one.
    return (gradient * scale).round_()


def plain_sum(units: Tensor) -> Tensor:
    """Return the sum over up to 16 rows, which float32 holds exactly."""
    return units[0] if len(units) == 1 else units.sum(0)


def exact_sum(units: Tensor) -> Tensor:
    """Return the sum over rows in float64: first of 16 at a time, which float32 holds exactly."""
    whole = len(units) // EXACT_IN_FLOAT32 * EXACT_IN_FLOAT32
    groups = units[:whole].reshape(-1, EXACT_IN_FLOAT32, *units.shape[1:]).sum(1)
    return groups.sum(0, dtype=torch.float64) + units[whole:].sum(0)
