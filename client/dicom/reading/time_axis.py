"""Order of the pictures that a series holds of each place: phases of a heart beat, echoes, passes.

The pictures of one place are put in order by what the headers say, the first of these that every
picture says and that tells those of each place apart:

    temporal_position   TemporalPositionIdentifier   the same values at every place
    trigger_time        TriggerTime                  ranked at each place: heart beats differ
    acquisition         AcquisitionNumber            ranked at each place
    echo                EchoTime                     the same values at every place
    b_value             DiffusionBValue              the same values at every place
    (auto only)         date and time of acquisition, which go on past midnight
    instance            InstanceNumber, where it goes place by place, phase by phase, or anew at
                        each place; numbers in any other order say nothing

Frames of one object are pictures like others: an enhanced object's groups say the same of each,
with NominalCardiacTriggerDelayTime or TemporalPositionTimeOffset for TriggerTime and
EffectiveEchoTime for EchoTime; a cine's frames follow each other by FrameTime (frame_times.py).
Frames of one object that do not say where they lie are of one place.

Nothing is made up: places with different numbers of pictures are MULTI_PHASE_UNEVEN; pictures that
nothing orders, or that vary in two ways (phases of two echoes, magnitude and phase of a beat), are
PHASE_ORDER_UNKNOWN.

Public: each_frame, phases_of, stack_of.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from client.dicom.reading.frame_times import FrameFacts
from client.dicom.reading.phases import Placed, at_one_place
from client.dicom.reading.read import ACQUIRED, Header
from client.dicom.reasons import Reason, UnusableFile

_Value = float | str
_Read = Callable[[Header], _Value | None]
#: Echo times are the same where they round to the same tenth of a millisecond.
_ECHO_DIGITS = 1
_LAST_NUMBER = re.compile(r"[\s_\-.:#]*[0-9]+\s*$")


def _acquired(name: str, header: Header) -> float | None:
    place = ACQUIRED.index(name)
    return header.acquired[place] if header.acquired[place:] else None


def _echo(header: Header) -> float | None:
    value = _acquired("EchoTime", header)
    return None if value is None else round(value, _ECHO_DIGITS)


_EVIDENCE: Mapping[str, _Read] = {
    "temporal_position": lambda header: _acquired("TemporalPositionIdentifier", header),
    "trigger_time": lambda header: _acquired("TriggerTime", header),
    "acquisition": lambda header: _acquired("AcquisitionNumber", header),
    "echo": _echo,
    "b_value": lambda header: _acquired("DiffusionBValue", header),
    "time of acquisition": lambda header: header.made or None,
    "instance": lambda header: header.number or None,
}
#: What names a phase, so that every place has the same ones; others are ranked where they are.
_NAMES_IT = frozenset({"temporal_position", "echo", "b_value"})
#: Of several values none is a later time of another: each has pictures of its own.
_KINDS = ("echo", "b_value")


def phases_of(headers: Sequence[Header], by: str, frames: int | None) -> list[list[Header]]:
    """Return the chosen phases, each with one picture of every place, in the same order of places.

    Each header is of one frame (`each_frame`). `by` is one kind of evidence, or auto; `frames`
    phases are taken evenly by rank, None takes all.
    UnusableFile says why there are none.
    """
    places = _places(headers)
    count = _even(places)
    if count < (frames or 2):
        told = "1 picture" if count == 1 else f"{count} pictures"
        detail = f"every place has {told}, the run takes {frames or 'two or more'}"
        raise UnusableFile(Reason.TOO_FEW_PHASES, detail)
    ordered = _ordered(places, by)
    ranks = range(count) if frames is None else [n * count // frames for n in range(frames)]
    return [[place[rank] for place in ordered] for rank in ranks]


def each_frame(header: Header) -> list[Header]:
    """Return the header of each frame, as if it were an object of its own.

    What a frame does not say itself its object says for it.
    """
    if header.frames == 1:
        return [header]
    found = []
    for frame in range(header.frames):
        facts = header.each[frame] if header.each else FrameFacts()
        own = {
            "TemporalPositionIdentifier": facts.temporal_position,
            "TriggerTime": facts.trigger_time,
            "AcquisitionNumber": facts.acquisition,
            "EchoTime": facts.echo_time,
            "DiffusionBValue": facts.b_value,
        }
        held = dict(zip(ACQUIRED, header.acquired, strict=False))
        said = held | {name: value for name, value in own.items() if value is not None}
        found.append(
            replace(
                header,
                frames=1,
                positions=header.positions[frame : frame + 1],
                orientations=header.orientations[frame : frame + 1],
                acquired=tuple(said.get(name) for name in ACQUIRED),
                made=facts.made or header.made,
                image_type=facts.image_type or header.image_type,
                each=(),
            )
        )
    return found


def _places(headers: Sequence[Header]) -> list[list[Header]]:
    """Return the pictures of each place; frames of one object without a place are of one."""
    if all(header.positions for header in headers):
        return [[header for header, _ in place] for place in at_one_place(_placed(headers))]
    if any(header.positions for header in headers) or len({h.instance for h in headers}) > 1:
        raise UnusableFile(Reason.NO_GEOMETRY)
    return [list(headers)]


def _placed(headers: Sequence[Header]) -> list[Placed]:
    # Whatever files and numbers are called, places come in one order.
    return sorted(((header, 0) for header in headers), key=lambda one: one[0].positions[0])


def _even(places: Sequence[Sequence[Header]]) -> int:
    """Return how many pictures every place has."""
    counts = Counter(map(len, places))
    if len(counts) == 1:
        return next(iter(counts))
    told = ", ".join(
        f"{number} place{'s' * (number != 1)} with {count}"
        for count, number in sorted(counts.items(), reverse=True)
    )
    raise UnusableFile(Reason.MULTI_PHASE_UNEVEN, f"pictures of one place: {told}")


def _ordered(places: Sequence[Sequence[Header]], by: str) -> list[list[Header]]:
    """Return each place's pictures in order of time."""
    asked = _EVIDENCE if by == "auto" else {by: _EVIDENCE[by]}
    faults = []
    for name, read in asked.items():
        values = [[read(header) for header in place] for place in places]
        fault = _fault(name, values)
        if not fault:
            found = [_sorted(place, read) for place in places]
            _check_one_way(found, name, _before(name) if by == "auto" else ())
            return found
        faults.append(f"{name}: {fault}")
    raise UnusableFile(Reason.PHASE_ORDER_UNKNOWN, "; ".join(faults))


