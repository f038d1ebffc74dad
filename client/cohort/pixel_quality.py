"""Images with suspect pixels: saturated, the same under two patients, with burned-in text.

Only objects whose pixels are in the store are looked at; nothing is decoded for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from client.cohort.decode import lines_of
from client.cohort.image_quality import Suspect
from client.dicom.codec.compressed import Array
from client.dicom.contained import contained
from client.dicom.headers.instance import Instance
from client.dicom.pixels.burned_in_text import ReadText, pieces_of_text
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reading.padding import Padding
from client.dicom.reasons import Reason, UnusableFile
from client.series.selection import is_secondary_capture
from client.site.cache import pixels_key

#: Part of the pixels at the highest value that the image can hold, from which it is saturated.
_SATURATED = 0.5
#: Equal images of fewer pixels than this prove nothing.
_FEWEST_PIXELS = 64
#: What text is looked for in.
_TEXT_MODALITIES = frozenset({"US", "IVUS"})


@dataclass(frozen=True, kw_only=True)
class PixelSuspects:
    """What was found in pixels, by rule."""

    saturated: tuple[Suspect, ...]
    same_pixels: tuple[Suspect, ...]
    text: tuple[Suspect, ...]
    looked_at: int = 0  # images; the others are not decoded yet
    text_read: bool = False  # pictures among them were read for text


def look_at_pixels(
    rows: Iterable[Instance], store: PixelStore, read_text: ReadText | None = None
) -> PixelSuspects:
    """Look at every image that was decoded; memory stays that of one image."""
    saturated: list[Suspect] = []
    text: list[Suspect] = []
    looked_at = 0
    copies: dict[tuple[int, tuple[int, ...]], list[Instance]] = defaultdict(list)
    for row in rows:
        try:
            with contained():
                stored = _stored(row, store)
                share = 0.0 if stored is None else _share_at_top(stored[0], row, stored[2])
        except UnusableFile:  # said where it is prepared
            continue
        if stored is None:
            continue
        looked_at += 1
        values, checksum, _ = stored
        if share > _SATURATED:
            detail = f"{share:.0%} of the pixels at {int(values.max())}"
            saturated.append(Suspect(row=row, reason=Reason.SATURATED, detail=detail))
        if values.size >= _FEWEST_PIXELS and values.min() != values.max():
            copies[checksum, values.shape].append(row)
        if read_text is not None and _may_hold_text(row):
            text += _texts(row, values, read_text)
    return PixelSuspects(
        saturated=tuple(saturated),
        same_pixels=tuple(_under_two(copies.values())),
        text=tuple(text),
        looked_at=looked_at,
        text_read=read_text is not None,
    )


_Stored: TypeAlias = tuple[Array, int, tuple[Padding | None, ...]]


def _stored(row: Instance, store: PixelStore) -> _Stored | None:
    try:
        entry = store.find(pixels_key(row.path, row.patient))
    except OSError:  # gone since it was indexed
        return None
    if entry is None or entry.stored is None:
        return None
    return entry.stored, entry.checksum, lines_of(entry.facts)[2]


def _share_at_top(values: Array, row: Instance, padding: Sequence[Padding | None]) -> float:
    """Return the part of pixels at the highest value, where that is the top of their bits.

    Padding is no part of the image: in MONOCHROME1 it stands at the top.
    """
    if values.dtype.kind == "f":
        return 0.0
    if any(padding):
        real = [
            frame if one is None else frame[~one.where(frame)]
            for frame, one in zip(values, padding, strict=True)
        ]
        values = np.concatenate([frame.reshape(-1) for frame in real])
        if not values.size:
            return 0.0
    top = int(values.max())
    bits = row.bits_stored - (1 if values.dtype.kind == "i" else 0)
    return float((values == top).mean()) if 0 < bits < 32 and top == 2**bits - 1 else 0.0


def _under_two(groups: Iterable[Sequence[Instance]]) -> Iterator[Suspect]:
    for group in groups:
        patients = sorted({row.patient for row in group if row.patient})
        # One image under one UID is `two_patient_ids`; here the UIDs differ.
        if len(patients) > 1 and len({row.instance for row in group}) > 1:
            detail = f"equal pixels under {', '.join(patients)}"
            for row in group:
                yield Suspect(row=row, reason=Reason.PATIENT_TWO_IDS, detail=detail)


def _may_hold_text(row: Instance) -> bool:
    return row.modality in _TEXT_MODALITIES or is_secondary_capture(row)


def _texts(row: Instance, values: Array, read_text: ReadText) -> Iterator[Suspect]:
    """Yield a suspect for the first frame where letters are read; the text itself is not kept."""
    if pieces := pieces_of_text(values[0], read_text):
        detail = f"{pieces} piece{'s' * (pieces != 1)} of text read in the picture"
        yield Suspect(row=row, reason=Reason.BURNED_IN_SUSPECT, detail=detail)
