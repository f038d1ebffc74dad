"""An image from its file: straight from the bytes in the easy case, by pydicom elsewhere."""

from __future__ import annotations

import numpy as np

from client.dicom.decode import Array, in_stored_bits
from client.dicom.elements import Odd, Scanned
from client.dicom.files import File
from client.dicom.header_checks import PixelElement
from client.dicom.header_scan import scan
from client.dicom.instance import describe
from client.dicom.read import (
    Header,
    Pixels,
    pivot_of,
    read_dataset,
    read_header,
    read_pixels,
    turned,
)
from client.dicom.reasons import Reason, UnusableFile

_PLAIN = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_PIXEL_DATA = 0x7FE00010


def read_image(file: File) -> tuple[Header, Pixels]:
    """Return an image's header and pixels; UnusableFile says why it cannot be used."""
    try:
        return read_native(file)
    except Odd:
        return parse_image(file)
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, type(error).__name__) from error


def parse_image(file: File) -> tuple[Header, Pixels]:
    """Return the same by pydicom alone: the readable twin."""
    try:
        dataset = read_dataset(file.path)
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, type(error).__name__) from error
    return read_header(dataset), read_pixels(dataset)


def read_native(file: File) -> tuple[Header, Pixels]:
    """Return a grey, uncompressed, little endian image of one frame; Odd for any other."""
    if file.size == 0:
        raise UnusableFile(Reason.EMPTY_FILE)
    found = scan(file.path, file.size)
    elements, pixels = found.elements, found.pixels
    if (
        not isinstance(elements, Scanned) or pixels is None or pixels.tag != _PIXEL_DATA
        or pixels.length < 0 or found.syntax not in _PLAIN
        or elements.integer("SamplesPerPixel") != 1
        or elements.text("PhotometricInterpretation") not in _GREY
        or elements.integer("BitsAllocated") not in {8, 16}
        or "PixelRepresentation" not in elements.values
    ):  # fmt: skip
        raise Odd
    header = describe(file, found).header
    stored = _stored(file, elements, pixels, header.shape)
    slope = elements.numbers("RescaleSlope", 1)
    intercept = elements.numbers("RescaleIntercept", 1)
    line = (slope[0] if slope else 0.0) or 1.0, intercept[0] if intercept else 0.0
    pivot = pivot_of(
        elements.text("PhotometricInterpretation"),
        bits=elements.integer("BitsStored"), signed=elements.integer("PixelRepresentation") == 1,
    )  # fmt: skip
    return header, turned(stored, np.array([line[0]]), np.array([line[1]]), pivot)


def _stored(
    file: File, elements: Scanned, pixels: PixelElement, shape: tuple[int, int]
) -> Array:
    """Return (1, rows, columns) as stored."""
    signed = elements.integer("PixelRepresentation")
    if signed not in {0, 1}:
        raise Odd
    bits = elements.integer("BitsAllocated")
    kind = np.dtype(f"<{'i' if signed else 'u'}{bits // 8}")
    rows, columns = shape
    values = np.fromfile(file.path, kind, rows * columns, offset=pixels.start)
    if len(values) != rows * columns:
        raise UnusableFile(Reason.TRUNCATED_PIXELS, "the file became shorter")
    stored = elements.integer("BitsStored")
    high = elements.integer("HighBit") if elements.values.get("HighBit") else stored - 1
    return in_stored_bits(values.reshape(1, rows, columns), stored, high)
