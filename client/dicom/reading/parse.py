"""Parsing of a file to a pydicom dataset, or the reason why there is none."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

from client.dicom.codec.decode import LARGEST_BYTES
from client.dicom.quiet import quiet
from client.dicom.reasons import Reason, UnusableFile

#: Representations whose lengths take four bytes (PS3.5 7.1.2).
_LONG = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)


class BoundedFile(io.BufferedReader):
    """A file that is never asked for more than it holds, whatever length an element claims."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or what is left: no buffer is made for more."""
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = max(0, min(size, self._size - self.tell()))
        return super().read(size)


def parse_file(file: BoundedFile, path: Path, *, pixels: bool) -> FileDataset:
    """Parse a file that may lack its preamble; UnusableFile says why not.

    Without pixels the file is left where its pixel data begin, or at its end.
    """
    with quiet():
        try:
            check_inflation(path)
            return _parse(file, pixels=pixels)
        except UnusableFile:
            raise
        except OSError as error:
            if error.errno is None:  # pydicom's own, about what is in the file
                raise UnusableFile(Reason.NOT_DICOM, str(error)[:120]) from error
            raise UnusableFile(Reason.UNREADABLE, type(error).__name__) from error
        except Exception as error:
            # Whatever a broken file makes the parser raise, it is not DICOM as we read it.
            raise UnusableFile(Reason.NOT_DICOM, type(error).__name__) from error


def _parse(file: BoundedFile, *, pixels: bool) -> FileDataset:
    try:
        return dcmread(file, stop_before_pixels=not pixels)
    except InvalidDicomError:
        file.seek(0)
        dataset = dcmread(file, force=True, stop_before_pixels=not pixels)
    # PS3.10 7.1 wants a preamble; without one, something must look like DICOM.
    if not any(name in dataset for name in ("SOPClassUID", "PixelData", "Rows")):
        raise UnusableFile(Reason.NOT_DICOM)
    return dataset


def is_deflated(path: Path) -> bool:
    """Return whether the header names the deflated syntax."""
    return _deflated_from(path) is not None


def _deflated_from(path: Path) -> int | None:
    """Return where the deflated part begins; None where the header names another syntax.

    The group of file meta information (PS3.10 7.1) is walked as pydicom walks it: to its last
    element, whatever its length element says.
    """
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            file.seek(0)
        deflated = False
        while True:
            place, head = file.tell(), file.read(8)
            if len(head) < 8 or head[:2] != b"\2\0":
                return place if deflated else None
            length = int.from_bytes(head[6:8], "little")
            if not head[4:6].isalpha():  # implicit, which no writer should
                length = int.from_bytes(head[4:8], "little")
            elif head[4:6] in _LONG:
                length = int.from_bytes(file.read(4), "little")
            if head[2:4] == b"\x10\0":
                named = file.read(min(length, 64))
                deflated = named.strip(b" \0") == DeflatedExplicitVRLittleEndian.encode()
                length -= len(named)
            file.seek(length, os.SEEK_CUR)


def check_inflation(path: Path) -> None:
    """Refuse a deflated file that would fill the memory; pydicom inflates without a limit."""
    start = _deflated_from(path)
    if start is None:
        return
    with path.open("rb") as file:
        file.seek(start)
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := inflater.unconsumed_tail or file.read(1 << 16):
            size += len(inflater.decompress(chunk, 1 << 22))
            if size > LARGEST_BYTES + (LARGEST_BYTES >> 2):  # headers take their part
                raise UnusableFile(Reason.TOO_LARGE, f"inflates beyond {size} bytes")
