"""RT Structure Sets for tests: the exact borders of a mask's voxels, as contours in mm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

from tests.client.dicom_files import uid

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
Mask = NDArray[np.uint8]
Corner = tuple[int, int]  # row, column, in halves of voxels


def item(**values: object) -> Dataset:
    """Return a sequence's item."""
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def borders(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """Yield closed polygons of (row, column) along the outer edges of voxels, holes too."""
    edges: set[tuple[Corner, Corner]] = set()
    for row, column in np.argwhere(mask).tolist():
        corners = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
        for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
            if (end, start) in edges:  # between two voxels of the mask
                edges.remove((end, start))
            else:
                edges.add((start, end))
    following: dict[Corner, list[Corner]] = defaultdict(list)
    for start, end in sorted(edges):
        following[start].append(end)
    while following:
        place = next(iter(following))
        loop: list[Corner] = []
        while following.get(place):
            loop.append(place)
            place = following[place].pop()
        for corner in loop:
            if not following.get(corner):
                following.pop(corner, None)
        yield np.array(loop, np.float64) - 0.5


def structure_set(
    masks: Mapping[str, Mask],
    sources: Sequence[FileDataset],
    outlines: Callable[[NDArray[np.bool_]], Iterator[NDArray[np.float64]]] = borders,
) -> FileDataset:
    """Return a structure set: for each region (slices, rows, columns) in the sources' order."""
    first = sources[0]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID(STRUCTURE_SET)
    meta.MediaStorageSOPInstanceUID = uid("structure set", first.SeriesInstanceUID)
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = UID(STRUCTURE_SET)
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.PatientName = first.PatientID, "Test^Patient"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = first.StudyInstanceUID, uid("rt", first)
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240101", "120000", "1"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.Modality, dataset.Manufacturer = "RTSTRUCT", "test"
    dataset.SeriesNumber, dataset.OperatorsName = 1, ""
    dataset.StructureSetLabel, dataset.StructureSetDate = "TEST", "20240101"
    dataset.StructureSetTime = "120000"
    frame = first.get("FrameOfReferenceUID") or uid("frame", first.SeriesInstanceUID)
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = frame, ""
    images = Items(
        [
            item(ReferencedSOPClassUID=s.SOPClassUID, ReferencedSOPInstanceUID=s.SOPInstanceUID)
            for s in sources
        ]
    )
    series = item(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=images)
    study = item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=Items([series]),
    )
    dataset.ReferencedFrameOfReferenceSequence = Items(
        [item(FrameOfReferenceUID=frame, RTReferencedStudySequence=Items([study]))]
    )
    dataset.StructureSetROISequence = Items(
        [
            item(
                ROINumber=n,
                ReferencedFrameOfReferenceUID=frame,
                ROIName=name,
                ROIGenerationAlgorithm="MANUAL",
            )
            for n, name in enumerate(masks, 1)
        ]
    )
    dataset.ROIContourSequence = Items(
        [
            item(
                ReferencedROINumber=n,
                ROIDisplayColor=[255, 0, 0],
                ContourSequence=Items(list(_contours(mask, sources, outlines))),
            )
            for n, mask in enumerate(masks.values(), 1)
        ]
    )
    dataset.RTROIObservationsSequence = Items(
        [
            item(
                ObservationNumber=n,
                ReferencedROINumber=n,
                RTROIInterpretedType="ORGAN",
                ROIInterpreter="",
            )
            for n in range(1, len(masks) + 1)
        ]
    )
    return dataset


def _contours(
    mask: Mask,
    sources: Sequence[FileDataset],
    outlines: Callable[[NDArray[np.bool_]], Iterator[NDArray[np.float64]]],
) -> Iterator[Dataset]:
    for plane, source in zip(mask, sources, strict=True):
        corner = np.array(source.ImagePositionPatient, float)
        along = np.array(source.ImageOrientationPatient, float).reshape(2, 3)
        rows, columns = (float(v) for v in source.PixelSpacing)
        for outline in outlines(plane > 0):
            # PS3.3 C.7.6.2.1.1: the first cosine leads along a row, from column to column.
            points = corner + outline[:, 1:] * columns * along[0] + outline[:, :1] * rows * along[1]
            yield item(
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{v:.8f}"[:16] for v in points.reshape(-1)],
                ContourImageSequence=Items(
                    [
                        item(
                            ReferencedSOPClassUID=source.SOPClassUID,
                            ReferencedSOPInstanceUID=source.SOPInstanceUID,
                        )
                    ]
                ),
            )
