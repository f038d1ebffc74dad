"""Whether series of one study lie on each other as their headers say.

Two series of one anatomy share most information where they lie on each other. Where moving one by
1 to 3 voxels along an axis raises their normalised mutual information (Studholme, Hill and Hawkes
1999) by more than `_MORE`, the patient probably moved between them. Where one shows little of the
other's grid there is little to compare, and that is told. Both are remarks: nothing is left out for
them, and nothing is moved.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BINS = 32
_FARTHEST = 3
#: Relative gain of the information shared, from which on it is told.
_MORE = 0.05
#: Voxels that are compared at most; every n-th of a larger volume.
_MOST = 1 << 16
#: Least part of both that must be compared.
_LEAST = 512
#: Part of what the reference shows, below which it is told how little a series shows of it.
_HALF = 0.5

Values = NDArray[np.float32]
Places = NDArray[np.bool_]


def shown_in_part(reference: Places | None, other: Places | None) -> str:
    """Return how much of what the reference shows another series shows, if it is under half.

    Both are the voxels of the grid that a series does not show; None: it shows all.
    """
    if other is None:
        return ""
    there = np.ones(other.shape, np.bool_) if reference is None else ~reference
    part = int((there & ~other).sum()) / max(int(there.sum()), 1)
    return f"it shows {part:.0%} of the grid" if part < _HALF else ""


def misaligned(reference: Values, other: Values, shown: Places | None) -> str:
    """Return by how much moving `other` (as `reference`) would make it fit better, or nothing.

    `shown` are the voxels that the other series shows; None: all of them.
    """
    first, second = _binned(reference), _binned(other)
    inside = np.ones(reference.shape, np.bool_) if shown is None else shown
    inner = tuple(slice(_FARTHEST, length - _FARTHEST) for length in reference.shape)
    axes = [axis for axis, length in enumerate(reference.shape) if length > 4 * _FARTHEST]
    inner = tuple(part if axis in axes else slice(None) for axis, part in enumerate(inner))
    here = _shared(first, second, inside, inner, 0, 0)
    if here is None:
        return ""
    best, by = here, ""
    for axis in axes:
        for voxels in (-3, -2, -1, 1, 2, 3):
            found = _shared(first, second, inside, inner, axis, voxels)
            if found is not None and found > best:
                best, by = found, f"{abs(voxels)} voxels along axis {axis + 1}"
    if best <= here * (1 + _MORE) or not by:
        return ""
    # Of a plain part of a series nothing is shared, however it lies.
    much = "information, and none here" if here <= 0 else f"{best / here - 1:.0%} more information"
    return f"moved by {by} it shares {much}"


def _binned(values: Values) -> NDArray[np.int64]:
    low, high = (float(q) for q in np.percentile(values[::2, ::2, ::2], [1, 99]))
    scaled = (values - low) / max(high - low, 1e-6) * _BINS
    found: NDArray[np.int64] = np.clip(scaled, 0, _BINS - 1).astype(np.int64)
    return found


def _shared(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    shown: Places,
    inner: tuple[slice, ...],
    axis: int,
    voxels: int,
) -> float | None:
    """Return the normalised mutual information of what both show inside, `second` moved.

    None where that is too little to tell.
    """
    moved = tuple(
        slice((part.start or 0) + voxels, part.stop + voxels) if place == axis and voxels else part
        for place, part in enumerate(inner)
    )
    where = shown[moved].ravel()
    one, two = first[inner].ravel()[where], second[moved].ravel()[where]
    step = max(1, len(one) // _MOST)
    one, two = one[::step], two[::step]
    if len(one) < _LEAST:
        return None
    joint = np.bincount(one * _BINS + two, minlength=_BINS * _BINS).reshape(_BINS, _BINS)
    together = _entropy(joint.ravel())
    if together <= 0:
        return 0.0
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / together - 1


def _entropy(counts: NDArray[np.int64]) -> float:
    part = counts[counts > 0] / counts.sum()
    return float(-(part * np.log(part)).sum())
