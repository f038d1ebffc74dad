"""What a PET image's header says of tracer, patient and times, from which SUV is computed.

Times are seconds since 1970 as the scanner's clock shows them, with no time zone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.dicom.reading.groups import text_of

_PET = "PT"
#: GE's private time of the scan (0009,xx0D), by its creator.
_GE_SCAN = (0x0009, "GEMS_PETD_01", 0x0D)


@dataclass(frozen=True, kw_only=True)
class Tracer:
    """Dose, patient and times of one PET image; None and empty where it is not said."""

    weight: float | None = None  # kg
    dose: float | None = None  # Bq, as injected
    half_life: float | None = None  # s
    tracers: int = 0  # items of RadiopharmaceuticalInformationSequence
    corrected: str = ""  # CorrectedImage, values joined by backslashes
    decay: str = ""  # DecayCorrection: START, ADMIN, NONE
    injected: float | None = None  # RadiopharmaceuticalStartDateTime
    injected_at: float | None = None  # RadiopharmaceuticalStartTime, seconds of the day
    series: float | None = None  # SeriesDate and Time
    acquired: float | None = None  # AcquisitionDate and Time
    scanned: float | None = None  # GE's own
    reference: float | None = None  # FrameReferenceTime, ms
    duration: float | None = None  # ActualFrameDuration, ms


def tracer_of(dataset: Dataset) -> Tracer | None:
    """Return what a PET's header says; None for another image."""
    if text_of(dataset, "Modality") != _PET:
        return None
    listed = dataset.get("RadiopharmaceuticalInformationSequence")
    items = listed if isinstance(listed, Sequence) else ()
    item = items[0] if items else Dataset()
    zone = _zone(_text(dataset, "TimezoneOffsetFromUTC"))
    return Tracer(
        weight=_number(dataset, "PatientWeight"),
        dose=_number(item, "RadionuclideTotalDose"),
        half_life=_number(item, "RadionuclideHalfLife"),
        tracers=len(items),
        corrected=_text(dataset, "CorrectedImage").upper(),
        decay=_text(dataset, "DecayCorrection").upper(),
        injected=_moment(_text(item, "RadiopharmaceuticalStartDateTime"), zone),
        injected_at=_of_day(_text(item, "RadiopharmaceuticalStartTime")),
        series=_dated(dataset, "Series"),
        acquired=_dated(dataset, "Acquisition"),
        scanned=_moment(_private(dataset), zone),
        reference=_number(dataset, "FrameReferenceTime"),
        duration=_number(dataset, "ActualFrameDuration"),
    )


def _told(read: Callable[[], str]) -> str:
    """Return a text, or nothing where pydicom cannot convert what the header holds."""
    try:
        return read()
    except Exception:  # noqa: BLE001 - each type of value raises its own kind
        return ""


def _text(dataset: Dataset, name: str) -> str:
    return _told(lambda: text_of(dataset, name))


def _number(dataset: Dataset, name: str) -> float | None:
    try:
        found = float(_text(dataset, name))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _private(dataset: Dataset) -> str:
    group, creator, element = _GE_SCAN
    try:
        value = dataset.private_block(group, creator)[element].value
    except Exception:  # noqa: BLE001 - absent, or as in `_told`
        return ""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0")


def _dated(dataset: Dataset, name: str) -> float | None:
    """Return the date and time of the series, or of the acquisition."""
    date, time = _text(dataset, f"{name}Date"), _of_day(_text(dataset, f"{name}Time"))
    day = _day(date.replace(".", ""))
    return None if day is None or time is None else day + time


def _day(text: str) -> float | None:
    if len(text) != 8 or not text.isascii() or not text.isdigit():
        return None
    try:
        return datetime(int(text[:4]), int(text[4:6]), int(text[6:]), tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _of_day(text: str) -> float | None:
    """Return the seconds of a day that a time (TM) says: HHMMSS.FFFFFF, or its first parts."""
    whole, _, fraction = text.replace(":", "").partition(".")
    if len(whole) not in {2, 4, 6} or not (whole + fraction).isascii():
        return None
    if not whole.isdigit() or (fraction and not fraction.isdigit()):
        return None
    hours, minutes, seconds = (int(whole[place : place + 2] or 0) for place in (0, 2, 4))
    if hours > 23 or minutes > 59 or seconds > 60:
        return None
    return hours * 3600 + minutes * 60 + seconds + float(f"0.{fraction or 0}")


def _moment(text: str, zone: float | None) -> float | None:
    """Return what a date and time (DT) says, by the clock of the header's own time zone.

    One that names a zone is brought to the header's; where the header names none, it is taken as
    the clock showed it.
    """
    sign = next((place for place in (text.find("+"), text.find("-")) if place > 0), len(text))
    day, time = _day(text[:8]), _of_day(text[8:sign])
    if day is None or time is None:
        return None
    own = _zone(text[sign:])
    return day + time + (0 if own is None or zone is None else zone - own)


def _zone(text: str) -> float | None:
    """Return a time zone's seconds from UTC (&ZZXX)."""
    if len(text) != 5 or text[0] not in "+-" or not text[1:].isdigit():
        return None
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return offset.total_seconds() * (-1 if text[0] == "-" else 1)
