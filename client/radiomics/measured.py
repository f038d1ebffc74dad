"""A structure of a volume with all that is measured of it, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.dicom.reasons import Reason, UnusableFile
from client.radiomics.feature import Feature
from client.radiomics.intensity import intensity_of
from client.radiomics.outline import SliceOutline
from client.radiomics.shape import shape_of
from client.radiomics.surface_mesh import Float, Mask

#: UCUM's codes of a PET's Units (PS3.3 C.8.9.1.1.3); others have none here.
_UPTAKES = {"BQML": "Bq/mL", "GML": "g/mL"}
#: Slices that lie further apart than so many pixels say little of a shape along them.
_COARSE = 3.0


@dataclass(frozen=True, kw_only=True)
class MeasuredStructure:
    """What was measured of one structure."""

    name: str
    features: Mapping[Feature, float]  # a volume of 0 alone where nothing is drawn
    unit: str  # UCUM's code of the image's values; 1: they have none
    notices: tuple[UnusableFile, ...] = ()  # what is odd, though it was measured

    @property
    def volume(self) -> float:
        """Volume in mm3, voxels counted."""
        return self.features[Feature.VOLUME]


@dataclass(frozen=True, kw_only=True)
class MeasuredMask:
    """What was measured in one mask."""

    name: str  # such as the phase that it is of; empty of a single one
    mask: Path | None  # its file; None: a model outlined it
    sources: tuple[Path, ...]  # images that it was drawn on
    structures: tuple[MeasuredStructure, ...]
    #: By structure: the numbers in the file that make it up.
    numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    #: By structure, of those that are drawn: what a report shows of it.
    outlines: Mapping[str, SliceOutline] = field(default_factory=dict)

    def volume_of(self, structure: str) -> float | None:
        """Return a structure's volume in mm3."""
        return next((one.volume for one in self.structures if one.name == structure), None)


@dataclass(frozen=True, kw_only=True)
class MeasuredVolume:
    """A volume on whose grid structures are drawn."""

    steps: Float  # (3, 3): in its columns the mm that a step along each axis goes
    values: NDArray[np.float32] | None  # as the mask, in `unit`; None: shapes alone
    padding: NDArray[np.bool_] | None  # as the mask: voxels that are no image
    unit: str  # UCUM's code; 1: none


def each_measured(
    drawn: Mapping[str, Mask], volume: MeasuredVolume
) -> tuple[MeasuredStructure, ...]:
    """Measure structures by name, each (slices, rows, columns)."""
    return tuple(measured(name, mask, volume) for name, mask in drawn.items())


def image_unit(modality: str, units: str) -> str:
    """Return UCUM's code of an image's values, by Modality and a PET's Units; 1: they have none."""
    if modality == "CT":
        return "[hnsf'U]"
    return _UPTAKES.get(units, "1") if modality == "PT" else "1"


def measured(name: str, mask: Mask, volume: MeasuredVolume) -> MeasuredStructure:
    """Measure one structure, (slices, rows, columns)."""
    if not mask.any():
        empty = UnusableFile(Reason.MASK_EMPTY, name)
        return MeasuredStructure(
            name=name, features={Feature.VOLUME: 0.0}, unit=volume.unit, notices=(empty,)
        )
    features = shape_of(mask, volume.steps)
    if volume.values is not None:
        seen = mask if volume.padding is None else mask & ~volume.padding
        features |= intensity_of(volume.values[seen].astype(np.float64))
    return MeasuredStructure(
        name=name,
        features=features,
        unit=volume.unit,
        notices=tuple(_notices(name, mask, volume.steps)),
    )


def _notices(name: str, mask: Mask, steps: Float) -> Iterator[UnusableFile]:
    ends = ("slice", "row", "column")
    touched = [end for axis, end in enumerate(ends) if np.take(mask, (0, -1), axis=axis).any()]
    if touched:
        detail = f"{name} reaches the first or last {' and '.join(touched)}"
        yield UnusableFile(Reason.MASK_AT_BORDER, detail)
    apart, *pixel = np.linalg.norm(steps, axis=0)
    if apart > _COARSE * max(pixel):
        detail = f"slices {apart:.3g} mm apart, pixels of {pixel[0]:.3g} x {pixel[1]:.3g} mm"
        yield UnusableFile(Reason.COARSE_SLICES, detail)
