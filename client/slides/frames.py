"""Frames of a slide's level, each decoded alone when it is asked for.

Public: FrameReader.
"""

from __future__ import annotations

import itertools
import mmap
from collections import OrderedDict
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from client.dicom.codec.compressed import check_frame, decode_frame
from client.dicom.codec.decode import NATIVE, decode
from client.dicom.contained import contained
from client.dicom.reasons import Reason, UnusableFile
from client.slides.levels import LevelPart, SlideLevel

Rgb = NDArray[np.uint8]  # (rows, columns, 3)

#: The commonest by far, which imagecodecs decodes at once; others go the long way round.
_BASELINE = "1.2.840.10008.1.2.4.50"
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = 0xFFFFFFFF
_LONG = (b"OB", b"OW", b"UN")
#: Decoded frames that are kept: tiles that do not lie on the frames' grid share them.
_KEPT = 64
_PER_PIXEL = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
)


class FrameReader:
    """Reads regions of a level; of a file no more than its frames that are asked for."""

    def __init__(self, level: SlideLevel) -> None:
        self.level = level
        self._files: list[_PartFile] = []
        self._kept: OrderedDict[int, Rgb] = OrderedDict()

    def __enter__(self) -> Self:
        try:
            for part in self.level.parts:
                self._files.append(_PartFile(part, self.level))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        for file in self._files:
            file.close()
        self._files.clear()

    def region(self, top: int, left: int, rows: int, columns: int) -> Rgb:
        """Return a part of the matrix; white beyond its edges and where no frame is."""
        found = np.full((rows, columns, 3), 255, np.uint8)
        level = self.level
        high, wide = level.form.rows, level.form.columns
        met = (level.top < top + rows) & (level.top + high > top)
        met &= (level.left < left + columns) & (level.left + wide > left)
        for place in np.flatnonzero(met):
            first_row, first_column = int(level.top[place]), int(level.left[place])
            # What lies beyond the matrix is padding of the last tiles.
            bottom = min(first_row + high, top + rows, level.rows)
            right = min(first_column + wide, left + columns, level.columns)
            upper, start = max(first_row, top), max(first_column, left)
            if bottom <= upper or right <= start:
                continue
            frame = self.frame(int(level.frame[place]))
            found[upper - top : bottom - top, start - left : right - left] = frame[
                upper - first_row : bottom - first_row, start - first_column : right - first_column
            ]
        return found

    def frame(self, number: int) -> Rgb:
        """Return one frame's colours; UnusableFile says why there are none."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        with contained():
            file = next(f for f in self._files if f.part.first <= number < f.end)
            found = _colours(file.frame(number - file.part.first), self.level)
        self._kept[number] = found
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found


class _PartFile:
    """One file of a level, mapped into memory, and where its frames lie."""

    def __init__(self, part: LevelPart, level: SlideLevel) -> None:
        self.part, self.end = part, part.first + part.frames
        with part.path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._spans = self._found(level)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._data.close()

    def frame(self, number: int) -> bytes:
        """Return the bytes of a frame as they are stored."""
        return b"".join(self._data[start:end] for start, end in self._spans[number])

    def _found(self, level: SlideLevel) -> list[list[tuple[int, int]]]:
        value, length = self._value()
        if level.syntax in NATIVE:
            return self._native(value, level)
        if length != _UNDEFINED:
            raise UnusableFile(Reason.TRUNCATED_PIXELS, "compressed frames without fragments")
        table, fragments = self._fragments(value)
        if len(fragments) == self.part.frames:
            return [[span] for span in fragments]
        starts = self.part.offsets or tuple(np.frombuffer(table, "<u4").tolist())
        if len(starts) != self.part.frames:
            detail = f"{len(fragments)} fragments of {self.part.frames} frames, and no table"
            raise UnusableFile(Reason.TRUNCATED_PIXELS, detail)
        # Offsets count from the first fragment's item, 8 bytes before its value.
        origin = fragments[0][0] - 8 if fragments else 0
        bounds = np.searchsorted([s - 8 - origin for s, _ in fragments], [*starts, 1 << 62])
        return [fragments[a:b] for a, b in itertools.pairwise(bounds.tolist())]

    def _value(self) -> tuple[int, int]:
        """Return where the value of the pixel data begins, and the length that is said."""
        start = self.part.pixels
        implicit = str(self.part.header.file_meta.TransferSyntaxUID) == "1.2.840.10008.1.2"
        if self._data[start : start + 4] != b"\xe0\x7f\x10\x00":
            raise UnusableFile(Reason.NO_PIXELS, "no pixel data after the header")
        if implicit:
            return start + 8, int.from_bytes(self._data[start + 4 : start + 8], "little")
        if self._data[start + 4 : start + 6] not in _LONG:
            raise UnusableFile(Reason.BAD_VR, "pixel data that are no OB or OW")
        return start + 12, int.from_bytes(self._data[start + 8 : start + 12], "little")

    def _native(self, value: int, level: SlideLevel) -> list[list[tuple[int, int]]]:
        form = level.form
        if form.photometric == "YBR_FULL_422":
            raise UnusableFile(Reason.DECODE_ERROR, "YBR_FULL_422 without compression")
        size = form.rows * form.columns * form.samples
        if value + size * self.part.frames > len(self._data):
            raise UnusableFile(
                Reason.TRUNCATED_PIXELS, f"{self.part.frames} frames of {size} bytes"
            )
        return [[(value + n * size, value + (n + 1) * size)] for n in range(self.part.frames)]

    def _fragments(self, place: int) -> tuple[bytes, list[tuple[int, int]]]:
        """Return the basic offset table, and begin and end of each fragment (PS3.5 A.4)."""
        spans: list[tuple[int, int]] = []
        while self._data[place : place + 4] == _ITEM:
            length = int.from_bytes(self._data[place + 4 : place + 8], "little")
            spans.append((place + 8, place + 8 + length))
            place += 8 + length
        if not spans or place > len(self._data) or self._data[place : place + 4] != _END:
            raise UnusableFile(Reason.TRUNCATED_PIXELS, "the file ends between fragments")
        start, end = spans[0]
        return self._data[start:end], spans[1:]


def _colours(stored: bytes, level: SlideLevel) -> Rgb:
    """Return a frame's colours, (rows, columns, 3)."""
    form = level.form
    if level.syntax == _BASELINE and form.samples == 3:
        check_frame(stored, level.syntax, form)
        return np.asarray(decode_frame(stored, level.syntax, form), np.uint8)
    found = decode(_alone(stored, level), UID(level.syntax))[0]
    if form.samples == 1:
        found = np.repeat(found[..., None], 3, axis=2)
    return np.asarray(found, np.uint8)


def _alone(stored: bytes, level: SlideLevel) -> Dataset:
    """Return a dataset of this frame alone, for the decoders that take one."""
    header, native = level.parts[0].header, level.syntax in NATIVE
    found = Dataset()
    for keyword in _PER_PIXEL:
        if keyword in header:
            setattr(found, keyword, header[keyword].value)
    found.NumberOfFrames = 1
    found.PixelData = stored + b"\0" * (len(stored) % 2) if native else encapsulate([stored])
    found["PixelData"].VR = "OB"
    found["PixelData"].is_undefined_length = not native
    found.file_meta = header.file_meta
    return found
