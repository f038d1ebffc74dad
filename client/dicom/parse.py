"""A file to pydicom's dataset, whatever is in it, or a reason why there is none."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from client.dicom.decode import LARGEST_BYTES
from client.dicom.quiet import quiet
from client.dicom.reasons import Reason, UnusableFile


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
    with path.open("rb") as file:
        return DeflatedExplicitVRLittleEndian.encode() in file.read(1024)


def check_inflation(path: Path) -> None:
    """Refuse a deflated file that would fill the memory; pydicom inflates without a limit."""
    if not is_deflated(path):
        return
    with path.open("rb") as file:
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return  # the UID only stands somewhere in the header
        # Preamble and prefix, the group's length element, the group (PS3.10 7.1).
        file.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := inflater.unconsumed_tail or file.read(1 << 16):
            size += len(inflater.decompress(chunk, 1 << 22))
            if size > LARGEST_BYTES + (LARGEST_BYTES >> 2):  # headers take their part
                raise UnusableFile(Reason.TOO_LARGE, f"inflates beyond {size} bytes")
