"""Checks that a header describes a readable image, before memory is taken for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isqrt

from pydicom.uid import UID

from client.dicom.codec.compressed import JPEG_2000
from client.dicom.codec.decode import LARGEST_BYTES, NATIVE, SYNTAXES
from client.dicom.headers.elements import Elements
from client.dicom.reading.never_decoded import check_mosaic, check_slide
from client.dicom.reading.read import SEGMENTATIONS
from client.dicom.reasons import Reason, UnusableFile
from client.dicom.remarks import Remark

_DIRECTORY = "1.2.840.10008.1.3.10"
#: VL Whole Slide Microscopy Image Storage.
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
#: The detail of NO_PIXELS where there should be some: the file was cut, or lost them otherwise.
WITHOUT_PIXELS = "an image without its pixels; send it again"
#: Siemens' text of the acquisition matrix: 64p*64, 128*128s.
_MATRIX = re.compile(r"(\d{1,4})p?\*(\d{1,4})s?")
_NEEDED = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel")
#: PS3.3 C.7.6.3.1.2: samples per pixel of what can be read as grey or RGB.
_SAMPLES = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
#: Colours that JPEG 2000 alone turns back to RGB.
_OF_JPEG_2000 = frozenset({"YBR_ICT", "YBR_RCT"})


@dataclass(frozen=True, kw_only=True)
class PixelElement:
    """Where a file's pixel data are."""

    tag: int  # 7FE00010, or 7FE00008 and 7FE00009 for floats
    start: int  # of the value, bytes from the file's begin; -1 where it was inflated
    length: int  # bytes as the element says; -1 for undefined


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a file's header tells."""

    elements: Elements
    syntax: str  # Transfer Syntax UID; empty where the file names none
    media_class: str  # MediaStorageSOPClassUID
    pixels: PixelElement | None  # None where the file ends without
    cut: bool = False  # the file ends inside its header
    remarks: frozenset[Remark] = frozenset()  # on the file, not on the image


def check_image(found: Scan, size: int) -> None:
    """Raise UnusableFile for whatever is no image, cannot be an image or is cut off."""
    elements = found.elements
    sop_class = elements.text("SOPClassUID") or found.media_class
    if sop_class == _DIRECTORY or elements.holds("DirectoryRecordSequence"):
        raise UnusableFile(Reason.DICOMDIR)
    if sop_class in SEGMENTATIONS:
        raise UnusableFile(Reason.SEGMENTATION)
    if found.pixels is None:
        _refuse_without_pixels(found, sop_class)
    image_type = elements.joined("ImageType")
    check_slide(
        image_type,
        elements.text("Modality"),
        sop_class,
        shows_label=elements.text("SpecimenLabelInImage") == "YES",
    )
    check_mosaic(image_type)
    rows, columns = _tiles(elements)
    if rows * columns > 1:
        raise UnusableFile(Reason.MOSAIC, f"{rows} x {columns} slices")
    for name in _NEEDED:
        if elements.integer(name) <= 0:
            raise UnusableFile(Reason.MISSING_HEADER, name)
    if not elements.text("PhotometricInterpretation"):
        raise UnusableFile(Reason.MISSING_HEADER, "PhotometricInterpretation")
    _check_colours(elements, found.syntax)
    expected = _check_size(elements, slide=sop_class == WHOLE_SLIDE)
    _check_syntax(found, expected, size)


def _tiles(elements: Elements) -> tuple[int, int]:
    """Return how many slices a Siemens picture shows down and across, by its private elements.

    Where Image Type was cleaned away, the number of images in the mosaic says it, or a matrix
    (such as 64p*64) that is a third of the picture or less; half of it may be interpolation.
    """
    if not elements.text("Manufacturer").upper().startswith("SIEMENS"):
        return 1, 1
    count = elements.integer("SiemensImagesInMosaic")
    if count > 1:
        side = isqrt(count - 1) + 1
        return side, side
    matrix = _MATRIX.fullmatch(elements.text("SiemensAcquisitionMatrix"))
    if matrix is None or elements.text("Modality") != "MR":
        return 1, 1
    sides = [int(part) for part in matrix.groups()]
    rows, columns = elements.integer("Rows"), elements.integer("Columns")
    tile = max(sides)
    if not tile or rows < 3 * tile or columns < 3 * tile or rows % tile or columns % tile:
        return 1, 1
    return rows // tile, columns // tile


def _refuse_without_pixels(found: Scan, sop_class: str) -> None:
    """Raise UnusableFile: a cut image is missed in its series, a report or plan is not."""
    if found.cut and found.elements.integer("Rows"):
        raise UnusableFile(Reason.TRUNCATED_PIXELS, "the file ends inside its header")
    image = not sop_class or "Image Storage" in UID(sop_class).name  # PS3.6 table A-1
    raise UnusableFile(Reason.NO_PIXELS, WITHOUT_PIXELS if image else "")


def _check_colours(elements: Elements, syntax: str) -> None:
    photometric, samples = (
        elements.text("PhotometricInterpretation"),
        elements.integer("SamplesPerPixel"),
    )
    wanted = _SAMPLES.get(photometric)
    if wanted is None or (photometric in _OF_JPEG_2000 and syntax not in JPEG_2000):
        raise UnusableFile(Reason.DECODE_ERROR, f"{photometric[:32]} in {syntax[:64]}")
    if samples != wanted:
        raise UnusableFile(Reason.BAD_VR, f"{photometric} with {samples} samples a pixel")


def _check_size(elements: Elements, *, slide: bool) -> int:
    """Return the bytes of the pixels as they lie uncompressed, below the limit."""
    rows, columns = elements.integer("Rows"), elements.integer("Columns")
    frames, bits = elements.integer("NumberOfFrames") or 1, elements.integer("BitsAllocated")
    samples = elements.integer("SamplesPerPixel")
    if frames < 0:
        raise UnusableFile(Reason.BAD_VR, f"NumberOfFrames {frames}")
    pixels = frames * rows * columns
    # A whole slide is read frame by frame; whoever would decode it as one is refused there.
    at_once = rows * columns if slide else pixels
    if at_once * samples * max(bits, 8) // 8 > LARGEST_BYTES:
        detail = f"{frames} x {rows} x {columns} pixels of {samples} x {bits} bits"
        raise UnusableFile(Reason.TOO_LARGE, detail)
    if elements.text("PhotometricInterpretation") == "YBR_FULL_422":
        samples = 2
    return (pixels * samples * bits + 7) // 8


def _check_syntax(found: Scan, expected: int, size: int) -> None:
    pixels = found.pixels
    if pixels is None:
        return
    if not found.syntax:
        if pixels.length < 0:
            raise UnusableFile(Reason.MISSING_TS)
    elif found.syntax not in SYNTAXES:
        raise UnusableFile(Reason.UNSUPPORTED_TS, found.syntax[:64])
    if found.syntax and found.syntax not in NATIVE:
        if pixels.length == 0 or pixels.start >= size:
            raise UnusableFile(Reason.TRUNCATED_PIXELS, "no pixel data")
        return
    if pixels.length < 0:
        return  # the decoder says what is wrong with it
    held = pixels.length if pixels.start < 0 else min(pixels.length, size - pixels.start)
    if held < expected:
        raise UnusableFile(Reason.TRUNCATED_PIXELS, f"{max(held, 0)} of {expected} bytes")
