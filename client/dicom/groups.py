"""Attributes of a parsed dataset, in its functional groups and by themselves."""

from __future__ import annotations

from pydicom.dataset import Dataset


def group_item(dataset: Dataset, frame: int, sequence: str) -> Dataset | None:
    """Return a functional group of a frame, its own before the shared (PS3.3 C.7.6.16)."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*own[frame : frame + 1], *shared[:1]):
        if group.get(sequence):
            return group[sequence].value[0]  # type: ignore[no-any-return]  # pydicom: a Dataset
    return None


def number_of(dataset: Dataset, name: str, absent: float) -> float:
    """Return an attribute's number; `absent` where there is none."""
    value = dataset.get(name)
    return float(absent if value is None or value == "" else value)


def as_integer(value: int) -> int:
    """Return a value of an integer string (IS), or 0 beyond its range (PS3.5 table 6.2-1)."""
    return value if -(2**31) <= value < 2**31 else 0
