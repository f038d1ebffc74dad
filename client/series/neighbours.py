"""Slices beside a slice, which a 2-D network sees with it (`cohort.images.neighbours`).

Public: neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

from client.dicom.reading.read import Header
from client.dicom.reading.volume import order_slices


def neighbours(slices: Sequence[tuple[Header, int]]) -> list[tuple[int, int]]:
    """Return of each (header, frame) of a series the places of the ones before and after it.

    By position, whatever their numbers; at both ends the slice itself stands for the one that is
    not there. UnusableFile where the slices are no even stack, as for a volume.
    """
    order, _ = order_slices(slices)
    found = [(0, 0)] * len(slices)
    for place, slice_ in enumerate(order):
        before, after = max(place - 1, 0), min(place + 1, len(order) - 1)
        found[slice_] = order[before], order[after]
    return found
