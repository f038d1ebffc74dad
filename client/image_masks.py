"""The mask that a table names for an image, whatever it was drawn with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from client.dicom.masks import (
    Labels,
    Structures,
    read_image_segmentation,
    read_png,
    read_segmentation,
)
from client.dicom.masks_nifti import SUFFIXES, read_nifti
from client.dicom.masks_rtstruct import (
    STRUCTURE_SET,
    Drawn,
    frame_of_reference,
    read_structure_set,
)
from client.dicom.quiet import quiet
from client.dicom.read import Header
from client.dicom.reasons import Reason, UnusableFile
from client.dicom.volume import Geometry


@dataclass(frozen=True, kw_only=True)
class MaskRules:
    """Which masks go with which images."""

    structures: Structures
    column: str  # of labels.csv, with the mask's path below the site's folder
    resample: bool = False  # a NIfTI mask on another grid is brought to the image's


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What a mask may be drawn on: a 2-D frame, or a volume."""

    header: Header  # of the object, or of the series' first
    frame: int  # of the object; 0 for a volume
    geometry: Geometry | None  # of a volume
    shape: tuple[int, ...]  # (rows, columns) or (slices, rows, columns)
    first: str  # file of the object, or of the series' first, below the site's folder
    instances: frozenset[str]  # SOPInstanceUIDs


def read_mask(site: Path, name: str, canvas: Canvas, rules: MaskRules) -> Labels:
    """Read the mask that a row names; UnusableFile with MASK_MISSING or MASK_UNUSABLE."""
    if not name:
        raise UnusableFile(Reason.MASK_MISSING, "the row names none")
    path = site / name
    if not path.resolve().is_relative_to(site.resolve()):
        raise UnusableFile(Reason.MASK_UNUSABLE, "the path leaves the site's folder")
    if not path.is_file():
        raise UnusableFile(Reason.MASK_MISSING, path.name)
    if canvas.geometry is None:
        return _flat(path, canvas, rules)
    slices, rows, columns = canvas.shape
    shape = slices, rows, columns
    if path.suffix.lower() == ".png":
        raise UnusableFile(Reason.MASK_UNUSABLE, "a PNG for a volume; use DICOM SEG")
    if path.name.lower().endswith(SUFFIXES):
        return read_nifti(path, shape, canvas.geometry, rules.structures, resample=rules.resample)
    if _sop_class(path) == STRUCTURE_SET:
        drawn = Drawn(
            shape=shape, geometry=canvas.geometry, series=canvas.header.series,
            instances=canvas.instances, frame_of_reference=frame_of_reference(site / canvas.first),
        )  # fmt: skip
        return read_structure_set(path, drawn, rules.structures)
    return read_segmentation(path, shape, canvas.geometry, rules.structures)


def _flat(path: Path, canvas: Canvas, rules: MaskRules) -> NDArray[np.uint8]:
    if path.suffix.lower() == ".png":
        if canvas.header.frames > 1:
            raise UnusableFile(Reason.MASK_UNUSABLE, "a PNG for several frames; use DICOM SEG")
        return read_png(path, canvas.header.shape, rules.structures)
    if path.name.lower().endswith(SUFFIXES) or _sop_class(path) == STRUCTURE_SET:
        kind = "contours" if not path.name.lower().endswith(SUFFIXES) else "NIfTI"
        raise UnusableFile(
            Reason.MASK_UNUSABLE, f"{kind} for a 2-D image, which has no place; use PNG or SEG"
        )
    return read_image_segmentation(path, canvas.header, canvas.frame, rules.structures)


def _sop_class(path: Path) -> str:
    try:
        with quiet():
            found = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        return str(found.get("SOPClassUID") or "")
    except Exception as error:
        # Whatever a broken file makes pydicom raise.
        raise UnusableFile(Reason.MASK_UNUSABLE, f"not DICOM ({type(error).__name__})") from error
