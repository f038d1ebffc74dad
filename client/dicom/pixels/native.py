"""An image read from its file: from the bytes in the easy case, by pydicom elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydicom.dataset import Dataset

from client.dicom.codec.compressed import (
    BY_IMAGECODECS,
    Array,
    Format,
    check_frame,
    decode_frame,
    in_stored_bits,
)
from client.dicom.codec.dcmtk import decoded_by_dcmtk
from client.dicom.headers.checks import PixelElement, Scan
from client.dicom.headers.elements import Scanned, UnusualHeader
from client.dicom.headers.instance import describe
from client.dicom.headers.parsed import parse
from client.dicom.headers.scanned import scan
from client.dicom.pixels.fragments import read_frame
from client.dicom.quiet import quiet
from client.dicom.reading.files import File
from client.dicom.reading.padding import Padding, padding_between
from client.dicom.reading.read import Header, read_dataset, read_pixels
from client.dicom.reading.rescale import Pixels, pivot_of, turned
from client.dicom.reasons import DecoderGaveUp, Reason, UnusableFile

_PLAIN = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_PIXEL_DATA = 0x7FE00010
#: For these, dcmtk is asked where our own decoder gives up.
_BY_DCMTK = BY_IMAGECODECS | {"1.2.840.10008.1.2.4.50"}


def read_image(file: File) -> tuple[Header, Pixels]:
    """Return an image's header and pixels; UnusableFile says why it cannot be used."""
    try:
        try:
            return read_easy(file)
        except UnusualHeader:
            return parse_image(file)
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, type(error).__name__) from error


def parse_image(file: File) -> tuple[Header, Pixels]:
    """Return the same by pydicom alone: the readable twin, and for what is not easy."""
    if file.size == 0:
        raise UnusableFile(Reason.EMPTY_FILE)
    try:
        with quiet():
            found = parse(file.path, file.size)
            header = describe(file, found).header
    except (UnusableFile, OSError):
        raise
    except Exception as error:
        # pydicom converts values when they are asked for, and each type raises its own kind.
        raise UnusableFile(Reason.BAD_VR, str(error)[:120]) from error
    try:
        return header, _fitting(read_pixels(_whole(file)), header)
    except DecoderGaveUp:
        if found.syntax not in _BY_DCMTK:
            raise
        with decoded_by_dcmtk(file.path) as uncompressed:
            if uncompressed is None:
                raise
            return header, _fitting(read_pixels(read_dataset(uncompressed)), header)


def _fitting(pixels: Pixels, header: Header) -> Pixels:
    """Return the pixels; UnusableFile where elements behind them say another size than before."""
    if pixels.stored.shape[:3] != (header.frames, *header.shape):
        detail = f"pixels {pixels.stored.shape[:3]}, header {(header.frames, *header.shape)}"
        raise UnusableFile(Reason.DECODE_ERROR, detail)
    return pixels


def _whole(file: File) -> Dataset:
    """Return the dataset with its pixels; a header that was fine says what is wrong with these."""
    try:
        return read_dataset(file.path)
    except UnusableFile as problem:
        if problem.reason is Reason.NOT_DICOM:
            raise UnusableFile(Reason.TRUNCATED_PIXELS, problem.detail) from problem
        raise


def read_easy(file: File) -> tuple[Header, Pixels]:
    """Return a grey, little endian image of one frame, native or in JPEG; Odd for any other."""
    if file.size == 0:
        raise UnusableFile(Reason.EMPTY_FILE)
    found = scan(file.path, file.size)
    elements, pixels = found.elements, found.pixels
    if not isinstance(elements, Scanned) or pixels is None or pixels.tag != _PIXEL_DATA:
        raise UnusualHeader
    if "DoseGridScaling" in elements.values:
        raise UnusualHeader
    header = describe(file, found).header
    form = _format(elements)
    if found.syntax in _PLAIN and pixels.length >= 0:
        stored = _native(file, pixels, form)
    elif found.syntax in BY_IMAGECODECS and pixels.length < 0:
        stored = _compressed(file, found, pixels, form)
    else:
        raise UnusualHeader
    slope = _number(elements, "RescaleSlope", 1)
    intercept = _number(elements, "RescaleIntercept", 0)
    pivot = pivot_of(form.photometric, bits=form.stored, signed=form.signed)
    image = turned(stored, np.array([slope]), np.array([intercept]), pivot)
    padding = _padding(elements, form)
    return header, image if padding is None else replace(image, padding=(padding,))


def _padding(elements: Scanned, form: Format) -> Padding | None:
    """Return what is declared as padding; Odd where the stored bits do not hold it."""
    if not elements.values.get("PixelPaddingValue"):
        return None
    limited = elements.values.get("PixelPaddingRangeLimit")
    found = padding_between(
        elements.integer("PixelPaddingValue"),
        elements.integer("PixelPaddingRangeLimit") if limited else None,
        allocated=form.allocated,
        signed=form.signed,
    )
    if form.high != form.stored - 1 or not found.fits(bits=form.stored, signed=form.signed):
        raise UnusualHeader
    return found


def _number(elements: Scanned, keyword: str, absent: float) -> float:
    """Return a finite number that is not zero where it is a slope; Odd where it is neither."""
    raw = elements.values.get(keyword, b"").strip(b" \0")
    if not raw:
        return float(absent)
    found = elements.numbers(keyword, 1)
    if not found or (absent and not found[0]):
        raise UnusualHeader
    return found[0]


def _format(elements: Scanned) -> Format:
    """Return what the header says of the pixels, where that is easy."""
    stored = elements.integer("BitsStored")
    form = Format(
        rows=elements.integer("Rows"),
        columns=elements.integer("Columns"),
        samples=elements.integer("SamplesPerPixel"),
        photometric=elements.text("PhotometricInterpretation"),
        allocated=elements.integer("BitsAllocated"),
        stored=stored,
        high=elements.integer("HighBit") if elements.values.get("HighBit") else stored - 1,
        signed=elements.integer("PixelRepresentation") == 1,
    )
    easy = form.samples == 1 and form.photometric in _GREY and form.allocated in {8, 16}
    if not easy or elements.values.get("PixelRepresentation") not in {b"\0\0", b"\1\0"}:
        raise UnusualHeader
    return form


def _native(file: File, pixels: PixelElement, form: Format) -> Array:
    """Return (1, rows, columns) as stored."""
    kind = np.dtype(f"<{'i' if form.signed else 'u'}{form.allocated // 8}")
    if pixels.length >= 2 * form.rows * form.columns * kind.itemsize:
        raise UnusualHeader  # as long as several frames, though there is one
    values = np.fromfile(file.path, kind, form.rows * form.columns, offset=pixels.start)
    if len(values) != form.rows * form.columns:
        raise UnusableFile(Reason.TRUNCATED_PIXELS, "the file became shorter")
    return in_stored_bits(values.reshape(1, form.rows, form.columns), form.stored, form.high)


def _compressed(file: File, found: Scan, pixels: PixelElement, form: Format) -> Array:
    """Return (1, rows, columns) of the one frame."""
    if form.high != form.stored - 1:
        raise UnusualHeader
    frame = read_frame(file.path, pixels.start)
    check_frame(frame, found.syntax, form)
    try:
        return decode_frame(frame, found.syntax, form)[None]
    except UnusableFile:
        raise
    except Exception as error:
        # The decoder's own kinds of errors; the long way round asks other decoders, too.
        raise UnusualHeader from error