def _sorted(place: Sequence[Header], read: _Read) -> list[Header]:
    values = {id(header): read(header) for header in place}
    return sorted(place, key=lambda header: values[id(header)])  # type: ignore[arg-type, return-value]  # all of one type, none of them None: `_fault` looked


def _check_one_way(places: Sequence[Sequence[Header]], name: str, before: Sequence[str]) -> None:
    """Refuse pictures in order of `name` that vary in a second way, too.

    Several pictures of one echo, or of one b-value, are times of each; where times go back in the
    order of another evidence there are several series of times; and magnitude and phase are none.
    """
    for place in places:
        held = {other: [read(header) for header in place] for other, read in _EVIDENCE.items()}
        twice = [k for k in _KINDS if k != name and 1 < len(set(held[k])) < len(place)]
        back = [other for other in before if _goes_back(held[other])]
        types = sorted({header.image_type for header in place})
        if len(types) > 1 and name != "echo":
            told = f"image types {' and '.join(types[:2])}"
        elif twice or back:
            other = (twice + back)[0]
            count = len(set(held[other]))
            told = f"{count} values of {other} in {len(place)} pictures of a place"
        else:
            continue
        detail = f"{name} orders them, and they vary in another way: {told}"
        raise UnusableFile(Reason.PHASE_ORDER_UNKNOWN, detail)


def _before(name: str) -> Sequence[str]:
    """Return the evidence that is asked before another, whose values are times."""
    names = list(_EVIDENCE)
    return [other for other in names[: names.index(name)] if other not in _KINDS]


def _goes_back(values: Sequence[_Value | None]) -> bool:
    """Return whether values vary, are all said, and fall somewhere."""
    known = [value for value in values if isinstance(value, float)]
    return len(known) == len(values) and any(b < a for a, b in itertools.pairwise(known))


def _fault(name: str, values: Sequence[Sequence[_Value | None]]) -> str:
    """Return why these values do not order the pictures of each place; empty where they do."""
    if any(value is None for place in values for value in place):
        return "not said by all"
    if any(len(set(place)) < len(place) for place in values):
        return "the same for several pictures of a place"
    alike = len({frozenset(place) for place in values}) == 1
    if name in _NAMES_IT and not alike:
        return "other values at other places"
    if name == "instance" and not alike and not _is_regular(values):
        return "neither place by place nor phase by phase"
    return ""


def _is_regular(values: Sequence[Sequence[_Value | None]]) -> bool:
    """Return whether numbers go through one place after the other, or one phase after the other."""
    owner = {number: place for place, numbers in enumerate(values) for number in numbers}
    count, places = len(values[0]), len(values)
    if len(owner) < count * places:  # some number stands at two places
        return False
    order = [owner[number] for number in sorted(owner, key=lambda one: (one is None, one))]
    by_place = all(len(set(order[n : n + count])) == 1 for n in range(0, len(order), count))
    by_phase = all(len(set(order[n : n + places])) == places for n in range(0, len(order), places))
    return by_place or by_phase


def stack_of(header: Header, join: str) -> tuple[object, ...]:
    """Return what slices of one stack have in common: their series, or with `slices` its like.

    Several frames in one object that do not say where they lie are a stack of their own.
    Series whose descriptions differ in the number at their end alone are one stack, where study,
    orientation, frame of reference, matrix and pixel spacing are one.
    """
    if header.frames > 1 and not header.positions:
        return (header.study, header.series, header.instance)
    if join == "none" or not header.description:
        return (header.study, header.series)
    turned = tuple(round(c, 2) + 0.0 for c in header.orientations[0]) if header.orientations else ()
    spacing = tuple(round(s, 3) for s in header.spacing or ())
    return (
        header.study,
        joined_name(header.description),
        turned,
        header.frame_of_reference,
        header.shape,
        spacing,
    )


def joined_name(description: str) -> str:
    """Return a series' description without the number at its end."""
    return _LAST_NUMBER.sub("", description).casefold().strip()
