"""Decoding of one compressed frame by imagecodecs, checked against its header.

imagecodecs lets go of Python's lock, so frames of several files are decoded side by side.
libjpeg-turbo does lossless JPEG, too: three times as quick as liblj92, which besides ignores
the point transform in silence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.dicom.codec.codestream import Colour, colour_of, is_whole, shape_of
from client.dicom.reasons import Reason, UnusableFile

Array = NDArray[np.number]

JPEG = frozenset(
    {
        "1.2.840.10008.1.2.4.51",  # Extended, 8 and 12 bits
        "1.2.840.10008.1.2.4.53",  # Spectral selection; retired
        "1.2.840.10008.1.2.4.55",  # Full progression; retired
    }
)
JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
JPEG_2000 = frozenset({f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)})
#: What is decoded here.
BY_IMAGECODECS = JPEG | JPEG_LOSSLESS | JPEG_LS
#: Every value comes back as it was.
_EXACT = JPEG_LOSSLESS | {"1.2.840.10008.1.2.4.80"}
_LOSSY = JPEG | {"1.2.840.10008.1.2.4.50"}
_RLE = "1.2.840.10008.1.2.5"
#: A frame of more bytes than this has to come from a codestream that is not all too small.
_SMALL_BYTES = 1 << 26
_MOST_UNFOLDED = 1000
#: OpenJPEG works on 32 bits a sample; a frame takes no more than this.
_JPEG_2000_BYTES = 1 << 30
#: PS3.5 G.3.1: two bytes stand for at most 128.
_MOST_UNFOLDED_RLE = 64


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a header says of one frame's pixels (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int  # 1 or 3
    photometric: str
    allocated: int  # bits
    stored: int  # bits
    high: int  # number of the highest stored bit
    signed: bool


def check_frame(frame: bytes, syntax: str, form: Format) -> None:
    """Raise UnusableFile where a codestream is cut off or is not what the header says.

    Memory is taken only after this, and no more than the header's size asks for.
    """
    _check_unfolding(len(frame), syntax, form)
    found = shape_of(frame)
    if found is not None:
        if found[:2] != (form.rows, form.columns):
            wanted = form.rows, form.columns
            raise UnusableFile(Reason.DECODE_ERROR, f"frame is {found[:2]}, header says {wanted}")
        if found[2] != form.samples:
            detail = f"frame has {found[2]} components, header says {form.samples}"
            raise UnusableFile(Reason.DECODE_ERROR, detail)
        if not is_whole(frame):
            # Decoders fill up the rest in silence.
            raise UnusableFile(Reason.TRUNCATED_PIXELS, "the codestream has no end")
    elif syntax in BY_IMAGECODECS:
        raise UnusableFile(Reason.DECODE_ERROR, "no JPEG codestream")
    if syntax in _LOSSY and form.samples == 3:
        said = colour_of(frame)
        if said is Colour.YCBCR and form.photometric == "RGB":
            # Either may be wrong, and which one shows in the colours alone.
            raise UnusableFile(Reason.BAD_VR, "the header says RGB, the codestream YCbCr")


def _check_unfolding(held: int, syntax: str, form: Format) -> None:
    """Refuse a few bytes that claim to be a huge frame."""
    size = form.rows * form.columns * form.samples * form.allocated // 8
    if syntax == _RLE and size > held * _MOST_UNFOLDED_RLE:
        raise UnusableFile(Reason.TRUNCATED_PIXELS, f"{held} bytes of RLE for {size}")
    samples = form.rows * form.columns * form.samples
    if syntax in JPEG_2000 and samples * 4 > _JPEG_2000_BYTES:
        raise UnusableFile(Reason.TOO_LARGE, f"{samples} samples in JPEG 2000")
    if size > _SMALL_BYTES and size > held * _MOST_UNFOLDED:
        raise UnusableFile(Reason.TOO_LARGE, f"{held} bytes claim to be {size}")


def decode_frame(frame: bytes, syntax: str, form: Format) -> Array:
    """Return (rows, columns[, 3]) of a frame that was checked; what is stored, or RGB."""
    import imagecodecs

    # jpeg8 by name: jpeg_decode asks liblj92 where libjpeg-turbo fails, and that reads beyond its
    # memory on a broken codestream.
    if syntax in JPEG_LS:
        found = imagecodecs.jpegls_decode(frame)
    elif form.samples == 1:
        found = imagecodecs.jpeg8_decode(frame)
    elif syntax in JPEG_LOSSLESS or form.photometric == "RGB":
        found = imagecodecs.jpeg8_decode(frame, colorspace="RGB", outcolorspace="RGB")
    else:
        found = imagecodecs.jpeg8_decode(frame, colorspace="YCBCR", outcolorspace="RGB")
    shape = (form.rows, form.columns, *((form.samples,) if form.samples > 1 else ()))
    if found.shape != shape:
        raise UnusableFile(Reason.DECODE_ERROR, f"decoded {found.shape}, header {shape}")
    if found.dtype.itemsize * 8 > form.allocated:
        detail = f"decoded {found.dtype.itemsize * 8} bits, header says {form.allocated}"
        raise UnusableFile(Reason.DECODE_ERROR, detail)
    found = found.astype(f"u{form.allocated // 8}", copy=False)
    if form.signed:
        return in_stored_bits(found.view(f"i{form.allocated // 8}"), form.stored, form.stored - 1)
    if syntax in _EXACT:  # overlays above the stored bits are compressed with them
        return in_stored_bits(found, form.stored, form.stored - 1)
    return np.asarray(found)  # a lossy value may end above the highest one, and is no overlay


def in_stored_bits(values: NDArray[np.generic], stored: int, high: int) -> Array:
    """Return the values that stand in so many bits below and with the high bit (PS3.5 8.1.1).

    What stands above or below is no part of the image: old scanners kept overlays there. An
    array of the same type comes back; numbers in two's complement keep their sign.
    """
    allocated = values.dtype.itemsize * 8
    if not 0 < stored <= high + 1 <= allocated:
        raise UnusableFile(Reason.BAD_VR, f"BitsStored {stored}, HighBit {high} of {allocated}")
    top, low = allocated - 1 - high, allocated - stored
    if values.dtype.kind == "u" and top == low:
        return np.asarray(np.bitwise_and(values, (1 << stored) - 1)) if low else np.asarray(values)
    return np.asarray(np.right_shift(np.left_shift(values, top), low))
