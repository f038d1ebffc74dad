"""Padding pixels: what an image is filled up with (PS3.3 C.7.5.1.1.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from client.dicom.codec.compressed import Array

#: Stands for padding where its own value is not among the stored ones; beyond every value.
_MARK = -(1 << 24)
_FLOATS = (
    ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
)


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Stored values that are padding: all from the lowest to the highest."""

    lowest: float
    highest: float

    def where(self, stored: Array) -> NDArray[np.bool_]:
        """Return which of the stored values are padding."""
        if np.isnan(self.lowest):
            return np.isnan(stored)
        if self.lowest == self.highest:
            return np.asarray(stored == self.lowest)
        return np.asarray((stored >= self.lowest) & (stored <= self.highest))

    def fits(self, *, bits: int, signed: bool) -> bool:
        """Return whether stored values of so many bits can be padding."""
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return low <= self.lowest and self.highest <= high


def padding_between(value: int, limit: int | None, *, allocated: int, signed: bool) -> Padding:
    """Return the padding from Pixel Padding Value to Pixel Padding Range Limit, in either order.

    Both are of the pixels' own sign, whatever type a file gives them: 63536 is -2000 where
    pixels are signed.
    """
    ends = [_as_stored(end, allocated, signed=signed) for end in (value, limit) if end is not None]
    return Padding(lowest=min(ends), highest=max(ends))


def _as_stored(value: int, allocated: int, *, signed: bool) -> int:
    if allocated > 16:  # the attribute holds 16 bits
        return value
    value &= (1 << allocated) - 1
    return value - (1 << allocated) if signed and value >> allocated - 1 else value


def padding_of(dataset: Dataset) -> Padding | None:
    """Return what an object declares as padding; None where it declares none."""
    if not str(dataset.PhotometricInterpretation).startswith("MONOCHROME"):
        return None
    for name, limit in _FLOATS:
        value = dataset.get(name)
        if value is not None:
            other = dataset.get(limit)
            ends = float(value), float(value if other is None else other)
            return Padding(lowest=min(ends), highest=max(ends))
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "" or "PixelData" not in dataset:
        return None
    other = dataset.get("PixelPaddingRangeLimit")
    return padding_between(
        int(value),
        None if other is None or other == "" else int(other),
        allocated=int(dataset.BitsAllocated),
        signed=int(dataset.PixelRepresentation) == 1,
    )


def found_in(
    dataset: Dataset, stored: Array, padding: Padding | None, whole: Callable[[], Array]
) -> NDArray[np.bool_] | None:
    """Return where an object's padding lies; None where it declares none.

    Some scanners pad with values beyond the bits that are stored: then the whole words are asked.
    """
    if padding is None:
        return None
    if stored.dtype.kind == "f" or padding.fits(
        bits=int(dataset.BitsStored), signed=int(dataset.PixelRepresentation) == 1
    ):
        return padding.where(stored)
    return padding.where(whole())


def marked(stored: Array, where: NDArray[np.bool_]) -> tuple[Array, Padding]:
    """Return the values with a mark where the padding lies, and that mark as the padding."""
    kind = np.float64 if stored.dtype.kind == "f" else np.int32
    return np.where(where, kind(_MARK), stored.astype(kind)), Padding(lowest=_MARK, highest=_MARK)


def filled(values: NDArray[np.float32], where: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Return quantities whose padding is at the lowest of the others (they are changed)."""
    if where is not None and where.any():
        values[where] = values.min() if where.all() else values[~where].min()
    return values
