"""Whether the slices of a 2-D run show each place once, as those of a volume must.

Echoes, phases, b-values or frames of a dynamic scan under one SeriesInstanceUID are different
pictures of one place, and no several items of one label. Volumes are refused for them where
slices are stacked (volume.py); here it is said of slices that are each an item.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from client.dicom.read import ACQUIRED, Header
from client.dicom.reasons import Reason, UnusableFile

#: Modalities whose pictures are slices, and whose series are different pictures of one place.
SLICED = frozenset({"CT", "MR", "PT", "NM"})
#: Slices nearer to each other than this part of the usual distance lie at one place.
_SAME_DISTANCE = 0.1
#: Distances in mm that are rounding.
_ROUNDING = 1e-3
#: What is one for all slices of one stack, and tells pictures apart that do not say their place.
_OF_A_STACK = (
    "EchoTime", "EchoNumbers", "InversionTime", "TemporalPositionIdentifier", "TriggerTime",
    "DiffusionBValue",
)  # fmt: skip

_Frame = tuple[Header, int]


def check_phases(images: Sequence[Header]) -> None:
    """Raise MULTI_PHASE or DUP_POSITION where images of one series show one place several times.

    Only slices are looked at: views of a mammogram or stills of ultrasound have no place.
    """
    sliced = [image for image in images if image.modality in SLICED]
    placed = [(image, frame) for image in sliced for frame in range(len(image.positions))]
    groups = list(_at_one_place(placed))
    on_another = sum(len(group) - 1 for group in groups)
    if on_another:
        whole = len({len(group) for group in groups}) == 1
        most = max(groups, key=len)
        raise UnusableFile(
            Reason.MULTI_PHASE if whole else Reason.DUP_POSITION,
            f"{on_another} of {len(placed)} slices lie on another{_differing(most, ACQUIRED)}",
        )
    unplaced = [image for image in sliced if not image.positions and image.frames == 1]
    _check_unplaced(unplaced)


def _at_one_place(slices: Sequence[_Frame]) -> Iterator[list[Header]]:
    """Yield the slices of each place: of one orientation, level and corner."""
    turned: dict[tuple[float, ...], list[_Frame]] = defaultdict(list)
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
                yield [group[place][0] for place in rest[same]]
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


def _differing(images: Sequence[Header], names: Sequence[str]) -> str:
    """Return in what images differ, with some of the values; empty where it is nothing of these."""
    found = []
    for name in names:
        place = ACQUIRED.index(name)
        held = [image.acquired[place] for image in images if image.acquired[place:]]
        values = sorted({value for value in held if value is not None})
        if len(values) > 1 and name != "SliceLocation":
            some = ", ".join(f"{value:g}" for value in values[:3])
            found.append(f"{name} ({some}{', ...' * (len(values) > 3)})")
    return f"; they differ in {' and '.join(found)}" if found else ""
