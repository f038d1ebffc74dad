"""Pictures of a head before and after its face was taken away, for a person to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.dicom.deidentify.face_region import HeadGrid

Picture: TypeAlias = NDArray[np.uint8]  # (rows, columns)
_Mask: TypeAlias = NDArray[np.bool_]

#: Pixels that a voxel of the grid becomes in a picture.
_TIMES = 2
#: Lowest part of the head, in mm, of which a plane is shown: orbits and nose as a rule.
_LOW = 25.0


@dataclass(frozen=True, kw_only=True)
class Views:
    """Views of one head: its skin from the front and the side, a sagittal and an axial plane."""

    front: Picture
    side: Picture
    sagittal: Picture
    axial: Picture

    @property
    def strip(self) -> Picture:
        """Return all of them side by side."""
        height = max(len(one) for one in (self.front, self.side, self.sagittal, self.axial))
        parts = [
            np.pad(one, ((0, height - len(one)), (0, 4)))
            for one in (self.front, self.side, self.sagittal, self.axial)
        ]
        return np.concatenate(parts, axis=1).repeat(_TIMES, 0).repeat(_TIMES, 1)


def views_of(grid: HeadGrid, gone: _Mask) -> Views:
    """Return views of a head without the voxels that are gone."""
    head = grid.head & ~gone
    low, high = np.percentile(grid.values, [2, 99.5])
    grey = np.clip((grid.values - low) * (255.0 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)
    grey[gone] = 0
    places = np.argwhere(grid.head)
    middle = int(np.median(places[:, 0]))
    level = min(int(places[:, 2].min() + _LOW / grid.step), grey.shape[2] - 1)
    return Views(
        # Patient's axes are left, back, head: y grows away from who looks at the face.
        front=_upright(_skin(head, axis=1)),
        side=_upright(_skin(head, axis=0)),
        sagittal=_upright(grey[middle]),
        axial=np.ascontiguousarray(grey[:, :, level].T),
    )


def _skin(head: _Mask, axis: int) -> Picture:
    """Return the head's surface seen along an axis, lit from where one looks."""
    depth = np.argmax(head, axis=axis).astype(np.float64)
    seen = head.any(axis=axis)
    depth[~seen] = depth[seen].max() if seen.any() else 0
    slopes = np.gradient(depth)
    light = 1 / np.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
    near = 1 - 0.4 * (depth - depth.min()) / max(float(np.ptp(depth)), 1.0)
    return np.where(seen, 255 * light * near, 0).astype(np.uint8)


def _upright(plane: NDArray[np.uint8]) -> Picture:
    """Return a plane, (across, from feet to head), as pictures go."""
    return np.ascontiguousarray(plane.T[::-1])
