"""The mask that a table names for an image, whatever its format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from client.dicom.masks.kept_mask import mask_dataset
from client.dicom.masks.mask_remarks import Tell, to_nobody
from client.dicom.masks.nifti import read_nifti
from client.dicom.masks.nifti_file import SUFFIXES
from client.dicom.masks.owner import check_owner, owner_of, parts_of, plain_name
from client.dicom.masks.png import read_png
from client.dicom.masks.rtstruct import (
    STRUCTURE_SET,
    DrawnVolume,
    frame_of_reference,
    read_structure_set,
)
from client.dicom.masks.seg import read_image_segmentation, read_segmentation
from client.dicom.masks.seg_segments import Labels, Structures
from client.dicom.quiet import quiet
from client.dicom.reading.groups import text_of
from client.dicom.reading.read import Header
from client.dicom.reading.volume import Geometry
from client.dicom.reasons import Reason, UnusableFile
from client.files.below import file_below, one_name
from client.labels.label_table import Labels as Table
from client.labels.label_table import dicom_keys

#: Pictures that lose an outline's edge, or that nobody here reads.
_PICTURES = frozenset({".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, kw_only=True)
class MaskRules:
    """Which masks go with which images."""

    structures: Structures
    column: str  # of labels.csv, with the mask's path below the site's folder
    resample: bool = False  # a NIfTI mask on another grid is brought to the image's
    label: str = ""  # of the only segment or region that counts, whatever its number; or empty


def mask_rules(structures: Structures, column: str, labels: Table) -> MaskRules:
    """Return how a column's masks are read, by the table's schema."""
    declared = labels.schema.columns.get(column)
    return MaskRules(
        structures=structures,
        column=column,
        resample=declared is not None and declared.resample is not None,
        label=(declared.label if declared is not None else None) or "",
    )


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What a mask may be drawn on: a 2-D frame, or a volume."""

    header: Header  # of the object, or of the series' first
    frame: int  # of the object; 0 for a volume
    geometry: Geometry | None  # of a volume
    shape: tuple[int, ...]  # (rows, columns) or (slices, rows, columns)
    first: str  # file of the object, or of the series' first, below the site's folder
    instances: frozenset[str]  # SOPInstanceUIDs
    alone: bool = True  # the only image of its row
    #: Of a volume, by instance and frame: the slice that it is.
    levels: Mapping[tuple[str, int], int] = field(default_factory=dict)


def mask_name(header: Header, labels: Table, masks: MaskRules | None) -> str:
    """Return the mask that an image's row names; nothing where none was asked for."""
    return "" if masks is None else labels.rows[labels.find(dicom_keys(header))][masks.column]


def shared_masks(
    headers: Iterable[Header], labels: Table, masks: MaskRules | None
) -> frozenset[str]:
    """Return the masks that rows of several patients name though they do not say whose they are.

    One that is empty may be anybody's; one in DICOM says whose it is. Where each patient
    is looked at alone, no row of another's is compared.
    """
    if labels.by_patient or masks is None:
        return frozenset()
    patients: dict[str, set[str]] = defaultdict(set)
    written: dict[str, set[str]] = defaultdict(set)
    for header in headers:
        name = mask_name(header, labels, masks)
        patients[one_name(name)].add(header.patient)
        written[one_name(name)].add(name)
    nameless = (".png", *SUFFIXES)
    return frozenset(
        name
        for one, held in patients.items()
        if len(held) > 1 and one.lower().endswith(nameless)
        for name in written[one]
    )


def is_nifti(name: str) -> bool:
    """Return whether a mask is NIfTI, by its name."""
    return name.lower().endswith(SUFFIXES)


