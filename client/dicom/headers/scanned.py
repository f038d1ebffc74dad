"""Headers scanned from a file's first bytes, in the easy case alone.

Easy is: preamble, little endian, elements in the order of their tags, sequences that can be
walked to their end, and values in a plain character set. `UnusualHeader` is raised for everything
else, and pydicom reads the file; so the scanner need not be right about what is strange, only
certain about what is not. PS3.5 chapter 7 has the encoding, PS3.10 7.1 the start of a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from struct import Struct

from client.dicom.headers.checks import PixelElement, Scan
from client.dicom.headers.elements import Scanned, UnusualHeader
from client.dicom.headers.wanted import FOREIGN, OTHER_FORMS, WANTED

#: So much of a file is read at first; more only where its header is longer.
FIRST_BYTES = 8192
_MORE_BYTES = (1 << 17, 1 << 21)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
#: Sequences in sequences beyond this are left to pydicom.
_DEEPEST = 16
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
#: Elements that change what the others mean; pydicom reads a file that has one.
_TELLING = frozenset(
    {0x00041220, 0x00100024, 0x00180012, 0x00186011, 0x00283000, 0x52009229, 0x52009230}
)
_LONG = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SHORT = frozenset(
    {
        b"AE",
        b"AS",
        b"AT",
        b"CS",
        b"DA",
        b"DS",
        b"DT",
        b"FD",
        b"FL",
        b"IS",
        b"LO",
        b"LT",
        b"PN",
        b"SH",
        b"SL",
        b"SS",
        b"ST",
        b"TM",
        b"UI",
        b"UL",
        b"US",
    }
)
#: Elements of group 2 whose value pydicom looks at, and how they have to be written.
_META_FORMS = {0x0000: b"UL", 0x0002: b"UI", 0x0010: b"UI"}
_explicit = Struct("<HH2sH").unpack_from
_implicit = Struct("<HHI").unpack_from
_long = Struct("<I").unpack_from
#: Of the standard syntaxes, those whose data set is not explicit little endian.
_IMPLICIT = b"1.2.840.10008.1.2"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = b"1.2.840.10008.1.2.2"
_STANDARD = b"1.2.840.10008.1.2"


class _MoreError(Exception):
    """The header goes on behind the bytes at hand."""


def scan(path: Path | str, size: int) -> Scan:
    """Return the wanted elements of a file of so many bytes; Odd where pydicom shall read it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        data = os.read(handle, FIRST_BYTES)
        for more in (*_MORE_BYTES, 0):
            try:
                return _scan(data, size)
            except _MoreError:
                if len(data) >= size or not more:
                    raise UnusualHeader from None
                data = os.pread(handle, more, 0)
    finally:
        os.close(handle)
    raise UnusualHeader


def _scan(data: bytes, size: int) -> Scan:
    if data[128:132] != b"DICM":
        raise UnusualHeader
    meta, place = _meta(data)
    syntax = meta.get(0x00020010, b"").rstrip(b" \0")
    if not syntax.startswith(_STANDARD) or syntax in {_DEFLATED, _BIG_ENDIAN}:
        raise UnusualHeader
    implicit = syntax == _IMPLICIT
    if len(data) >= place + 6:
        # Some writers name the other kind of syntax; pydicom believes the bytes.
        looks_explicit = 0x40 < data[place + 4] < 0x5B and 0x40 < data[place + 5] < 0x5B
        if looks_explicit == implicit:
            raise UnusualHeader
    walk = _walk_implicit if implicit else _walk_explicit
    values, pixels = walk(data, place, size)
    return Scan(
        elements=Scanned(values),
        syntax=syntax.decode("ascii"),
        media_class=meta.get(0x00020002, b"").rstrip(b" \0").decode("ascii", "replace"),
        pixels=pixels,
    )


def _meta(data: bytes) -> tuple[Mapping[int, bytes], int]:
    """Return the elements of group 2, and where the data set begins."""
    found: dict[int, bytes] = {}
    place, last = 132, 0
    while True:
        if place + 12 > len(data):
            raise _MoreError
        group, element, form, length = _explicit(data, place)
        if group != 2:
            break
        start = place + 8
        if form in _LONG:
            (length,) = _long(data, start)
            start += 4
        elif form not in _SHORT:
            raise UnusualHeader
        if element < last or length > len(data) or form != _META_FORMS.get(element, form):
            raise UnusualHeader
        last = element
        found[group << 16 | element] = data[start : start + length]
        place = start + length
    stated = found.get(0x00020000, b"")
    if len(stated) != 4 or _long(stated, 0)[0] != place - 144:
        raise UnusualHeader
    return found, place


