"""Links between a table's rows and the masks that came from the PACS with their images.

A SEG or structure set names the series that it was drawn on (Referenced Series Sequence, PS3.3
C.12.4 and C.8.8.5; else the instances). It belongs to a row whose keys one of those series has. No
row is given one of several: the reason is kept, and a person decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from client.dicom.masks.owner import parts_of, plain_name, referenced
from client.dicom.quiet import quiet
from client.dicom.reading.groups import text_of
from client.dicom.reading.read import SEGMENTATIONS
from client.labels.csv_text import KEYS
from client.labels.label_table import read_labels
from client.labels.pacs_masks import RowMask, keys_of, write_masks
from client.labels.schema import MASK_TYPES, ColumnRules, read_schema

_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_SHOWN = 3  # files that are named where several fit
_Keys = Mapping[str, str]  # key column -> value


@dataclass(frozen=True, kw_only=True)
class _Mask:
    """A SEG or structure set in the data folder."""

    file: str  # below it
    type: str  # of MASK_TYPES
    patient: str  # PatientID
    drawn_on: frozenset[str]  # SeriesInstanceUIDs
    labels: tuple[str, ...]  # of segments, or names of regions


def mask_types(labels: Path) -> frozenset[str]:
    """Return the modalities of masks that a table's schema wants from the PACS."""
    return frozenset(rules.type for rules in read_schema(labels).of_pacs.values())


def link_masks(data: Path, labels: Path, withdrawn: frozenset[str]) -> tuple[RowMask, ...]:
    """Find each row's masks in the data folder, keep them beside the table, and return them."""
    wanted = read_schema(labels).of_pacs
    if not wanted:
        return ()
    series, masks = _there(data)
    rows = read_labels(labels, [], with_images=True, withdrawn=withdrawn).rows
    found = [
        _linked(keys_of(row), column, rules, series, masks)
        for row in rows
        for column, rules in wanted.items()
    ]
    write_masks(labels, dict.fromkeys(found))
    return tuple(dict.fromkeys(found))


def _linked(
    keys: tuple[str, ...],
    column: str,
    rules: ColumnRules,
    series: Mapping[str, _Keys],
    masks: Sequence[_Mask],
) -> RowMask:
    """Return the one mask of a row, or why there is none."""
    own = {name: value for name, value in zip(KEYS, keys, strict=True) if value}
    images = {
        uid
        for uid, header in series.items()
        if all(header[name] == value for name, value in own.items())
    }
    patients = {series[uid]["PatientID"] for uid in images}
    of_type = [
        one
        for one in masks
        if one.type == rules.type and one.drawn_on & images and one.patient in {"", *patients}
    ]
    label = rules.label
    fits = [
        one
        for one in of_type
        if label is None or plain_name(label) in {plain_name(held) for held in one.labels}
    ]
    if not images:
        why = "none of its images came from the PACS"
    elif not of_type:
        why = f"no {rules.type} that came refers to its series"
    elif not fits:
        held = ", ".join(sorted({held for one in of_type for held in one.labels}))
        why = (
            f"none of {len(of_type)} {rules.type} has {label}; they have {held[:120] or 'no name'}"
        )
    elif len(fits) > 1:
        named = ", ".join(one.file for one in fits[:_SHOWN])
        why = f"{len(fits)} {rules.type} fit: {named}; write the right one in column {column}"
    else:
        why = ""
    file = fits[0].file if len(fits) == 1 else ""
    return RowMask(keys=keys, column=column, file=file, why=why)


def _there(data: Path) -> tuple[dict[str, _Keys], list[_Mask]]:
    """Return the series that lie where `pull` puts them, and the masks among them."""
    series: dict[str, _Keys] = {}
    owners: dict[str, str] = {}  # SOPInstanceUID -> SeriesInstanceUID
    drawn: list[tuple[Path, Dataset]] = []
    for folder in sorted(path for path in data.glob("*/*") if path.is_dir()):
        files = sorted(folder.glob("*.dcm"))
        first = _header(files[0]) if files else None
        if first is None:
            continue
        if text_of(first, "Modality") not in MASK_TYPES:
            uid = text_of(first, "SeriesInstanceUID")
            series[uid] = {name: text_of(first, name) for name in KEYS}
            owners |= {path.stem: uid for path in files}
            continue
        drawn += [(path, one) for path in files if (one := _whole(path)) is not None]
    return series, [_mask(path, one, data, owners) for path, one in drawn]


def _mask(path: Path, mask: Dataset, data: Path, owners: Mapping[str, str]) -> _Mask:
    instances, series = referenced(mask)
    held: Iterable[str] = ()
    try:
        held = parts_of(mask).values()
    except (AttributeError, TypeError, ValueError):
        held = ()  # broken: whoever reads it says so
    return _Mask(
        file=path.relative_to(data).as_posix(),
        type="RTSTRUCT" if text_of(mask, "SOPClassUID") == _STRUCTURE_SET else "SEG",
        patient=text_of(mask, "PatientID"),
        drawn_on=frozenset(series or {owners[uid] for uid in instances if uid in owners}),
        labels=tuple(label for label in held if label),
    )


def _header(path: Path) -> Dataset | None:
    try:
        with quiet():
            return dcmread(path, stop_before_pixels=True, specific_tags=[*KEYS, "Modality"])
    except Exception:  # noqa: BLE001  # broken: the index says so
        return None


def _whole(path: Path) -> Dataset | None:
    try:
        with quiet():
            found = dcmread(path, stop_before_pixels=True)
            is_mask = text_of(found, "SOPClassUID") in {_STRUCTURE_SET, *SEGMENTATIONS}
    except Exception:  # noqa: BLE001  # the same
        return None
    return found if is_mask else None
