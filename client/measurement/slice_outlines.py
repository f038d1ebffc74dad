"""Where a report shows a measured structure: on the slice that shows most of it, as it was sent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from client.cohort.decode import Object
from client.cohort.image import Image
from client.dicom.reading.read import Header
from client.radiomics.outline import Points, SliceOutline, outline_of
from client.radiomics.surface_mesh import Mask


def slice_outlines(
    drawn: Mapping[str, Mask], image: Image, objects: Sequence[Object]
) -> dict[str, SliceOutline]:
    """Return the outline of each structure that is drawn on a volume of these objects."""
    return dict(_outlines(drawn, image, {one.header.instance: one.header for one in objects}))


def _outlines(
    drawn: Mapping[str, Mask], image: Image, headers: Mapping[str, Header]
) -> Iterator[tuple[str, SliceOutline]]:
    places = {level: place for place, level in image.levels.items()}
    for name, mask in drawn.items():
        level = int(np.count_nonzero(mask, axis=(1, 2)).argmax())
        if mask[level].any() and level in places:
            instance, frame = places[level]
            header = headers[instance]
            points = _as_sent(outline_of(mask[level]), level, image, header, frame)
            area = float(np.count_nonzero(mask[level])) * math.prod(header.spacing or ())
            yield name, SliceOutline(instance=instance, frame=frame, points=points, area=area)


def _as_sent(points: Points, level: int, image: Image, header: Header, frame: int) -> Points:
    """Return points of a volume's slice on the plane as it was sent: volumes are turned."""
    assert image.geometry is not None and header.spacing is not None  # noqa: S101, PT018  # a volume
    columns, rows = (points - 0.5).T  # a corner of a pixel -> its centre's index
    levels = np.full_like(rows, level)
    voxels = np.stack([levels, rows, columns, np.ones_like(rows)])
    places = (image.geometry.affine @ voxels)[:3].T - np.array(header.positions[frame])
    cosines = np.array(header.orientations[frame])
    row, column = places @ cosines[3:] / header.spacing[0], places @ cosines[:3] / header.spacing[1]
    return np.stack([column, row], axis=1) + 0.5
