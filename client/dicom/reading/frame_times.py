"""What each frame of one object says of its time, echo or weighting.

    enhanced    functional groups: TemporalPositionIndex, NominalCardiacTriggerDelayTime (where it
                is not said TemporalPositionTimeOffset), FrameAcquisitionNumber, EffectiveEchoTime,
                DiffusionBValue, FrameAcquisitionDateTime, FrameType (PS3.3 C.7.6.16.2, C.8.13.5)
    cine        FrameTime or FrameTimeVector, where frames follow each other in time (C.7.6.5)

A frame's group counts before the one that all share. What is not said is None, or empty.

Public: FrameFacts, facts_of_frames, facts_from, kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.dicom.reading.groups import group_item, text_of

#: By the field of FrameFacts: functional group and attribute.
_NUMBERS = {
    "temporal_position": ("FrameContentSequence", "TemporalPositionIndex"),
    "trigger_time": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "acquisition": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "echo_time": ("MREchoSequence", "EffectiveEchoTime"),
    "b_value": ("MRDiffusionSequence", "DiffusionBValue"),
}
_OFFSET = ("TemporalPositionSequence", "TemporalPositionTimeOffset")
_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence")
#: FrameIncrementPointer (0028,0009) at these: the next frame is the next in time.
_IN_TIME = frozenset({0x00181063, 0x00181065})


@dataclass(frozen=True, kw_only=True)
class FrameFacts:
    """What one frame says."""

    temporal_position: float | None = None
    trigger_time: float | None = None  # of one unit within an object
    acquisition: float | None = None
    echo_time: float | None = None  # ms
    b_value: float | None = None  # s/mm2
    made: str = ""  # date and time of acquisition
    image_type: str = ""  # FrameType, values joined by backslashes


def facts_of_frames(dataset: Dataset, frames: int) -> tuple[FrameFacts, ...]:
    """Return what each frame says; nothing where the object has one, or none says anything."""
    if frames < 2:
        return ()
    if "SharedFunctionalGroupsSequence" not in dataset:
        return tuple(FrameFacts(trigger_time=time) for time in _cine(dataset, frames))
    found = _of_groups(dataset, frames)
    return found if any(one != FrameFacts() for one in found) else ()


def facts_from(values: Iterable[Sequence[float | str | None]]) -> tuple[FrameFacts, ...]:
    """Return what an index kept of `astuple` of each."""
    names = FrameFacts.__dataclass_fields__
    return tuple(FrameFacts(**dict(zip(names, one, strict=True))) for one in values)  # type: ignore[arg-type]  # in the order of the fields


def kept(facts: Sequence[FrameFacts]) -> list[tuple[object, ...]]:
    """Return what an index keeps of each."""
    return [astuple(one) for one in facts]


def _of_groups(dataset: Dataset, frames: int) -> tuple[FrameFacts, ...]:
    # Offsets and delays are no one scale: the delays count only where all frames say theirs.
    delays = [_number(dataset, n, _NUMBERS["trigger_time"]) for n in range(frames)]
    offsets = [_number(dataset, n, _OFFSET) for n in range(frames)]
    times = offsets if None in delays else delays
    return tuple(
        FrameFacts(
            **{
                field: _number(dataset, frame, place)
                for field, place in _NUMBERS.items()
                if field != "trigger_time"
            },
            trigger_time=times[frame],
            made=_text(dataset, frame, "FrameContentSequence", "FrameAcquisitionDateTime"),
            image_type=next(
                filter(None, (_text(dataset, frame, g, "FrameType") for g in _TYPES)), ""
            ),
        )
        for frame in range(frames)
    )


def _cine(dataset: Dataset, frames: int) -> list[float]:
    """Return each frame's time since the first in ms; nothing where it is not said."""
    pointer = dataset.get("FrameIncrementPointer")
    pointers = pointer if isinstance(pointer, MultiValue) else [pointer]
    if pointer is not None and not {int(one) for one in pointers} <= _IN_TIME:
        return []
    steps = _values(dataset.get("FrameTimeVector"))
    if len(steps) != frames:
        (step, *more) = _values(dataset.get("FrameTime")) or [0.0]
        steps = [] if more or step <= 0 else [0.0, *[step] * (frames - 1)]
    later = steps[1:]
    return list(itertools.accumulate([0.0, *later])) if later and min(later) > 0 else []


def _values(value: object) -> list[float]:
    given: Iterable[object] = value if isinstance(value, MultiValue) else [value]
    try:
        found = [float(str(one)) for one in given]
    except (TypeError, ValueError):
        return []
    return found if all(map(math.isfinite, found)) else []


def _number(dataset: Dataset, frame: int, place: tuple[str, str]) -> float | None:
    item = group_item(dataset, frame, place[0])
    found = [] if item is None else _values(item.get(place[1]))
    return found[0] if len(found) == 1 else None


def _text(dataset: Dataset, frame: int, group: str, name: str) -> str:
    item = group_item(dataset, frame, group)
    return "" if item is None else text_of(item, name)
