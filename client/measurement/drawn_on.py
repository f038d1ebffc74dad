"""Which images of a row a mask was drawn on.

A mask in DICOM names them. Of a cine, where each place has a picture of every phase, it names those
of its own phase; where each slice is a series of its own, those of all of them. What a mask names
is part of a stack, of which slices without an outline need not be named.
A mask that names none (NIfTI) may be of each series of its row, and is of the one whose grid it
has; of two nobody knows, and it is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from client.cohort.decode import Object
from client.cohort.select import SelectedImage
from client.dicom.masks.kept_mask import mask_dataset
from client.dicom.quiet import quiet
from client.dicom.reading.phases import at_one_place
from client.dicom.reading.read import Header
from client.dicom.reading.time_axis import phases_of, stack_of
from client.dicom.reasons import Reason, UnusableFile
from client.series.selection import is_secondary_capture

Stack = list[Object]


def named_in(path: Path) -> frozenset[str]:
    """Return the instances that a mask says it was drawn on; none where it names none."""
    try:
        with quiet():
            found = mask_dataset(path)
            # The whole series may be listed beside what each frame was drawn on.
            own = _instances(found.get("PerFrameFunctionalGroupsSequence") or ())
            return own or _instances([found])
    except Exception:  # noqa: BLE001  # no DICOM, or broken: whoever reads the mask says why
        return frozenset()


def _instances(items: Sequence[Dataset]) -> frozenset[str]:
    return frozenset(
        str(element.value)
        for item in items
        for element in item.iterall()
        if element.keyword == "ReferencedSOPInstanceUID"
    )


def worth_decoding(
    images: Sequence[SelectedImage], named: frozenset[str]
) -> Sequence[SelectedImage]:
    """Return those of a row's images that a mask may have been drawn on, by their headers."""
    meant = [one.image.header for one in images if one.image.instance in named]
    if not meant:
        return [one for one in images if not is_secondary_capture(one.image)] or images
    series = {header.series for header in meant}
    like = {stack_of(header, "slices") for header in meant} if len(series) > 1 else set()
    return [
        one
        for one in images
        if one.image.series in series or stack_of(one.image.header, "slices") in like
    ]


def stacks(objects: Sequence[Object], named: frozenset[str]) -> list[Stack]:
    """Return the stacks of slices that a mask may have been drawn on; never none.

    UnusableFile says why there is none.
    """
    if not objects:
        raise UnusableFile(Reason.NO_IMAGE, "none of the row's images can be read")
    meant = [one for one in objects if one.header.instance in named]
    if meant:
        return [_named_stack(objects, meant)]
    found: dict[str, Stack] = defaultdict(list)
    for one in objects:
        found[one.header.series].append(one)
    if len(found) == 1 and _has_phases(objects):
        detail = "every place has several pictures, and the mask names none of them"
        raise UnusableFile(Reason.MULTI_PHASE, detail)
    return list(found.values())


def _named_stack(objects: Sequence[Object], meant: Sequence[Object]) -> Stack:
    """Return the stack that holds what a mask names."""
    series = {one.header.series for one in meant}
    if len(series) == 1:
        held = [one for one in objects if one.header.series in series]
    else:
        held = _joined(objects, meant)
    if not _has_phases(held):
        return held
    by_header = {id(one.header): one for one in held}
    wanted = {id(one.header) for one in meant}
    for phase in phases_of([one.header for one in held], "auto", None):
        if wanted <= set(map(id, phase)):
            return [by_header[id(header)] for header in phase]
    raise UnusableFile(Reason.MASK_UNUSABLE, "drawn on pictures of several times")


def _joined(objects: Sequence[Object], meant: Sequence[Object]) -> Stack:
    """Return slices of several series that are one stack."""
    keys = {stack_of(one.header, "slices") for one in meant}
    if len(keys) > 1:
        count = len({one.header.series for one in meant})
        raise UnusableFile(Reason.MASK_UNUSABLE, f"drawn on {count} series that are no one stack")
    return [one for one in objects if stack_of(one.header, "slices") in keys]


def _has_phases(objects: Sequence[Object]) -> bool:
    """Return whether some place has several pictures, each an object of its own."""
    headers: list[Header] = [one.header for one in objects]
    if any(header.frames != 1 or not header.positions for header in headers):
        return False  # stacking says what is odd about them
    return any(len(place) > 1 for place in at_one_place([(header, 0) for header in headers]))
