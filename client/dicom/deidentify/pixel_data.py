"""Pixel data written anew: decoded, cut to the stored bits, nothing behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from client.dicom.codec.decode import LARGEST_BYTES, decode, frames_of
from client.dicom.reasons import Reason, UnusableFile

#: Changes frames, (frames, rows, columns[, 3]).
Change = Callable[[NDArray[np.generic]], NDArray[np.generic]]


def clean_pixels(source: Dataset, target: Dataset, changes: Sequence[Change] = ()) -> None:
    """Put the source's image into the target, uncompressed, with the attributes that say how.

    Palettes and YBR become RGB. What a compressed stream carries besides the image (comments,
    application segments, unused segments) has no way into the result.
    """
    stored = _stored(source)
    for change in changes:
        stored = change(stored)
    if stored.dtype.kind not in "uib":
        raise UnusableFile(Reason.DECODE_ERROR, "pixels of this kind are not released")
    color = stored.ndim == 4
    target.SamplesPerPixel = 3 if color else 1
    grey = "MONOCHROME1" if source.PhotometricInterpretation == "MONOCHROME1" else "MONOCHROME2"
    target.PhotometricInterpretation = "RGB" if color else grey
    if color:
        target.PlanarConfiguration = 0
    elif "PlanarConfiguration" in target:
        del target.PlanarConfiguration
    target.Rows, target.Columns = stored.shape[1:3]
    if "NumberOfFrames" in target or len(stored) > 1:
        target.NumberOfFrames = len(stored)
    if int(source.BitsAllocated) == 1:
        _put(target, np.packbits(stored.astype(bool), bitorder="little").tobytes(), 1, 1)
        target.PixelRepresentation = 0
        return
    allocated = stored.dtype.itemsize * 8
    bits = allocated if color else min(int(source.BitsStored), allocated)
    signed = stored.dtype.kind == "i"
    target.PixelRepresentation = int(signed)
    _put(target, stored.astype(stored.dtype.newbyteorder("<")).tobytes(), allocated, bits)


def _stored(source: Dataset) -> NDArray[np.generic]:
    """Decode as for reading, though without the lines and tables that make values quantities."""
    samples = int(source.Rows) * int(source.Columns) * int(source.SamplesPerPixel)
    if samples * frames_of(source) * max(8, int(source.BitsAllocated)) // 8 > LARGEST_BYTES:
        raise UnusableFile(Reason.TOO_LARGE)
    try:
        return decode(source, UID(source.file_meta.TransferSyntaxUID))
    except UnusableFile:
        raise
    except Exception as error:
        # Decoders of several libraries raise their own kinds on broken data.
        raise UnusableFile(Reason.DECODE_ERROR, type(error).__name__) from error


def _put(target: Dataset, data: bytes, allocated: int, stored: int) -> None:
    target.BitsAllocated, target.BitsStored = allocated, stored
    target.HighBit = stored - 1
    target.PixelData = data + b"\0" * (len(data) % 2)
    target["PixelData"].VR = "OB" if allocated <= 8 else "OW"
