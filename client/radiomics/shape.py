"""Shape of a structure: IBSI's morphological features, and lengths within planes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from client.radiomics.feature import Feature
from client.radiomics.surface_mesh import Float, Mask, edge_points, surface_of

#: Distances are compared for so many points at once.
_CHUNK = 512


def shape_of(mask: Mask, steps: Float) -> dict[Feature, float]:
    """Return the shape of a mask (slices, rows, columns) that is not empty.

    steps: (3, 3), in whose columns are the mm that a step along each axis goes: slices may be
    sheared. What cannot be said is not there: one voxel has no axes.
    """
    within = _box(mask)
    drawn = mask[within]
    voxel = round(abs(float(np.linalg.det(steps))), 9)  # without what multiplying leaves
    return {
        Feature.VOLUME: int(drawn.sum()) * voxel,
        **_of_surface(drawn, steps),
        **_diameters(drawn, steps),
        **_axes(drawn, steps),
        **_pieces(drawn, voxel),
    }


def _box(mask: Mask) -> tuple[slice, ...]:
    """Return the smallest box that holds all of a mask."""
    found = []
    for axis in range(mask.ndim):
        others = tuple(n for n in range(mask.ndim) if n != axis)
        held = np.flatnonzero(mask.any(axis=others))
        found.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(found)


def _of_surface(mask: Mask, steps: Float) -> dict[Feature, float]:
    mesh = surface_of(mask, steps)
    volume, area = mesh.volume, mesh.area
    likeness = 36 * math.pi * volume**2 / area**3
    return {
        Feature.MESH_VOLUME: volume,
        Feature.SURFACE: area,
        Feature.SURFACE_TO_VOLUME: area / volume,
        Feature.COMPACTNESS_1: volume / (math.sqrt(math.pi) * area**1.5),
        Feature.COMPACTNESS_2: likeness,
        Feature.DISPROPORTION: likeness ** (-1 / 3),
        Feature.SPHERICITY: likeness ** (1 / 3),
        Feature.ASPHERICITY: likeness ** (-1 / 3) - 1,
    }


def _diameters(mask: Mask, steps: Float) -> dict[Feature, float]:
    planes = (
        Feature.DIAMETER_IN_SLICE,
        Feature.DIAMETER_ACROSS_ROWS,
        Feature.DIAMETER_ACROSS_COLUMNS,
    )
    return {
        Feature.DIAMETER: _widest(edge_points(mask) @ steps.T),
        **{
            feature: max(_widest(points) for points in _by_plane(mask, steps, axis))
            for axis, feature in enumerate(planes)
        },
    }


def _by_plane(mask: Mask, steps: Float, axis: int) -> Iterator[Float]:
    """Yield the outline's points of each plane across an axis, (n, 2) in mm within the plane."""
    first, second = np.delete(steps, axis, axis=1).T
    # Two directions at right angles, as rows or columns of sheared slices are not.
    along = first / np.linalg.norm(first)
    aside = second - (second @ along) * along
    flat = np.array([[first @ along, second @ along], [0.0, np.linalg.norm(aside)]])
    for plane in np.moveaxis(mask, axis, 0):
        if plane.any():
            yield edge_points(plane) @ flat.T


def _widest(points: Float) -> float:
    """Return the largest distance of any two points, which are corners of their convex hull."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import cdist

    corners = points[ConvexHull(points).vertices]
    return max(
        float(cdist(corners[n : n + _CHUNK], corners[n:]).max())
        for n in range(0, len(corners), _CHUNK)
    )


def _axes(mask: Mask, steps: Float) -> dict[Feature, float]:
    """Return the axes of the ellipsoid that the voxels' centres spread like."""
    centres = np.argwhere(mask) @ steps.T
    if len(centres) < 2:
        return {}
    spread = np.linalg.eigvalsh(np.cov(centres, rowvar=False))
    least, minor, major = (4 * math.sqrt(max(float(one), 0.0)) for one in spread)
    return {
        Feature.MAJOR_AXIS: major,
        Feature.MINOR_AXIS: minor,
        Feature.LEAST_AXIS: least,
        Feature.ELONGATION: minor / major,
        Feature.FLATNESS: least / major,
    }


def _pieces(mask: Mask, voxel: float) -> Mapping[Feature, float]:
    """Return how many pieces there are that do not touch, not even at a corner."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    largest = int(np.bincount(labels.reshape(-1))[1:].max())
    return {Feature.PIECES: float(count), Feature.LARGEST_PIECE: largest * voxel}
