"""Outlines drawn by people: DICOM SEG and PNG, put onto the grid of their image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from client.dicom.read import UnusableFile, read_dataset
from client.dicom.reasons import Reason
from client.dicom.volume import Geometry

Labels = NDArray[np.uint8]  # 0 background, 1.. structures in the order of the configuration

#: A frame lies on a slice when it is nearer than this part of the slice distance.
_ON_SLICE = 0.5


def read_png(
    path: Path, shape: tuple[int, int], structures: Mapping[str, tuple[int, ...]]
) -> Labels:
    """Read a grey PNG of the image's shape; 0 in a structure's values means every non-zero one."""
    from PIL import Image, UnidentifiedImageError

    if not path.exists():
        raise UnusableFile(Reason.MASK_MISSING, path.name)
    try:
        with Image.open(path) as picture:
            plain = picture.mode in {"L", "P", "I;16"}
            grey = np.asarray(picture if plain else picture.convert("L"))
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise UnusableFile(Reason.MASK_UNUSABLE, type(error).__name__) from error
    if grey.shape != shape:
        raise UnusableFile(Reason.MASK_UNUSABLE, f"mask {grey.shape}, image {shape}")
    return label_map(grey, structures)


def label_map(
    values: NDArray[np.integer], structures: Mapping[str, tuple[int, ...]]
) -> Labels:
    """Return 1.. for each structure's values, in order; later structures win where they overlap."""
    labels = np.zeros(values.shape, np.uint8)
    for number, wanted in enumerate(structures.values(), 1):
        labels[(values > 0) if 0 in wanted else np.isin(values, wanted)] = number
    return labels


def read_segmentation(
    path: Path,
    shape: tuple[int, int, int],
    geometry: Geometry,
    structures: Mapping[str, tuple[int, ...]],
) -> Labels:
    """Read a DICOM SEG onto a volume's grid, each frame by its own position (PS3.3 A.51)."""
    if not path.exists():
        raise UnusableFile(Reason.MASK_MISSING, path.name)
    dataset = read_dataset(path)
    if dataset.get("SOPClassUID") != SegmentationStorage:
        raise UnusableFile(Reason.MASK_UNUSABLE, "not a DICOM segmentation")
    try:
        return _place_frames(dataset, shape, geometry, structures)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        detail = f"{type(error).__name__}: {error}"[:120]
        raise UnusableFile(Reason.MASK_UNUSABLE, detail) from error


def _place_frames(
    dataset: Dataset,
    shape: tuple[int, int, int],
    geometry: Geometry,
    structures: Mapping[str, tuple[int, ...]],
) -> Labels:
    if (int(dataset.Rows), int(dataset.Columns)) != shape[1:]:
        raise UnusableFile(Reason.MASK_UNUSABLE, f"mask {dataset.Rows} x {dataset.Columns}")
    frames = np.asarray(dataset.pixel_array).reshape(-1, *shape[1:])
    to_index = np.linalg.inv(geometry.affine)
    numbers = {v: k for k, values in enumerate(structures.values(), 1) for v in values}
    labels = np.zeros(shape, np.uint8)
    for index, frame in enumerate(frames):
        number = numbers.get(_segment_number(dataset, index), numbers.get(0))
        if number is None:
            continue
        place = to_index @ np.array([*_position(dataset, index), 1.0])
        level = round(place[0])
        if abs(place[0] - level) > _ON_SLICE or not 0 <= level < shape[0]:
            raise UnusableFile(Reason.MASK_UNUSABLE, f"frame {index + 1} is outside the volume")
        if np.abs(place[1:3]).max() > 1.0:
            raise UnusableFile(Reason.MASK_UNUSABLE, "mask and image start at different corners")
        labels[level][frame > 0] = number
    return labels


def _group(dataset: Dataset, frame: int, sequence: str) -> Dataset:
    own = dataset.PerFrameFunctionalGroupsSequence[frame]
    if sequence in own:
        return own[sequence].value[0]  # type: ignore[no-any-return]  # pydicom: a Dataset
    shared = dataset.SharedFunctionalGroupsSequence[0]
    return shared[sequence].value[0]  # type: ignore[no-any-return]  # pydicom: a Dataset


def _segment_number(dataset: Dataset, frame: int) -> int:
    item = _group(dataset, frame, "SegmentIdentificationSequence")
    return int(item.ReferencedSegmentNumber)


def _position(dataset: Dataset, frame: int) -> tuple[float, float, float]:
    where = _group(dataset, frame, "PlanePositionSequence").ImagePositionPatient
    return float(where[0]), float(where[1]), float(where[2])
