"""The digital phantom of IBSI's reference manual (Zwanenburg et al., arXiv:1612.07003), and sites.

5 x 4 x 4 voxels (x, y, z) of 2 mm; 0 stands for what is outside the region of interest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from tests.client.dicom_files import save, segmentation, slices, uid
from tests.client.scores import MR, given

STEP = 2.0
VALUES = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ],
    np.float32,
)
MASK: NDArray[np.bool_] = VALUES > 0


def scan(
    patient: str, values: NDArray[np.float32] = VALUES, series: str = "1"
) -> list[FileDataset]:
    """Return a volume as slices of 2 mm."""
    found = slices(values.astype(np.uint16), patient, STEP, series)
    for plane in found:
        plane.PixelSpacing = [STEP, STEP]
        plane.SeriesDescription = series
    return found


def put_scan(folder: Path, scanned: list[FileDataset]) -> None:
    """Write a scan's files."""
    for number, plane in enumerate(scanned):
        save(folder / f"{plane.SeriesDescription}-{number}.dcm", plane)


def put_mask(
    path: Path, masks: Mapping[int, NDArray[np.bool_]], scanned: list[FileDataset]
) -> None:
    """Write a SEG of segments on a scan."""
    found = segmentation({n: mask.astype(np.uint8) for n, mask in masks.items()}, scanned)
    found.StudyInstanceUID = scanned[0].StudyInstanceUID
    save(path, found)


def beating(site: Path, patient: str, *, acquired: bool = False) -> None:
    """Write a cine of one series whose later phase is brighter, and a SEG of each phase.

    The second segment is half of the first; `acquired`, as a scanner of MR writes it.
    """
    planes = []
    for phase in range(2):
        for number, plane in enumerate(scan(patient, VALUES * (phase + 1))):
            if acquired:
                given(plane, MR, "MR").PatientID = patient
                plane.FrameOfReferenceUID, plane.SliceThickness = uid("frame of reference"), STEP
            plane.TriggerTime = 300 * phase
            plane.SOPInstanceUID = uid(patient, phase, number)
            plane.file_meta.MediaStorageSOPInstanceUID = plane.SOPInstanceUID
            planes.append(plane)
    put_scan(site / patient, planes)
    late = MASK.copy()
    late[:, 2:] = False
    put_mask(site / f"{patient}-ed.dcm", {1: MASK, 2: late}, planes[:4])
    put_mask(site / f"{patient}-es.dcm", {1: late, 2: late}, planes[-4:])
