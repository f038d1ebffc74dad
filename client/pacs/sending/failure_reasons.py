"""Reasons for which a PACS does not store (PS3.4 table B.2-1, PS3.18 table I.2-2)."""

from __future__ import annotations

#: (mask, value) -> what it means and what to do; the first that fits.
_REASONS = (
    (0xFFFF, 0x0110, "it failed while storing. Ask the PACS team for its log"),
    (0xFFFF, 0x0111, "it holds an object of this UID and does not take another"),
    (0xFFFF, 0x0117, "it does not take the object's UID"),
    (0xFFFF, 0x0122, "it does not store objects of this class. Ask the PACS team to allow it"),
    (0xFFFF, 0x0124, "it does not let us store. Ask the PACS team to allow it to our AE title"),
    (0xFFFF, 0x0211, "it does not know the operation C-STORE"),
    (0xFFFF, 0xC122, "it does not take Explicit VR Little Endian. Ask the PACS team to allow it"),
    (0xFF00, 0xA700, "it has no room. Ask the PACS team to make some, and send again"),
    (0xFF00, 0xA900, "the object does not fit its class, as this PACS reads it"),
    (0xF000, 0xC000, "it cannot understand the object. Ask the PACS team for its log"),
)
#: PS3.4 table B.2-1: stored, with something done to it. What, the read copy shows.
_WARNINGS = frozenset({0xB000, 0xB006, 0xB007})


def is_stored(status: int) -> bool:
    """Return whether a status says that the object was stored."""
    return status == 0 or status in _WARNINGS


def why_refused(status: int | None) -> str:
    """Return a status in words; None where the PACS gave none."""
    if status is None:
        return "The PACS did not store it and gave no reason. Ask the PACS team for its log."
    for mask, value, meaning in _REASONS:
        if status & mask == value:
            return f"The PACS did not store it (0x{status:04X}): {meaning}."
    return f"The PACS did not store it (0x{status:04X}). Ask the PACS team what that means there."
