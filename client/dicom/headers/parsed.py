"""Headers parsed by pydicom, where the scanner does not suffice and to compare with it."""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRBigEndian

from client.dicom.headers.checks import PixelElement, Scan
from client.dicom.headers.elements import Parsed
from client.dicom.reading.parse import BoundedFile, is_deflated, parse_file
from client.dicom.reasons import Reason, UnusableFile
from client.dicom.remarks import Remark

_PIXELS = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
_UNDEFINED = 0xFFFFFFFF


def parse(path: Path, size: int) -> Scan:
    """Return a header's elements by pydicom; UnusableFile says why there are none."""
    deflated = is_deflated(path)
    with BoundedFile(path) as file:
        dataset = parse_file(file, path, pixels=deflated)
        try:
            pixels = _inflated(dataset) if deflated else _pixels_at(file, dataset)
            return _scan_of(dataset, pixels, size, deflated=deflated)
        except OSError:
            raise
        except Exception as error:
            # pydicom converts values when they are asked for, and each type raises its own kind.
            raise UnusableFile(Reason.BAD_VR, str(error)[:120]) from error


def _scan_of(
    dataset: FileDataset, pixels: PixelElement | None, size: int, *, deflated: bool
) -> Scan:
    """Return what a parsed header tells."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    remarks = {
        Remark.NO_PREAMBLE: dataset.preamble is None,
        Remark.NO_SYNTAX: not syntax,
        Remark.BIG_ENDIAN: syntax == ExplicitVRBigEndian,
    }
    return Scan(
        elements=Parsed(dataset),
        syntax=syntax,
        media_class=str(dataset.file_meta.get("MediaStorageSOPClassUID") or ""),
        pixels=pixels,
        cut=pixels is None and not deflated and _is_cut(dataset, size),
        remarks=frozenset(remark for remark, true in remarks.items() if true),
    )


def _pixels_at(file: BoundedFile, dataset: FileDataset) -> PixelElement | None:
    """Return the pixel element that begins where pydicom stopped."""
    place = file.tell()
    head = file.read(12)
    implicit, little = dataset.original_encoding
    order = "<" if little else ">"
    if len(head) < 8:
        return None
    group, element = struct.unpack_from(f"{order}HH", head)
    tag = group << 16 | element
    if tag not in _PIXELS:
        return None
    long = implicit or head[4:6] in {b"OB", b"OW", b"OF", b"OD", b"UN"}
    if not long:
        (length,) = struct.unpack_from(f"{order}H", head, 6)
        return PixelElement(tag=tag, start=place + 8, length=length)
    skip = 4 if implicit else 8
    if len(head) < skip + 4:
        return None
    (length,) = struct.unpack_from(f"{order}I", head, skip)
    return PixelElement(
        tag=tag, start=place + skip + 4, length=-1 if length == _UNDEFINED else length
    )


def _inflated(dataset: FileDataset) -> PixelElement | None:
    """Return the pixel element of what was inflated; it has no place in the file."""
    for tag, name in _PIXELS.items():
        if name in dataset:
            return PixelElement(tag=tag, start=-1, length=len(dataset[name].value or b""))
    return None


def _is_cut(dataset: FileDataset, size: int) -> bool:
    """Return whether the last element goes on behind the file's end, or another one began."""
    ends = [
        raw.value_tell + raw.length
        for raw in dataset.values()
        if isinstance(raw, RawDataElement) and raw.length != _UNDEFINED
    ]
    return bool(ends) and max(ends) != size
