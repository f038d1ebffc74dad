"""Drawn structures that are gone, or partly gone, on another grid.

Taking the nearest voxel passes over what is smaller than a step of the new grid, and a crop over
what lies outside it. An image whose lesion was drawn and is gone would be trained on, and scored,
as one without: it is refused (MASK_LOST), by its own mask alone. What is gone in part is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.dicom.reasons import Reason, UnusableFile

#: Parts of fewer pixels along each axis than this are specks of a brush; that they are gone is
#: told where they are more than this part of a structure.
_SPECK, _MUCH = 3, 0.1

Parts = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Pixels of one structure that touch each other, at a corner at least."""

    structure: int  # from 1
    size: int  # pixels


def check_kept(
    labels: NDArray[np.integer], structures: Iterable[str], put: Callable[[Parts], Parts], grid: str
) -> str:
    """Return what is to be told of parts that are gone; MASK_LOST where a structure is.

    labels are 1.. for each structure in order; `put` brings a map of the same shape to the grid,
    which `grid` names.
    """
    numbered, parts = _parts(labels)
    if not parts:
        return ""
    kept = set(np.unique(put(numbered)).tolist())
    gone = [part for number, part in enumerate(parts, 1) if number not in kept]
    told = []
    for number, name in enumerate(structures, 1):
        lost = [part.size for part in gone if part.structure == number]
        own = [part.size for part in parts if part.structure == number]
        if own and len(lost) == len(own):
            detail = f"{name}: {sum(own)} pixels are drawn, and none is left on {grid}"
            raise UnusableFile(Reason.MASK_LOST, detail)
        large = any(size >= _SPECK**labels.ndim for size in lost)
        if large or sum(lost) > _MUCH * sum(own):
            told.append(
                f"{name}: {len(lost)} of {len(own)} parts ({sum(lost)} of {sum(own)} pixels) are "
                f"not on {grid}"
            )
    return "; ".join(told)


def _parts(labels: NDArray[np.integer]) -> tuple[Parts, list[_Part]]:
    """Return the parts of all structures, numbered from 1."""
    from scipy.ndimage import find_objects, generate_binary_structure, label

    touching = generate_binary_structure(labels.ndim, labels.ndim)
    numbered = np.zeros(labels.shape, np.int32)
    found: list[_Part] = []
    for number, box in enumerate(find_objects(labels), 1):
        if box is None:
            continue
        own, count = label(labels[box] == number, touching)
        numbered[box] += np.where(own > 0, own + len(found), 0).astype(np.int32)
        sizes = np.bincount(own.reshape(-1), minlength=count + 1)[1:]
        found += [_Part(structure=number, size=int(size)) for size in sizes]
    return numbered, found
