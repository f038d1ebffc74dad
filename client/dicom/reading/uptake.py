"""SUV by body weight, computed from becquerel (QIBA's vendor-neutral rule).

    SUVbw = Bq/ml x weight in g / dose in Bq at the time to which the image is corrected
    ADMIN   corrected to the injection: the dose as it was injected
    START   corrected to the start of the scan: the dose, decayed since the injection

The scan started when the series says, unless that is after its first image was acquired: such a
series was made anew, and then it started when GE's private element says, else when the frame
reference time of the first image leads back to (half of its counts lie before that), else when
the first image was acquired.

An injection of which the time of day alone is told was on the day of the scan, or on the day
before where that would be after the scan. That is no guess for tracers that last hours.

Not computed, with what the header lacks named: images without correction of attenuation (ATTN)
and decay (DECY), or of several tracers; counts (CNTS), whatever a maker's private elements say.
Nothing is known of what stayed in the syringe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from client.dicom.reading.read import Header
from client.dicom.reading.tracer import Tracer
from client.dicom.reasons import Reason, UnusableFile

BECQUEREL, GRAMS_PER_ML = "BQML", "GML"
#: Of a run (cohort.images.units): GML by body weight, or computed of Bq/ml.
SUV = "SUVBW"
_DAY = 86_400.0
#: Tracers that last longer may have been injected on any day before.
_LONG_LIVED = 6 * 3600.0
#: After so many half-lives nothing is left to see: a time or the half-life is wrong.
_MOST_HALF_LIVES = 10.0
#: What of a header is believed: weight in kg, dose in Bq, half-life in s.
_BELIEVED = {"weight": (0.2, 700.0), "dose": (1e5, 1e11), "half_life": (10.0, 1e8)}
_NAMES = {
    "weight": "PatientWeight",
    "dose": "RadionuclideTotalDose",
    "half_life": "RadionuclideHalfLife",
}
_UNITS = {"weight": "kg", "dose": "Bq", "half_life": "s"}


def check_tracer(header: Header) -> None:
    """Raise UnusableFile with what a header in Bq/ml lacks for SUVbw."""
    tracer = header.tracer or Tracer()
    lacking = [
        name
        for name, found in (
            ("PatientWeight", tracer.weight),
            ("RadionuclideTotalDose", tracer.dose),
            ("CorrectedImage", tracer.corrected),
            ("DecayCorrection", tracer.decay),
        )
        if not found
    ]
    if tracer.decay == "START":
        lacking += _lacking_times(tracer)
    if lacking:
        raise UnusableFile(Reason.NO_SUV, f"the header lacks {', '.join(lacking)}")
    _check_kind(tracer)
    for name in _BELIEVED if tracer.decay == "START" else ("weight", "dose"):
        low, high = _BELIEVED[name]
        value = getattr(tracer, name)
        if not low <= value <= high:
            held = f"{_NAMES[name]} is {value:g} {_UNITS[name]}"
            raise UnusableFile(Reason.NO_SUV, f"{held}, expected {low:g} to {high:g}")


def _lacking_times(tracer: Tracer) -> list[str]:
    injected = tracer.injected if tracer.injected is not None else tracer.injected_at
    found = {
        "RadionuclideHalfLife": tracer.half_life or None,
        "SeriesDate and SeriesTime": tracer.series,
        "AcquisitionDate and AcquisitionTime": tracer.acquired,
        "RadiopharmaceuticalStartDateTime or RadiopharmaceuticalStartTime": injected,
    }
    return [name for name, value in found.items() if value is None]


def _check_kind(tracer: Tracer) -> None:
    if tracer.tracers != 1:
        raise UnusableFile(
            Reason.NO_SUV, f"the header names {tracer.tracers} radiopharmaceuticals, expected one"
        )
    missing = {"ATTN", "DECY"} - {word.strip() for word in tracer.corrected.split("\\")}
    if missing:
        raise UnusableFile(Reason.NO_SUV, f"CorrectedImage lacks {' and '.join(sorted(missing))}")
    if tracer.decay not in {"START", "ADMIN"}:
        raise UnusableFile(
            Reason.NO_SUV, f"DecayCorrection is {tracer.decay[:16]}, expected START or ADMIN"
        )


def suv_factor(series: Sequence[Header]) -> float:
    """Return by what the values of a series are multiplied to be SUVbw in g/ml.

    UnusableFile where they cannot be.
    """
    if {header.units.upper() for header in series} == {GRAMS_PER_ML}:
        return 1.0
    tracers = []
    for header in series:
        if header.units.upper() != BECQUEREL:
            raise UnusableFile(
                Reason.NO_SUV, f"Units is {header.units or 'not said'} in one of the images"
            )
        check_tracer(header)
        tracers.append(header.tracer or Tracer())
    first = tracers[0]
    for name in ("weight", "dose", "half_life", "decay", "injected", "injected_at"):
        if len({getattr(tracer, name) for tracer in tracers}) > 1:
            raise UnusableFile(Reason.NO_SUV, f"{_NAMES.get(name, name)} differs within the series")
    weight, dose = first.weight or 0.0, first.dose or 0.0
    if first.decay == "START":
        dose *= 2 ** -(_decay_time(tracers) / (first.half_life or math.inf))
    return weight * 1000 / dose


def _decay_time(tracers: Sequence[Tracer]) -> float:
    """Return seconds from the injection to the start of the scan."""
    half_life, start = tracers[0].half_life or math.inf, _scan_start(tracers)
    injected = tracers[0].injected
    if injected is None:
        if half_life > _LONG_LIVED:
            raise UnusableFile(
                Reason.NO_SUV,
                f"RadiopharmaceuticalStartDateTime is not there, and a tracer with a half-life "
                f"of {half_life / 3600:.3g} h may have been injected on another day",
            )
        injected = start - start % _DAY + (tracers[0].injected_at or 0.0)
        injected -= _DAY if injected > start else 0.0
    passed = start - injected
    if passed < 0:
        raise UnusableFile(
            Reason.NO_SUV, f"the injection is {-passed:.0f} s after the start of the scan"
        )
    if passed > _MOST_HALF_LIVES * half_life:
        raise UnusableFile(
            Reason.NO_SUV,
            f"the scan started {passed / half_life:.3g} half-lives after the injection",
        )
    return passed


def _scan_start(tracers: Sequence[Tracer]) -> float:
    """Return when the scan started, to which the images are corrected."""
    first = min(tracers, key=lambda tracer: tracer.acquired or 0.0)
    acquired, series = first.acquired or 0.0, {tracer.series for tracer in tracers}
    if len(series) > 1:
        raise UnusableFile(Reason.NO_SUV, "SeriesDate or SeriesTime differs within the series")
    (named,) = series
    if named is not None and named <= acquired:
        return named
    if first.scanned is not None:
        return first.scanned
    if (first.reference or 0) > 0 and (first.duration or 0) > 0:
        return _led_back(first)
    return acquired


def _led_back(first: Tracer) -> float:
    """Return the start from a frame's reference time, which is where its mean count rate is.

    QIBA: acquired - reference + 1/l x ln(l d / (1 - exp(-l d))), l the decay constant, d the frame.
    """
    rate = math.log(2) / (first.half_life or math.inf)
    decay = rate * (first.duration or 0.0) / 1000
    middle = math.log(decay / -math.expm1(-decay)) / rate
    return (first.acquired or 0.0) - (first.reference or 0.0) / 1000 + middle
