"""Conversion of stored values to quantities.

Stored values are kept as they are and travel with the line that makes them quantities
(PS3.3 C.11.1: slope x stored + intercept), so a cache can hold what the scanner wrote.

The window and the scale of a network's input are in common/data/intensity.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from client.dicom.codec.compressed import Array
from client.dicom.reading.groups import group_item, number_of
from client.dicom.reading.padding import Padding, filled, found_in, marked, padding_of
from client.dicom.reasons import Reason, UnusableFile


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """An object's frames as stored, and the line of each that makes them quantities."""

    stored: Array  # (frames, rows, columns[, 3])
    slope: NDArray[np.float64]  # (frames,); negative for MONOCHROME1, so that high is bright
    intercept: NDArray[np.float64]  # (frames,)
    padding: tuple[Padding | None, ...] = ()  # of each frame; empty: none of them has any

    def frames(self, some: slice) -> Pixels:
        """Return some of the frames."""
        return Pixels(
            stored=self.stored[some],
            slope=self.slope[some],
            intercept=self.intercept[some],
            padding=self.padding[some],
        )

    def values(self, frame: int) -> NDArray[np.float32]:
        """Return one frame as quantities, (rows, columns[, 3]); padding is at the lowest."""
        found: NDArray[np.float32] = self.stored[frame].astype(np.float32)  # always a copy
        slope, intercept = self.slope[frame], self.intercept[frame]
        if slope != 1:
            found *= np.float32(slope)
        if intercept != 0:
            found += np.float32(intercept)
        where = self.padded((slice(frame, frame + 1),))
        return filled(found, None if where is None else where[0])

    def patch(self, where: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return a part of all frames as quantities, without reading the rest."""
        found = self.stored[where].astype(np.float32)
        slope, intercept = self.slope[where[0]], self.intercept[where[0]]
        shape = (-1, *[1] * (found.ndim - 1))
        found *= slope.astype(np.float32).reshape(shape)
        found += intercept.astype(np.float32).reshape(shape)
        return filled(found, self.padded(where))

    def padded(self, where: tuple[slice, ...]) -> NDArray[np.bool_] | None:
        """Return which pixels of a part are padding; None where there can be none."""
        frames = self.padding[where[0]]
        if not any(frames):
            return None
        part = self.stored[where]
        found = np.zeros(part.shape, np.bool_)
        for place, padding in enumerate(frames):
            if padding is not None:
                found[place] = padding.where(part[place])
        return found


def as_quantities(dataset: Dataset, stored: Array, whole: Callable[[], Array]) -> Pixels:
    """Return what was decoded with the line that makes it quantities.

    `whole` gives the words as they lie, with what stands above the stored bits.
    """
    frames = len(stored)
    padding = padding_of(dataset)
    where = found_in(dataset, stored, padding, whole)
    pivot = _pivot(dataset, stored if where is None or where.all() else stored[~where])
    lines = np.ones(frames), np.zeros(frames)
    table = dataset.get("ModalityLUTSequence")
    if table:
        if pivot is not None:
            data = table[0].LUTData
            entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
            pivot = float(entries.max()) + float(entries.min())
        stored = np.asarray(apply_modality_lut(stored, dataset))
    else:
        lines = _rescale(dataset, frames)
    found = turned(stored, *lines, pivot)
    if padding is None or where is None:
        return found
    if not np.array_equal(padding.where(stored), where):  # a table, or bits that were cut off
        stored, padding = marked(stored, where)
    return replace(found, stored=stored, padding=(padding,) * frames)


def _pivot(dataset: Dataset, stored: Array) -> float | None:
    photometric = str(dataset.PhotometricInterpretation)
    if stored.dtype.kind == "f" and photometric == "MONOCHROME1":
        return float(stored.max()) + float(stored.min())
    if stored.dtype.kind == "f":
        return None
    signed = int(dataset.PixelRepresentation) == 1
    return pivot_of(photometric, bits=int(dataset.BitsStored), signed=signed)


def pivot_of(photometric: str, *, bits: int, signed: bool) -> float | None:
    """Return p where the stored value v is as bright as p - v is dark, for MONOCHROME1.

    It follows from the header, so that every image of a scanner is turned alike.
    """
    if photometric != "MONOCHROME1":
        return None
    return -1.0 if signed else float(2**bits - 1)


def turned(
    stored: Array, slope: NDArray[np.float64], intercept: NDArray[np.float64], pivot: float | None
) -> Pixels:
    """Return pixels with lines (frames,) that make high bright, around a pivot if there is one."""
    if pivot is not None:
        slope, intercept = -slope, slope * pivot + intercept
    return Pixels(stored=stored, slope=slope, intercept=intercept)


def _rescale(dataset: Dataset, frames: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slope and intercept of each frame."""
    own = [group_item(dataset, f, "PixelValueTransformationSequence") for f in range(frames)]
    if 0 < own.count(None) < frames:
        raise UnusableFile(Reason.MISSING_HEADER, "some frames have a rescale, others have none")
    lines = [dataset if item is None else item for item in own]
    name = "DoseGridScaling" if "DoseGridScaling" in dataset else "RescaleSlope"  # PS3.3 C.8.8.3
    slope = np.array([number_of(line, name, 1) for line in lines])
    if not slope.all():
        raise UnusableFile(Reason.BAD_VR, f"{name} 0")
    return slope, np.array([number_of(line, "RescaleIntercept", 0) for line in lines])
