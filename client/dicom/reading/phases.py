"""Check that the slices of a 2-D run show each place once, as those of a volume must.

Echoes, phases, b-values or frames of a dynamic scan under one SeriesInstanceUID are different
pictures of one place, and no several items of one label. Volumes are refused for them where
slices are stacked (volume.py); here it is said of slices that are each an item.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from client.dicom.reading.read import ACQUIRED, COUNTED, Header
from client.dicom.reasons import Reason, UnusableFile

#: Modalities whose pictures are slices, and whose series are different pictures of one place.
SLICED = frozenset({"CT", "MR", "PT", "NM"})
#: Slices nearer to each other than this part of the usual distance lie at one place.
_SAME_DISTANCE = 0.1
#: Distances in mm that are rounding.
_ROUNDING = 1e-3
#: What is one for all slices of one stack, and tells pictures apart that do not say their place.
_OF_A_STACK = (
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "DiffusionBValue",
)

#: Times that differ by less than this part are the same.
_SAME_TIME, _TIMES = 0.02, frozenset({"EchoTime", "InversionTime"})
#: What is one for all slices of a picture of one kind, wherever they lie.
_OF_A_PICTURE = ("EchoTime", "EchoNumbers", "DiffusionBValue")

#: A slice: its object, and which frame of it.
Placed = tuple[Header, int]


def check_phases(images: Sequence[Header]) -> None:
    """Raise MULTI_PHASE or DUP_POSITION where images of one series show one place several times.

    Only slices are looked at: views of a mammogram or stills of ultrasound have no place.
    """
    sliced = [image for image in images if image.modality in SLICED]
    if not sliced:
        return
    _check_alike(images)
    placed = [(image, frame) for image in sliced for frame in range(len(image.positions))]
    groups = [[image for image, _ in group] for group in at_one_place(placed)]
    on_another = sum(len(group) - 1 for group in groups)
    if on_another:
        whole = len({len(group) for group in groups}) == 1
        most = max(groups, key=len)
        raise UnusableFile(
            Reason.MULTI_PHASE if whole else Reason.DUP_POSITION,
            f"{on_another} of {len(placed)} slices lie on another{_differing(most, ACQUIRED)}",
        )
    unplaced = [image for image in sliced if not image.positions]
    _check_unplaced([image for image in unplaced if image.frames == 1])
    for image in unplaced:
        _check_frames(image)
    check_one_kind(sliced)


def check_one_kind(images: Sequence[Header]) -> None:
    """Refuse slices of several echoes or b-values, also where each lies at a place of its own."""
    if told := _differing(images, _OF_A_PICTURE):
        raise UnusableFile(Reason.MIXED_SERIES, f"its slices are of several kinds{told}")


def _check_alike(images: Sequence[Header]) -> None:
    """Refuse what no volume could be stacked of, whichever slices a series has (volume.py)."""
    for name, found in (
        ("StudyInstanceUID", {image.study for image in images}),
        ("Modality", {image.modality for image in images}),
    ):
        if len(found - {""}) > 1:
            raise UnusableFile(Reason.MIXED_SERIES, f"{name} differs")
    if len({image.rescaled for image in images}) > 1:
        raise UnusableFile(Reason.MISSING_HEADER, "some slices have a rescale, others have none")


def _check_frames(image: Header) -> None:
    """Refuse frames of several energies, phases or times in one nuclear image."""
    held = dict(zip(ACQUIRED, image.acquired, strict=False))
    kinds = [f"{name} is {held[name]:g}" for name in COUNTED if (held.get(name) or 0) > 1]
    if image.frames > 1 and kinds:
        raise UnusableFile(Reason.MULTI_PHASE, f"{image.frames} frames, {' and '.join(kinds)}")


def at_one_place(slices: Sequence[Placed]) -> Iterator[list[Placed]]:
    """Yield the slices of each place: of one orientation, level and corner."""
    turned: dict[tuple[float, ...], list[Placed]] = defaultdict(list)
    for image, frame in slices:
        turned[tuple(round(c, 3) for c in image.orientations[frame])].append((image, frame))
    for cosines, group in turned.items():
        normal = np.cross(cosines[:3], cosines[3:])
        corners = np.array([image.positions[frame] for image, frame in group])
        level = corners @ normal
        order = np.argsort(level, kind="stable")
        gaps = np.diff(level[order])
        real = gaps[gaps > _ROUNDING]
        near = _SAME_DISTANCE * float(np.median(real)) if len(real) else np.inf
        for one_level in np.split(order, np.flatnonzero(gaps > max(near, _ROUNDING)) + 1):
            rest = one_level
            while len(rest):  # several pictures beside each other in one plane
                aside = corners[rest] - corners[rest[0]]
                aside -= np.outer(aside @ normal, normal)
                same = np.linalg.norm(aside, axis=1) < max(group[rest[0]][0].spacing or (1.0, 1.0))
                same[0] = True
                yield [group[place] for place in rest[same]]
                rest = rest[~same]


def _check_unplaced(images: Sequence[Header]) -> None:
    """Refuse slices that do not say where they lie, and are told apart by what no stack varies."""
    told = _differing(images, _OF_A_STACK)
    if told:
        detail = f"{len(images)} slices do not say where they lie{told}"
        raise UnusableFile(Reason.MULTI_PHASE, detail)
    place = ACQUIRED.index("SliceLocation")
    levels = [image.acquired[place] for image in images if image.acquired[place:]]
    known = [round(level, 3) for level in levels if level is not None]
    if 1 < len(set(known)) < len(known):
        detail = f"{len(known) - len(set(known))} of {len(images)} slices have another's location"
        raise UnusableFile(Reason.DUP_POSITION, detail)


def _same_time(name: str, values: Sequence[float]) -> bool:
    """Return whether echo or inversion times are one, but for what a scanner rounds."""
    return name in _TIMES and values[-1] - values[0] < _SAME_TIME * values[-1]


def _differing(images: Sequence[Header], names: Sequence[str]) -> str:
    """Return in what images differ, with some of the values; empty where it is nothing of these."""
    found = []
    for name in names:
        place = ACQUIRED.index(name)
        held = [image.acquired[place] for image in images if image.acquired[place:]]
        values = sorted({value for value in held if value is not None})
        if len(values) > 1 and name != "SliceLocation" and not _same_time(name, values):
            some = ", ".join(f"{value:g}" for value in values[:3])
            found.append(f"{name} ({some}{', ...' * (len(values) > 3)})")
    return f"; they differ in {' and '.join(found)}" if found else ""
