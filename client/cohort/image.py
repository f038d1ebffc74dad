"""One image of a cohort, 2-D or a volume, before any network; and the network's input of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.cohort.image_masks import Canvas
from client.dicom.reading.read import Header
from client.dicom.reading.volume import Geometry
from client.dicom.reasons import Reason, UnusableFile
from client.labels.label_table import dicom_keys
from client.radiomics.measured import MeasuredVolume, image_unit
from client.series.common_grid import ChannelVolume
from common.config.run_config import Images
from common.data.preprocessing import prepare, prepare_phases
from common.data.unfit_image import Fault, UnfitImage

_UNFIT: Mapping[Fault, Reason] = {
    "too large": Reason.TOO_LARGE,
    "not finite": Reason.NOT_FINITE,
    "no geometry": Reason.NO_GEOMETRY,
}


@dataclass(frozen=True, kw_only=True)
class Image:
    """One 2-D frame or one volume, before it is prepared."""

    source: str  # file (2-D) or series (3-D)
    header: Header  # of the object, or of the series' first
    values: NDArray[np.float32]  # (rows, columns[, 3]) or (slices, rows, columns[, 3])
    frame: int  # of the object; 0 for a volume
    geometry: Geometry | None  # of a volume
    first: str  # file of the object, or of the series' first
    instances: frozenset[str]  # SOPInstanceUIDs
    beside: frozenset[str] = frozenset()  # of its other series, or of the slices beside it
    padding: NDArray[np.bool_] | None = None  # as values, without colours; None: there is none
    #: Of a volume, by instance and frame: the slice that it is.
    levels: Mapping[tuple[str, int], int] = field(default_factory=dict)
    #: Other series of its study on its grid, by their place among the run's series; or what was
    #: there at later times, by phase.
    others: Mapping[int, ChannelVolume] = field(default_factory=dict)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Distances along the axes, where they are known: in mm, of a frame perhaps in relation."""
        return self.header.pixel if self.geometry is None else self.geometry.spacing

    def canvas(self, *, alone: bool) -> Canvas:
        """Return what a mask may be drawn on; `alone` says that its row has no other image."""
        return Canvas(
            header=self.header,
            frame=self.frame,
            geometry=self.geometry,
            shape=self.header.shape if self.geometry is None else self.values.shape[:3],
            first=self.first,
            instances=self.instances,
            alone=alone,
            levels=self.levels,
        )

    @property
    def grey(self) -> NDArray[np.float32]:
        """The values, of colours their mean."""
        spatial = 2 if self.geometry is None else 3
        if self.values.ndim == spatial:
            return self.values
        found: NDArray[np.float32] = self.values.mean(axis=-1)
        return found

    def keys(self) -> dict[str, str]:
        """Return the DICOM keys that find this image's row, and where it comes from."""
        return {**dicom_keys(self.header), "source": self.source}


def as_input(image: Image, rules: Images) -> Tensor:
    """Return the network's input, (channels, *size): each series is normalised by itself.

    A series that is absent is zeros.
    """
    if rules.time is not None and rules.time.form != "items":
        later = [image.others[place].values for place in sorted(image.others)]
        return prepare_phases([image.grey, *later], image.spacing, rules, image.padding)
    base = prepare(image.values, image.spacing, rules, image.padding)
    if len(rules.series) < 2:
        return base
    parts = []
    for place in range(len(rules.series)):
        if place == rules.reference:
            parts.append(base)
        elif place in image.others:
            other = image.others[place]
            parts.append(prepare(other.values, image.spacing, rules, other.padding))
        else:
            parts.append(torch.zeros_like(base))
    return torch.cat(parts)


def measured_on(image: Image, *, values: bool = True) -> MeasuredVolume | None:
    """Return a volume as structures are measured on it; None of a frame, which has no volume."""
    if image.geometry is None:
        return None
    colours = image.values.ndim > 3
    return MeasuredVolume(
        steps=image.geometry.affine[:3, :3],
        values=image.values if values and not colours else None,
        padding=image.padding,
        unit=image_unit(image.header.modality, image.header.units),
    )


@contextmanager
def fitting() -> Iterator[None]:
    """Raise UnusableFile where no network's input, or no mask for it, can be made of an image."""
    try:
        yield
    except UnfitImage as error:
        raise UnusableFile(_UNFIT[error.fault], str(error)) from error