def _walk_explicit(  # noqa: C901 - one loop, because calls cost as much as the scan
    data: bytes, place: int, size: int
) -> tuple[dict[str, bytes], PixelElement | None]:
    """Return wanted values and pixel element of an explicit data set from `place` on."""
    values: dict[str, bytes] = {}
    held, last = len(data), 0x0007FFFF
    wanted, long, short, unpack = WANTED.get, _LONG, _SHORT, _explicit
    while place + 8 <= held:
        group, element, form, length = unpack(data, place)
        tag = group << 16 | element
        if tag <= last:
            raise UnusualHeader
        last = tag
        place += 8
        if form in long:
            if place + 4 > held:
                raise _MoreError
            (length,) = _long(data, place)
            place += 4
        elif form not in short:
            raise UnusualHeader
        if group >= 0x5200 and (group >= 0x7FE0 or tag in _TELLING):
            return values, _pixels(tag, place, length)
        if length == _UNDEFINED:
            if form != b"SQ" or tag in _TELLING:
                raise UnusualHeader
            place = _after_sequence(data, place, implicit=False)
            continue
        entry = wanted(tag)
        if entry is not None and (entry[1] == form or _also_written(tag, form)):
            values[entry[0]] = data[place : place + length]
        elif tag in _TELLING:
            raise UnusualHeader
        place += length
    return _ended(values, place, held, size)


def _also_written(tag: int, form: bytes) -> bool:
    """Return whether a value in another form is read, or passed over; Odd where neither is sure."""
    if form in OTHER_FORMS.get(tag, ()):
        return True
    if tag in FOREIGN:
        return False
    raise UnusualHeader


def _walk_implicit(
    data: bytes, place: int, size: int
) -> tuple[dict[str, bytes], PixelElement | None]:
    """Do the same for an implicit data set."""
    values: dict[str, bytes] = {}
    held, last = len(data), 0x0007FFFF
    while place + 8 <= held:
        group, element, length = _implicit(data, place)
        tag = group << 16 | element
        if tag <= last:
            raise UnusualHeader
        last = tag
        place += 8
        if group >= 0x5200 and (group >= 0x7FE0 or tag in _TELLING):
            return values, _pixels(tag, place, length)
        if length == _UNDEFINED:
            if tag in _TELLING or not _is_sequence(tag, data, place):
                raise UnusualHeader
            place = _after_sequence(data, place, implicit=True)
            continue
        entry = WANTED.get(tag)
        if entry is not None:
            values[entry[0]] = data[place : place + length]
        elif tag in _TELLING:
            raise UnusualHeader
        place += length
    return _ended(values, place, held, size)


def _pixels(tag: int, start: int, length: int) -> PixelElement:
    if tag not in _PIXELS:
        raise UnusualHeader
    return PixelElement(tag=tag, start=start, length=-1 if length == _UNDEFINED else length)


def _ended(
    values: dict[str, bytes], place: int, held: int, size: int
) -> tuple[dict[str, bytes], None]:
    """Return what there is when the file ends exactly here; otherwise there is more, or less."""
    if place != size or held != size:
        raise _MoreError
    return values, None


def _is_sequence(tag: int, data: bytes, place: int) -> bool:
    """Return whether an implicit element of undefined length is a sequence, as pydicom decides."""
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return data[place : place + 4] == b"\xfe\xff\x00\xe0"


def _after_sequence(data: bytes, place: int, *, implicit: bool, depth: int = 0) -> int:
    """Return where a sequence of undefined length ends; its items are walked, not trusted."""
    if depth > _DEEPEST:
        raise UnusualHeader
    while True:
        if place + 8 > len(data):
            raise _MoreError
        group, element, length = _implicit(data, place)
        tag = group << 16 | element
        place += 8
        if tag == _SEQUENCE_END:
            if length:
                raise UnusualHeader
            return place
        if tag != _ITEM:
            raise UnusualHeader
        end = None if length == _UNDEFINED else place + length
        place = _after_item(data, place, end, implicit=implicit, depth=depth)


def _after_item(data: bytes, place: int, end: int | None, *, implicit: bool, depth: int) -> int:
    """Return where an item ends: at its delimiter, or exactly where its length said."""
    while place != end:
        if place + 12 > len(data):
            raise _MoreError
        group, element, length = _implicit(data, place)
        if group == 0xFFFE:
            if element != _ITEM_END & 0xFFFF or end is not None or length:
                raise UnusualHeader
            return place + 8
        if end is not None and place > end:
            raise UnusualHeader
        tag = group << 16 | element
        place, length, sequence = _inner(data, place, tag, implicit=implicit)
        if length != _UNDEFINED:
            place += length
        elif sequence:
            place = _after_sequence(data, place, implicit=implicit, depth=depth + 1)
        else:
            raise UnusualHeader
    return place


def _inner(data: bytes, place: int, tag: int, *, implicit: bool) -> tuple[int, int, bool]:
    """Return where an element's value begins, its length, and whether it is a sequence."""
    if implicit:
        (length,) = _long(data, place + 4)
        return place + 8, length, length == _UNDEFINED and _is_sequence(tag, data, place + 8)
    form = data[place + 4 : place + 6]
    if form in _SHORT:
        return place + 8, int.from_bytes(data[place + 6 : place + 8], "little"), False
    if form not in _LONG:
        raise UnusualHeader
    (length,) = _long(data, place + 8)
    return place + 12, length, form == b"SQ"
