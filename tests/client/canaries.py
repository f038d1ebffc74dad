"""A DICOM file with something identifying in every place that can hold it.

Written byte by byte, so that an element can have any type and any value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

#: What is searched in the bytes that come out; each is planted as often as it fits.
TEXT, UID, DAY, CLOCK = b"CANARY", b"1.2.3.47110815", b"19470817", b"114713"
MARKS = (TEXT, TEXT.lower(), UID, DAY, CLOCK)
#: Without these, and right values in them, there is no image to release.
STRUCTURE = frozenset(
    {
        0x00080005,
        0x00080016,
        0x00280002,
        0x00280004,
        0x00280006,
        0x00280008,
        0x00280010,
        0x00280011,
        0x00280100,
        0x00280101,
        0x00280102,
        0x00280103,
        0x00280301,
        0x00280302,
        0x7FE00010,
        0x7FE00008,
        0x7FE00009,
        0x00283000,
    }
)
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_BYTES = frozenset({"US", "SS", "UL", "SL", "AT", "FL", "FD", "SV", "UV"})
CT = b"1.2.840.10008.5.1.4.1.1.2\0"


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Return an element in explicit little endian."""
    value += (b"\0" if vr in {"UI", "OB", "UN"} else b" ") * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in _LONG:
        return head + struct.pack("<HL", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def item(*elements: bytes) -> bytes:
    """Return an item of a sequence."""
    content = b"".join(elements)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


@dataclass
class Planted:
    """How many of each kind stand in a file."""

    count: dict[str, int] = field(default_factory=dict)

    def add(self, vr: str) -> None:
        """Count one."""
        self.count[vr] = self.count.get(vr, 0) + 1


def value_of(vr: str, number: int) -> bytes:
    """Return something identifying of a type."""
    fixed = {"DA": DAY, "TM": CLOCK, "DT": DAY + CLOCK, "UI": UID + b".%d" % number, "AS": b"CANA"}
    if vr in _BYTES:
        return TEXT + b"  "  # eight bytes are whole numbers of any width
    return fixed.get(vr, TEXT + b"%d" % number)


def dictionary() -> Iterator[tuple[int, str]]:
    """Yield every attribute that PS3.6 has or had, and its type."""
    for tag, (representation, *_) in sorted(DicomDictionary.items()):
        vr = representation.split(" or ")[-1]
        if tag >> 16 > 0x0004 and vr != "NONE" and tag & 0xFFFF and tag < 0xFFFC0000:
            yield tag, vr


def planted(*, depth: int = 1) -> tuple[dict[int, bytes], Planted]:
    """Return an element for every attribute that is not the image's own structure."""
    found: dict[int, bytes] = {}
    counts = Planted()
    for number, (tag, vr) in enumerate(dictionary()):
        if tag in STRUCTURE:
            continue
        if vr == "SQ":
            if depth:
                found[tag] = element(tag, vr, b"".join(_items(number)))
                counts.add(vr)
            continue
        found[tag] = element(tag, vr, value_of(vr, number))
        counts.add(vr)
    for tag, vr in _repeating():
        found[tag] = element(tag, vr, value_of(vr, tag))
        counts.add(vr)
    for tag, vr, value in (
        (0x00090010, "LO", b"CANARY CREATOR"),
        (0x00091001, "LO", b"CANARY"),
        (0x00091002, "UN", b"CANARY"),
        (0x7FE10010, "LO", b"CANARY"),
        (0x7FE11001, "OB", b"CANARY"),
        (0x00110011, "PN", b"CANARY^PRIVATE"),
        (0x00080009, "LO", b"CANARY of an attribute that is not in the standard"),
    ):
        found[tag] = element(tag, vr, value)
        counts.add("private")
    return found, counts


def _items(number: int) -> Iterator[bytes]:
    """Yield items with text, names, identifiers and codes, and the same one level down."""
    inner = item(element(0x00100010, "PN", b"CANARY^DEEP"), element(0x00091001, "LO", b"CANARY"))
    yield item(
        element(0x00080100, "SH", b"CANARY"),
        element(0x00080102, "SH", b"SCT"),
        element(0x00080104, "LO", b"CANARY %d" % number),
        element(0x00081140, "SQ", inner),
        element(0x00081155, "UI", UID + b".%d" % number),
        element(0x00100020, "LO", b"CANARY"),
    )
    yield item(
        element(0x00080100, "SH", b"12738006"),
        element(0x00080102, "SH", b"SCT"),
        element(0x00080104, "LO", b"Brain of CANARY"),
        element(0x00280030, "DS", b"CANARY\\1"),
        element(0x00185100, "CS", b"CANARY"),
    )


def _repeating() -> Iterator[tuple[int, str]]:
    """Yield the attributes of curves and overlays (50xx, 60xx), in their first and last group."""
    for mask, (representation, *_) in RepeatersDictionary.items():
        for group in ("00", "1E"):
            if not mask.startswith(("50xx", "60xx")):
                continue
            vr = representation.split(" or ")[-1]
            if vr not in {"NONE", "SQ"}:
                yield int(mask.replace("xx", group), 16), vr


def structure(pixels: bytes, sop_class: bytes = CT) -> dict[int, bytes]:
    """Return what makes an image of 4 x 4 pixels of 12 bits in 16."""

    def number(tag: int, value: int) -> bytes:
        return element(tag, "US", struct.pack("<H", value))

    return {
        0x00080005: element(0x00080005, "CS", b"ISO_IR 192"),
        0x00080016: element(0x00080016, "UI", sop_class),
        0x00280002: number(0x00280002, 1),
        0x00280004: element(0x00280004, "CS", b"MONOCHROME2"),
        0x00280010: number(0x00280010, 4),
        0x00280011: number(0x00280011, 4),
        0x00280100: number(0x00280100, 16),
        0x00280101: number(0x00280101, 12),
        0x00280102: number(0x00280102, 11),
        0x00280103: number(0x00280103, 0),
        0x00280301: element(0x00280301, "CS", b"NO"),
        0x7FE00010: element(0x7FE00010, "OW", pixels),
    }


def file_of(elements: dict[int, bytes], syntax: bytes = b"1.2.840.10008.1.2.1\0") -> bytes:
    """Return a file with canaries in its preamble, its meta information and behind its end."""
    meta = b"".join(
        (
            element(0x00020001, "OB", b"\0\1"),
            element(0x00020002, "UI", CT),
            element(0x00020003, "UI", UID),
            element(0x00020010, "UI", syntax),
            element(0x00020012, "UI", UID),
            element(0x00020013, "SH", b"CANARY"),
            element(0x00020016, "AE", b"CANARY"),
            element(0x00020017, "AE", b"CANARY"),
            element(0x00020018, "AE", b"CANARY"),
            element(0x00020100, "UI", UID),
            element(0x00020102, "OB", b"CANARY"),
        )
    )
    length = element(0x00020000, "UL", struct.pack("<L", len(meta)))
    dataset = b"".join(content for _, content in sorted(elements.items()))
    padding = element(0xFFFCFFFC, "OB", b"CANARY in the padding")
    return b"CANARY".ljust(128, b"c") + b"DICM" + length + meta + dataset + padding
