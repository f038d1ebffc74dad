"""Attributes of a parsed dataset and of its functional groups."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

#: PS3.3 C.8.5.5.1: an ultrasound region of a 2-D image, and its unit of length.
_TISSUE, _CENTIMETRES = 1, 3


def group_items(dataset: Dataset, frame: int, sequence: str) -> Sequence | tuple[()]:
    """Return the items of a frame's functional group, its own before the shared (C.7.6.16)."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*own[frame : frame + 1], *shared[:1]):
        if group.get(sequence):
            return group[sequence].value  # type: ignore[no-any-return]  # pydicom: a Sequence
    return ()


def group_item(dataset: Dataset, frame: int, sequence: str) -> Dataset | None:
    """Return the first item of a functional group, which for most is the only one."""
    return next(iter(group_items(dataset, frame, sequence)), None)


def number_of(dataset: Dataset, name: str, absent: float) -> float:
    """Return an attribute's number; `absent` where there is none."""
    value = dataset.get(name)
    return float(absent if value is None or value == "" else value)


def region_pixel(region: Dataset) -> tuple[float, float] | None:
    """Return height and width of a pixel in cm, in an ultrasound region of tissue; else None."""
    units = {int(number_of(region, f"PhysicalUnits{axis}Direction", 0)) for axis in "XY"}
    if int(number_of(region, "RegionSpatialFormat", 0)) != _TISSUE or units != {_CENTIMETRES}:
        return None
    down, across = (abs(number_of(region, f"PhysicalDelta{axis}", 0)) for axis in "YX")
    area = down * across
    return (down, across) if math.isfinite(area) and area > 0 else None


def region_shapes(dataset: Dataset) -> tuple[float, ...]:
    """Return height over width of a pixel in each ultrasound region of tissue, largest first."""
    return tuple(ratio for _, ratio in sorted(_region_shapes(dataset), reverse=True))


def _region_shapes(dataset: Dataset) -> Iterator[tuple[float, float]]:
    """Yield the regions of tissue: how many pixels they hold, and the shape of these."""
    regions = dataset.get("SequenceOfUltrasoundRegions")
    for region in regions if isinstance(regions, Sequence) else ():
        pixel = region_pixel(region)
        if pixel is not None:
            left, top, right, bottom = (
                number_of(region, f"RegionLocation{end}", 0)
                for end in ("MinX0", "MinY0", "MaxX1", "MaxY1")
            )
            yield (right - left) * (bottom - top), pixel[0] / pixel[1]


def issuer_of(dataset: Dataset) -> str:
    """Return who issued the PatientID (PS3.3 table 10-18): name, universal entity ID, its type.

    Joined by backslashes, which none of them can hold; the name alone where the others are empty.
    """
    qualifiers = dataset.get("IssuerOfPatientIDQualifiersSequence")
    item = qualifiers[0] if isinstance(qualifiers, Sequence) and qualifiers else Dataset()
    parts = (
        dataset.get("IssuerOfPatientID"),
        item.get("UniversalEntityID"),
        item.get("UniversalEntityIDType"),
    )
    return "\\".join(str(part or "").strip(" \0") for part in parts).rstrip("\\")


def two_issuers(issuers: set[str]) -> bool:
    """Return whether texts of `issuer_of` are of several issuers.

    By name, by universal entity ID or by its type; what is left empty says nothing.
    """
    names, identifiers, types = (
        {part for issuer in issuers if (part := [*issuer.split("\\"), "", ""][place])}
        for place in range(3)
    )
    return max(len(names), len(identifiers), len(types)) > 1


def text_of(dataset: Dataset, name: str) -> str:
    r"""Return an attribute's text, stripped; one with a backslash, which parts values, whole."""
    value = dataset.get(name)
    text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value or "")
    return text.strip(" \0")


def as_integer(value: int) -> int:
    """Return a value of an integer string (IS), or 0 beyond its range (PS3.5 table 6.2-1)."""
    return value if -(2**31) <= value < 2**31 else 0
