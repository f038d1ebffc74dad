"""Studies of several MR series for tests: each on a grid of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from tests.client.dicom_files import image, placed, save, uid

MR = UID("1.2.840.10008.5.1.4.1.1.4")
Float = NDArray[np.float64]
#: mm in the patient (3, ...) -> quantity.
Field = Callable[[Float], Float]


def axes(*turns: float) -> Float:
    """Return slice, row and column direction as columns, turned about each in turn (degrees)."""
    found = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])  # slice along z, rows along y
    for axis, turn in enumerate(np.deg2rad(turns)):
        first, second = [k for k in range(3) if k != axis]
        rotation = np.eye(3)
        rotation[first, first] = rotation[second, second] = np.cos(turn)
        rotation[first, second], rotation[second, first] = -np.sin(turn), np.sin(turn)
        found = rotation @ found
    return found


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where a series lies: index (slice, row, column) -> mm."""

    shape: tuple[int, int, int] = (10, 12, 14)
    spacing: tuple[float, float, float] = (4.0, 2.0, 2.0)
    corner: tuple[float, float, float] = (0.0, 0.0, 0.0)
    directions: Float = field(default_factory=axes)

    @property
    def affine(self) -> Float:
        """Index -> mm."""
        found = np.eye(4)
        found[:3, :3] = self.directions * np.array(self.spacing)
        found[:3, 3] = self.corner
        return found

    def around(self, place: Sequence[float] = (0.0, 0.0, 0.0)) -> Grid:
        """Return the grid with its middle at a place."""
        middle = self.directions * np.array(self.spacing) @ (np.array(self.shape) - 1) / 2
        return replace(self, corner=tuple(np.array(place) - middle))

    def places(self) -> Float:
        """Return the mm of each voxel, (3, *shape)."""
        index = np.indices(self.shape).reshape(3, -1)
        found = self.affine[:3, :3] @ index + self.affine[:3, 3:]
        return found.reshape(3, *self.shape)

    def flipped(self) -> Grid:
        """Return the same voxels, rows and columns the other way round."""
        last = np.array([0, self.shape[1] - 1, self.shape[2] - 1])
        return Grid(
            shape=self.shape,
            spacing=self.spacing,
            corner=tuple(self.affine[:3, :3] @ last + self.affine[:3, 3]),
            directions=self.directions * np.array([1, -1, -1]),
        )

    def transposed(self) -> Grid:
        """Return the same voxels, rows for columns."""
        slices, rows, columns = self.shape
        gap, down, across = self.spacing
        return Grid(
            shape=(slices, columns, rows),
            spacing=(gap, across, down),
            corner=self.corner,
            directions=self.directions[:, [0, 2, 1]],
        )


def blob(place: Sequence[float], wide: float = 6.0) -> Field:
    """Return a quantity that is smooth, and largest at a place."""
    centre = np.array(place).reshape(3, 1, 1, 1)

    def quantity(mm: Float) -> Float:
        found: Float = np.exp(-((mm - centre) ** 2).sum(0) / (2 * wide**2))
        return found + 0.002 * mm[0] + 0.003 * mm[1]

    return quantity


def write(
    folder: Path,
    name: str,
    values: Float,
    grid: Grid,
    *,
    patient: str = "P1",
    study: str = "S",
    frame: str = "F",
    **more: object,
) -> str:
    """Write a series of slices (values of 0 to 2) and return its UID."""
    made = ""
    steps = grid.affine
    for number in range(grid.shape[0]):
        plane = np.round(values[number] * 20000 + 2000).astype("uint16")
        one = placed(
            image(plane, patient, study, name, number),
            tuple(steps[:3, 3] + number * steps[:3, 0]),
            (*grid.directions[:, 2], *grid.directions[:, 1]),
        )
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = MR
        one.Modality, one.SeriesDescription = "MR", name
        one.PixelSpacing, one.SliceThickness = list(grid.spacing[1:]), grid.spacing[0]
        one.FrameOfReferenceUID = uid(patient, frame) if frame else ""
        one.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        _set(one, more)
        save(folder / patient / study / name.replace("*", "") / f"{number:02}.dcm", one)
        made = str(one.SeriesInstanceUID)
    return made


def _set(dataset: FileDataset, more: dict[str, object]) -> None:
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
