"""Sizes that a compressed frame states, read before a decoder takes memory for it."""

from __future__ import annotations

from enum import Enum

#: JPEG's frame headers (ITU-T T.81 table B.1) and JPEG-LS's (T.87 annex C).
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
#: Markers that stand alone, without a length.
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"


class Colour(Enum):
    """What the markers of a JPEG codestream say of its three components."""

    YCBCR = "YCbCr"
    RGB = "RGB"
    UNSAID = "nothing"


def shape_of(frame: bytes) -> tuple[int, int, int] | None:
    """Return (rows, columns, components) of JPEG, JPEG-LS or JPEG 2000; None for RLE."""
    if frame[:2] == b"\xff\xd8":
        return _jpeg_shape(frame)
    # Some writers leave the JP2 file's boxes around the codestream.
    start = frame[:4096].find(_START_OF_CODESTREAM) if frame[4:8] == b"jP  " else 0
    if start < 0 or frame[start : start + 4] != _START_OF_CODESTREAM:
        return None
    return _jpeg2000_shape(frame[start:])


def colour_of(frame: bytes) -> Colour:
    """Return the colours that JFIF's or Adobe's marker tells of (ITU-T T.871, T.872 6.5.3)."""
    place = 2
    while place + 4 < len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        length = int.from_bytes(frame[place + 2 : place + 4], "big")
        value = frame[place + 4 : place + 2 + length]
        if marker == 0xE0 and value[:5] == b"JFIF\0":
            return Colour.YCBCR
        if marker == 0xEE and value[:5] == b"Adobe" and len(value) >= 12:
            return Colour.YCBCR if value[11] == 1 else Colour.RGB
        if not 0xE0 <= marker < 0xF0 and marker != 0xFE:  # neither application nor comment
            break
        place += 2 + length
    return Colour.UNSAID


def is_whole(frame: bytes) -> bool:
    """Return whether the end marker is there; both families end with FF D9.

    Writers pad with zeros, and some leave a few other bytes behind the end.
    """
    tail = frame[-16:]
    return b"\xff\xd9" in (tail if any(tail) else frame.rstrip(b"\0")[-16:])


def _jpeg_shape(frame: bytes) -> tuple[int, int, int] | None:
    place = 2
    while place + 9 < len(frame):
        if frame[place] != 0xFF:
            return None
        marker = frame[place + 1]
        if marker == 0xFF or marker in _ALONE:  # a fill byte, or no segment follows
            place += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAME_HEADERS:
            rows = int.from_bytes(frame[place + 5 : place + 7], "big")
            columns = int.from_bytes(frame[place + 7 : place + 9], "big")
            return rows, columns, frame[place + 9]
        place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def _jpeg2000_shape(stream: bytes) -> tuple[int, int, int] | None:
    """Read the SIZ segment (ITU-T T.800 A.5.1)."""
    if len(stream) < 42:
        return None
    right, bottom, left, top = (
        int.from_bytes(stream[place : place + 4], "big") for place in (8, 12, 16, 20)
    )
    return bottom - top, right - left, int.from_bytes(stream[40:42], "big")
