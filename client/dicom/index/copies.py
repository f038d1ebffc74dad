"""Comparison of two copies of one object."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy, deepcopy

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

#: When an object was written; two writings of one finding differ in these alone.
_TIMES = (
    "ContentDate",
    "ContentTime",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "DateOfSecondaryCapture",
    "TimeOfSecondaryCapture",
)
#: A PACS may write an object in another transfer syntax and pads values as that one wants.
_PADDING = "\0 "


def made_at(dataset: Dataset, other: Dataset) -> Dataset:
    """Return the dataset with the other's times of writing."""
    found = copy(dataset)
    for name in _TIMES:
        if name in found and name in other:
            found[name] = other[name]
    return found


def uncompressed(dataset: Dataset) -> Dataset:
    """Return a copy as it was before a PACS compressed it; itself where it cannot be undone.

    Many archives store without loss in another transfer syntax; that changes no value.
    """
    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    if syntax is None or not syntax.is_encapsulated or "PixelData" not in dataset:
        return dataset
    found = deepcopy(dataset)
    try:
        found.decompress(generate_instance_uid=False)
    except Exception:  # noqa: BLE001  # decoders raise their own kinds; it then counts as changed
        return dataset
    return found


def differences(one: Dataset, other: Dataset, path: str = "") -> list[str]:
    """Return where two objects differ, by keyword and item: attributes and all their values.

    Group lengths (gggg,0000) are passed over: they are of the encoding, and so is the file meta
    information, which is no part of a dataset (PS3.5 7.2, PS3.10 7.1).
    """
    return list(_differences(one, other, path))


def _differences(one: Dataset, other: Dataset, path: str) -> Iterator[str]:
    tags = sorted({tag for tag in (*one.keys(), *other.keys()) if tag & 0xFFFF})
    for tag in tags:
        name = path + (keyword_for_tag(tag) or f"{tag}")
        if tag not in one or tag not in other:
            yield name
            continue
        yield from _unlike(one[tag], other[tag], name)


def _unlike(one: DataElement, other: DataElement, name: str) -> Iterator[str]:
    if one.VR == "SQ" and other.VR == "SQ":
        if len(one.value) != len(other.value):
            yield name
            return
        for number, (first, second) in enumerate(zip(one.value, other.value, strict=True), 1):
            yield from _differences(first, second, f"{name}[{number}].")
    elif isinstance(one.value, bytes) and isinstance(other.value, bytes):
        if one.value + b"\0" * (len(one.value) % 2) != other.value + b"\0" * (len(other.value) % 2):
            yield name
    elif _plain(one.value) != _plain(other.value):
        yield name


def _plain(value: object) -> object:
    if value is None or value == b"":
        return ""
    if isinstance(value, str):
        return value.strip(_PADDING)
    return value
