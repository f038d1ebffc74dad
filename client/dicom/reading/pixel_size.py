"""Size of a pixel in the patient, where the image is calibrated (PS3.3 10.7.1).

A radiograph is a projection: ImagerPixelSpacing is measured at the detector, and a PixelSpacing
that merely repeats it is too. It counts where its calibration is said or where it differs, and
so does that of a scanned film beside its NominalScannedPixelSpacing. On which calibration a length
rests is said with it: GEOMETRY assumes a depth, FIDUCIAL an object of known size (10.7.1.1).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from client.dicom.reading.groups import group_item, region_pixel
from client.site.plain_text import shown

#: Computed, digital, mammographic and intra-oral radiography, X-ray angiography and fluoroscopy,
#: RT images: projections, whatever their modality says.
_PROJECTIONS = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in (
        "1",
        "1.1",
        "1.1.1",
        "1.2",
        "1.2.1",
        "1.3",
        "1.3.1",
        "12.1",
        "12.1.1",
        "12.2",
        "12.2.1",
        "481.1",
    )
)
#: What is a projection where it has no place in the patient: slices of tomosynthesis have one.
_RADIOGRAPHS = frozenset({"CR", "DX", "MG", "IO", "PX", "RF", "XA", "RG", "RTIMAGE"})
_SAID = frozenset({"GEOMETRY", "FIDUCIAL"})
#: Spacings that differ by less than this part are the same number, rounded.
_SAME = 1e-3
_CORNERS = ("MinX0", "MinY0", "MaxX1", "MaxY1")


class Calibration(NamedTuple):
    """What makes a pixel's size one in the patient, where it is not the place of a slice."""

    method: str  # 64 characters at most
    description: str = ""  # as the image has it

    @property
    def sentence(self) -> str:
        """Return it as a person reads it."""
        more = f" ({self.description})" if self.description else ""
        return f"Lengths in mm rest on {self.method}{more}."


def calibration_of(header: Dataset) -> Calibration | None:
    """Return on what an image's lengths in mm rest; None where slices have their size by place."""
    if header.get("SequenceOfUltrasoundRegions"):
        return Calibration("the calibration of ultrasound's regions")
    kind = _kind_of(header)
    if kind:
        said = shown(str(header.get("PixelSpacingCalibrationDescription") or "")).strip()
        return Calibration(f"PixelSpacing, calibrated by {kind}", said[:200])
    elsewhere = ("ImagerPixelSpacing", "NominalScannedPixelSpacing")
    if not _is_placed(header) or any(_spacing(header, name) for name in elsewhere):
        return Calibration("a PixelSpacing whose calibration is not said")
    return None


def _kind_of(header: Dataset) -> str:
    kind = str(header.get("PixelSpacingCalibrationType") or "").strip().upper()
    return kind if kind in _SAID else ""


def pixel_mm2(header: Dataset, within: NDArray[np.bool_] | None = None) -> float | None:
    """Return the area of a pixel in mm2; None where the image is not calibrated to the patient.

    within is what was outlined (rows, columns): ultrasound is calibrated by region.
    """
    regions = header.get("SequenceOfUltrasoundRegions")
    if regions:
        return _of_region(list(regions), within)
    spacing = _spacing(group_item(header, 0, "PixelMeasuresSequence") or header, "PixelSpacing")
    if spacing is None or not _is_calibrated(header, spacing):
        return None
    area = spacing[0] * spacing[1]
    return area if math.isfinite(area) and area > 0 else None


def _is_calibrated(header: Dataset, spacing: tuple[float, float]) -> bool:
    if _kind_of(header):
        return True
    found = (_spacing(header, "ImagerPixelSpacing"), _spacing(header, "NominalScannedPixelSpacing"))
    elsewhere = [one for one in found if one is not None]
    if any(_alike(spacing, one) for one in elsewhere):
        return False
    # A radiograph with nothing but a PixelSpacing does not say where that was measured.
    return bool(elsewhere) or not _is_projection(header)


def _is_projection(header: Dataset) -> bool:
    if str(header.get("SOPClassUID") or "") in _PROJECTIONS:
        return True
    return str(header.get("Modality") or "") in _RADIOGRAPHS and not _is_placed(header)


def _is_placed(header: Dataset) -> bool:
    placed = header.get("ImagePositionPatient") or group_item(header, 0, "PlanePositionSequence")
    return bool(placed)


def _spacing(item: Dataset, name: str) -> tuple[float, float] | None:
    value = item.get(name)
    return None if value is None or len(value) != 2 else (float(value[0]), float(value[1]))


def _alike(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(abs(a - b) <= _SAME * abs(b) for a, b in zip(one, other, strict=True))


def _of_region(regions: list[Dataset], within: NDArray[np.bool_] | None) -> float | None:
    """Return the area of a pixel in the one region of tissue that holds all that was outlined."""
    if within is None or not within.any():
        return None
    rows, columns = (np.flatnonzero(within.any(axis=axis)) for axis in (1, 0))
    for region in regions:
        left, top, right, bottom = (int(region.get(f"RegionLocation{end}", -1)) for end in _CORNERS)
        if left <= columns[0] and columns[-1] <= right and top <= rows[0] and rows[-1] <= bottom:
            pixel = region_pixel(region)
            return None if pixel is None else pixel[0] * pixel[1] * 100  # cm2 to mm2
    return None
