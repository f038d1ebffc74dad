"""A received file: moved to its place once its content is checked.

A file is written under a hidden name, which the index passes over, looked at, and renamed:
study/series/instance.dcm below the data folder, by UIDs that hold digits and dots alone, so that
no PACS can write anywhere else.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from client.dicom.headers.elements import Elements, Parsed, UnusualHeader
from client.dicom.headers.scanned import scan
from client.dicom.reasons import Reason, UnusableFile

#: PS3.5 9.1: digits and dots, at most 64.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_LONGEST_UID = 64
_PIXELS = 0x7FE00010
#: Item and sequence delimiter (PS3.5 A.4) around the fragments of compressed pixels.
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
#: One object's bytes; a whole-body multi-frame is below 2 GiB.
LARGEST_BYTES = 4 << 30
_numbers = count()


@dataclass(frozen=True, kw_only=True)
class Landed:
    """An object that is in its place."""

    path: Path
    study: str  # StudyInstanceUID
    series: str  # SeriesInstanceUID
    instance: str  # SOPInstanceUID
    size: int  # bytes


#: Raises UnusableFile for an object that was not asked for.
Expected = Callable[[Landed], None]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a file's header says that decides about it."""

    elements: Elements
    start: int  # of the pixels' value, bytes; 0 where there are none
    length: int  # of it; -1 where compressed


def is_uid(text: str) -> bool:
    """Return whether a text is a UID, and so a safe name for a file."""
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def folder_of(data: Path, study: str, series: str) -> Path:
    """Return where a series lies; UnusableFile when its UIDs are none."""
    for uid in (study, series):
        if not is_uid(uid):
            raise UnusableFile(Reason.MISSING_HEADER, "a study or series without a valid UID")
    return data / study / series


def place(
    data: Path, content: Iterable[bytes | memoryview], expected: Expected | None = None
) -> Landed:
    """Write an object below the data folder and return it; UnusableFile says what is wrong.

    A file of that name is replaced. Nothing is left of one that is refused, nor after an error;
    `expected` may refuse one as well.
    """
    data.mkdir(parents=True, exist_ok=True)
    temporary = data / f".{os.getpid()}-{threading.get_ident()}-{next(_numbers)}.part"
    try:
        size = _written(temporary, content)
        landed = look(temporary, size, data)
        if expected is not None:
            expected(landed)
        try:
            temporary.replace(landed.path)
        except FileNotFoundError:
            landed.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(landed.path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return landed


def look(path: Path, size: int, data: Path) -> Landed:
    """Check a file of so many bytes and say where it belongs; UnusableFile says what is wrong."""
    seen = _seen(path, size)
    study, series, instance = (
        seen.elements.text(name)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    )
    folder = folder_of(data, study, series)
    if not is_uid(instance):
        raise UnusableFile(Reason.MISSING_HEADER, "no valid SOPInstanceUID")
    if seen.start:
        _check_pixels(path, size, seen)
    return Landed(
        path=folder / f"{instance}.dcm", study=study, series=series, instance=instance, size=size
    )


def durable(paths: Iterable[Path]) -> None:
    """Return once the files and their names would outlast a loss of power."""
    folders = set()
    for path in paths:
        _sync(path)
        folders |= {path.parent, path.parent.parent, path.parent.parent.parent}
    for folder in folders:
        _sync(folder)


def leftovers(data: Path) -> None:
    """Remove what an earlier process left half written; no other may be at work there."""
    for path in data.glob(".*-*-*.part"):
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path, content: Iterable[bytes | memoryview]) -> int:
    size = 0
    with path.open("wb", buffering=0) as file:
        for piece in content:
            size += len(piece)
            if size > LARGEST_BYTES:
                raise UnusableFile(Reason.TOO_LARGE, f"more than {LARGEST_BYTES} bytes")
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]
    return size


def _seen(path: Path, size: int) -> _Seen:
    """Return what the header says: scanned where that is easy, else by pydicom."""
    if not size:
        raise UnusableFile(Reason.EMPTY_FILE)
    try:
        found = scan(path, size)
    except UnusualHeader:
        return _parsed(path)
    pixels = found.pixels
    if pixels is None or pixels.tag != _PIXELS:
        return _Seen(elements=found.elements, start=0, length=0)
    return _Seen(elements=found.elements, start=pixels.start, length=pixels.length)


def _parsed(path: Path) -> _Seen:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        # Whole, so that fragments without their end are an error here.
        dataset = dcmread(path)
        elements = Parsed(dataset)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            elements.text(name)
        compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
        if "PixelData" in dataset and not compressed:
            _enough(len(dataset.PixelData), _expected(elements))
    except InvalidDicomError as error:
        raise UnusableFile(Reason.NOT_DICOM) from error
    except (OSError, UnusableFile):
        raise
    except Exception as error:
        # A hostile or broken header fails in pydicom in many ways.
        raise UnusableFile(Reason.BAD_VR, type(error).__name__) from error
    return _Seen(elements=elements, start=0, length=0)


def _check_pixels(path: Path, size: int, seen: _Seen) -> None:
    """UnusableFile with TRUNCATED_PIXELS when there are fewer than the header promises."""
    if seen.length < 0:
        _check_fragments(path, size, seen.start)
        return
    _enough(size - seen.start, seen.length)
    with suppress(UnusualHeader):  # strange numbers of rows are for the reader to refuse
        _enough(seen.length, _expected(seen.elements))


def _enough(found: int, expected: int) -> None:
    if found < expected:
        detail = f"{found} bytes of pixels, expected {expected}"
        raise UnusableFile(Reason.TRUNCATED_PIXELS, detail)


def _expected(elements: Elements) -> int:
    """Return bytes of uncompressed pixels (PS3.3 C.7.6.3)."""
    rows, columns, samples, bits = (
        elements.integer(name) for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
    )
    frames = elements.integer("NumberOfFrames") or 1
    total = rows * columns * samples * frames * bits
    if elements.text("PhotometricInterpretation") == "YBR_FULL_422":
        total = total * 2 // 3
    return total // 8


def _check_fragments(path: Path, size: int, place: int) -> None:
    """Walk the fragments of compressed pixels to their delimiter (PS3.5 A.4)."""
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            head = file.read(8)
            if head[:4] == _END:
                return
            if head[:4] != _ITEM:
                raise UnusableFile(Reason.TRUNCATED_PIXELS, "a fragment does not begin as one")
            place += 8 + int.from_bytes(head[4:], "little")
    raise UnusableFile(Reason.TRUNCATED_PIXELS, "compressed pixels without their end")