def read_mask(
    site: Path, name: str, canvas: Canvas, rules: MaskRules, tell: Tell = to_nobody
) -> Labels:
    """Read the mask that a row names; UnusableFile with MASK_MISSING or MASK_UNUSABLE.

    What is odd in a mask that is used all the same is told. Whatever else a broken file makes a
    library raise is that file's, and stops nobody else; too little memory is nobody's.
    """
    try:
        return _read(site, name, canvas, rules, tell)
    except (UnusableFile, MemoryError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"[:120]
        raise UnusableFile(Reason.MASK_UNUSABLE, detail) from error


def mask_path(site: Path, name: str) -> Path:
    """Return the file that a row names; UnusableFile where it is none of the site's."""
    if not name:
        raise UnusableFile(Reason.MASK_MISSING, "the row names none")
    return file_below(site, name, outside=Reason.MASK_UNUSABLE, missing=Reason.MASK_MISSING)


def read_structures(
    site: Path, name: str, canvas: Canvas, rules: MaskRules, tell: Tell = to_nobody
) -> dict[str, NDArray[np.bool_]]:
    """Read the mask that a row names, each structure whole, also where another lies over it."""

    def told(problem: UnusableFile) -> None:
        if problem.reason is not Reason.MASK_COVERED:
            tell(problem)

    drawn = read_mask(site, name, canvas, rules, told)
    found = {structure: drawn == number for number, structure in enumerate(rules.structures, 1)}
    if len(found) < 2 or not _may_overlap(mask_path(site, name), rules.structures):
        return found
    for structure, numbers in rules.structures.items():
        alone = replace(rules, structures={structure: numbers})
        try:
            found[structure] = read_mask(site, name, canvas, alone) > 0
        except UnusableFile:
            if found[structure].any():
                raise  # else the mask has none of its numbers, which is no fault
    return found


def _may_overlap(path: Path, structures: Structures) -> bool:
    """Return whether a voxel of a mask that was read may be of two structures."""
    numbers = [one for several in structures.values() for one in set(several)]
    if 0 in numbers or len(set(numbers)) < len(numbers):
        return True
    if path.name.lower().endswith((".png", *SUFFIXES)):
        return False
    return text_of(mask_dataset(path), "SegmentsOverlap") != "NO"


def _read(site: Path, name: str, canvas: Canvas, rules: MaskRules, tell: Tell) -> Labels:
    path = mask_path(site, name)
    _check_kind(path)
    dicom = not path.name.lower().endswith((".png", *SUFFIXES))
    if dicom and not canvas.instances - {""}:
        detail = "an image in a file takes an outline as NIfTI, or as PNG where it is a picture"
        raise UnusableFile(Reason.MASK_UNUSABLE, detail)
    if dicom and rules.label:
        rules = labelled(mask_dataset(path), rules)
    if canvas.geometry is None:
        return _flat(site, path, canvas, rules, tell)
    slices, rows, columns = canvas.shape
    shape = slices, rows, columns
    if path.suffix.lower() == ".png":
        raise UnusableFile(Reason.MASK_UNUSABLE, "a PNG for a volume; use DICOM SEG")
    if is_nifti(path.name):
        return read_nifti(
            path, shape, canvas.geometry, rules.structures, resample=rules.resample, tell=tell
        )
    if _sop_class(site, path, canvas) == STRUCTURE_SET:
        drawn = DrawnVolume(
            shape=shape,
            geometry=canvas.geometry,
            series=canvas.header.series,
            instances=canvas.instances,
            frame_of_reference=frame_of_reference(site / canvas.first),
            levels=canvas.levels,
        )
        return read_structure_set(path, drawn, rules.structures, tell)
    return read_segmentation(
        path, shape, canvas.geometry, rules.structures, instances=canvas.instances, tell=tell
    )


def labelled(mask: Dataset, rules: MaskRules) -> MaskRules:
    """Return the rules for the one segment or region of a mask that the site's label names."""
    if len(rules.structures) > 1:
        detail = f"label: {rules.label} names one segment, and the run has several structures"
        raise UnusableFile(Reason.MASK_UNUSABLE, detail)
    held = parts_of(mask)
    numbers = tuple(
        number for number, name in held.items() if plain_name(name) == plain_name(rules.label)
    )
    if not numbers:
        detail = f"holds {', '.join(held.values())[:60]}; none is called {rules.label[:60]}"
        raise UnusableFile(Reason.MASK_UNUSABLE, detail)
    name = rules.label if mask.get("SOPClassUID") == STRUCTURE_SET else next(iter(rules.structures))
    return replace(rules, structures={name: numbers})


def _flat(
    site: Path, path: Path, canvas: Canvas, rules: MaskRules, tell: Tell
) -> NDArray[np.uint8]:
    if path.suffix.lower() == ".png":
        if canvas.header.frames > 1:
            raise UnusableFile(Reason.MASK_UNUSABLE, "a PNG for several frames; use DICOM SEG")
        return read_png(path, canvas.header.shape, rules.structures, tell)
    nifti = is_nifti(path.name)
    if nifti or _sop_class(site, path, canvas) == STRUCTURE_SET:
        raise UnusableFile(
            Reason.MASK_UNUSABLE,
            f"{'NIfTI' if nifti else 'contours'} for a 2-D image, which has no place; use PNG or "
            "SEG",
        )
    return read_image_segmentation(
        path, canvas.header, canvas.frame, rules.structures, alone=canvas.alone, tell=tell
    )


def _check_kind(path: Path) -> None:
    if path.suffix.lower() in _PICTURES:
        detail = f"a {path.suffix.lower()[1:]} file; save the outline as PNG or DICOM SEG"
        raise UnusableFile(Reason.MASK_UNUSABLE, detail)


def _sop_class(site: Path, path: Path, canvas: Canvas) -> str:
    """Return what kind of DICOM object a mask is, once it is known to be of this image."""
    try:
        with quiet():
            found = mask_dataset(path)
            flat = canvas.geometry is None
            check_owner(found, owner_of(site / canvas.first, canvas.instances, flat=flat))
        return str(found.get("SOPClassUID") or "")
    except UnusableFile as problem:
        if problem.reason is Reason.MASK_UNUSABLE:
            raise
        detail = f"not DICOM ({problem.reason.name})"
        raise UnusableFile(Reason.MASK_UNUSABLE, detail) from problem
    except Exception as error:
        # Whatever a broken file makes pydicom raise.
        raise UnusableFile(Reason.MASK_UNUSABLE, f"not DICOM ({type(error).__name__})") from error
