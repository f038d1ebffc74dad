"""Where the face is in a volume of the head, without an atlas or a trained model.

The brain is estimated from the volume itself, and what lies in front of it and below it is the
face: the region beyond a plane at a margin from the brain, for each direction between forwards
and downwards (as one plane in N. Schimke and J. Hale, "Quickshear Defacing for Neuroimages",
USENIX HealthSec 2011). The estimate: tissue deeper than the scalp, eroded until what hangs on the
brain by orbits, skull base and neck falls off, the largest piece of it grown again.

Not guaranteed: that the estimate is right. It is checked for a brain's size, for its distance from
the skin and for what more erosion would change, and refused where that does not fit; ears, the
shape of the skull and the face's sides behind the planes stay. A person has to look.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.dicom.deidentify.deidentify import Withheld

Float: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

_STEP = 3.0  # mm, of the grid on which the brain is looked for
#: Voxels beyond the grid's edges, where the head is taken to go on.
_BEYOND = 10
#: Degrees below straight forwards of the directions in which the face lies from the brain: nearly
#: all between forwards and downwards, so that it is gone from a head that nods as well.
_DEGREES = range(5, 80, 5)
_DIRECTIONS = np.radians(_DEGREES)
_MIDDLE = _DEGREES.index(45)
#: From the estimated brain to the planes, mm: the brain lies at least 8 mm below the skin that is
#: seen, and by so much the estimate is too small where fat suppression takes the scalp away.
_MARGIN = 10.0
_SCALP = 8.0
#: How much is eroded, mm: tried in turn until the estimate is a brain's.
_EROSIONS = (10.0, 12.0, 14.0, 16.0, 18.0)
#: More erosion by 2 mm moves a brain's edge by less, mm.
_STEADY = 5.0
#: Volume of a brain, ml; adults have 1,000 to 1,700, thin stacks show a part of it.
_LEAST_BRAIN, _MOST_BRAIN = 550.0, 1900.0
#: From the brain to the foremost and lowest point of the head, mm, in the middle direction.
_LEAST_FACE = 28.0
#: From the skin to the brain's foremost and lowest part, mm.
_LEAST_DEPTH = 13.0
#: A brain ends so far below the top of the head, mm.
_BRAIN_HEIGHT = 150.0
#: Widths (left to right, front to back) that a head has, mm.
_WIDTHS = ((100.0, 250.0), (125.0, 290.0))
#: A part of the usual value of brain, above which an MR shows tissue and not bone, air or CSF.
_TISSUE = 0.55
#: Hounsfield units: skin against air, and brain against air and bone.
_SKIN_HU, _BRAIN_HU = -300.0, (-10.0, 110.0)


@dataclass(frozen=True, kw_only=True)
class HeadVolume:
    """A volume and where it lies."""

    values: NDArray[np.float32]  # (slice, row, column): HU of a CT, any unit of an MR
    affine: Float  # (4, 4): index (slice, row, column) -> mm in the patient (LPS)
    hounsfield: bool


@dataclass(frozen=True, kw_only=True)
class HeadGrid:
    """A volume on equal steps along the patient's axes: to the left, the back and the head."""

    values: NDArray[np.float32]  # (x, y, z)
    corner: Float  # (3,), of the first voxel, mm
    step: float  # mm
    head: Mask  # (x, y, z)

    def places(self, mask: Mask) -> Float:
        """Return where a mask's voxels lie, (voxels, 3) in mm."""
        return np.argwhere(mask) * self.step + self.corner


@dataclass(frozen=True, kw_only=True)
class FaceRegion:
    """What lies beyond any of some planes that face forwards and downwards."""

    normals: Float  # (planes, 3), in the patient
    offsets: Float  # (planes,), mm

    def holds(self, corner: Sequence[float], steps: Sequence[Float], shape: Sequence[int]) -> Mask:
        """Return which points of a lattice lie in it: corner + the sum of index times step."""
        found = np.zeros(tuple(shape), bool)
        for normal, offset in zip(self.normals, self.offsets, strict=True):
            level = np.array(float(np.dot(normal, corner)))
            for step, count in zip(steps, shape, strict=True):
                level = level[..., None] + np.arange(count) * float(np.dot(normal, step))
            found |= level > offset
        return found

    def on(self, grid: HeadGrid) -> Mask:
        """Return which voxels of a grid lie in it."""
        axes = [grid.step * axis for axis in np.eye(3)]
        return self.holds(grid.corner.tolist(), axes, grid.values.shape)


def grid_of(volume: HeadVolume) -> HeadGrid:
    """Return a volume on the grid, with the head in it."""
    from scipy import ndimage

    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    values = ndimage.gaussian_filter(volume.values, np.maximum(0, (_STEP / spacing - 1) / 2))
    ends = [(0, count - 1) for count in values.shape]
    corners = np.array([(i, j, k) for i in ends[0] for j in ends[1] for k in ends[2]], float)
    placed = corners @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    first, last = placed.min(axis=0), placed.max(axis=0)
    inverse = np.linalg.inv(volume.affine)
    sampled = ndimage.affine_transform(
        values,
        inverse[:3, :3] * _STEP,
        inverse[:3, :3] @ first + inverse[:3, 3],
        tuple(int(n) for n in np.ceil((last - first) / _STEP) + 1),
        order=1,
        cval=float(values.min()),
    )
    head = _head(sampled, hounsfield=volume.hounsfield)
    return HeadGrid(values=sampled, corner=first, step=_STEP, head=head)


def face_region(grid: HeadGrid, *, hounsfield: bool) -> FaceRegion:
    """Return where the face is; Withheld says why that is not known."""
    normals = np.stack([np.zeros_like(_DIRECTIONS), -np.cos(_DIRECTIONS), -np.sin(_DIRECTIONS)], 1)
    face = float((grid.places(grid.head) @ normals[_MIDDLE]).max())
    why = "no brain is found in it"
    before: _Brain | None = None
    for brain in _brains(grid, normals, hounsfield=hounsfield):
        if before is not None:
            fault = _fault(before, brain, face)
            if not fault:
                return FaceRegion(normals=normals, offsets=before.reach + _MARGIN)
            why = fault
        before = brain
    message = (
        f"Face and brain are not told apart: {why}. Look at it; where it shows no face, release "
        "it without --deface."
    )
    raise Withheld(message)


@dataclass(frozen=True, kw_only=True)
class _Brain:
    """An estimate."""

    volume: float  # ml
    reach: Float  # how far it goes in each direction, mm
    depth: float  # of its foremost and lowest part below the skin, mm


def _fault(brain: _Brain, eroded: _Brain, face: float) -> str:
    """Return why an estimate is no brain's, given the next one, which is more eroded."""
    if not _LEAST_BRAIN <= brain.volume <= _MOST_BRAIN:
        return (
            f"what seems to be brain has {brain.volume:.0f} ml, expected {_LEAST_BRAIN:.0f} to "
            f"{_MOST_BRAIN:.0f}"
        )
    if (shown := face - brain.reach[_MIDDLE]) < _LEAST_FACE:
        return (
            f"the head goes on for {shown:.0f} mm in front of and below the brain, expected "
            f"{_LEAST_FACE:.0f}, as if skull or face were gone already or not in the picture"
        )
    if brain.depth < _LEAST_DEPTH:
        return f"what seems to be brain lies {brain.depth:.0f} mm below the skin of the face"
    if float((brain.reach - eroded.reach).max()) > _STEADY:
        return "the brain's edge towards the face is not sharp"
    return ""


def _brains(grid: HeadGrid, normals: Float, *, hounsfield: bool) -> Iterator[_Brain]:
    """Yield estimates of the brain, each of more erosion than the last."""
    tissue, depth = _tissue(grid, hounsfield=hounsfield)
    inside = _depth(tissue, grid.step)
    for erosion in _EROSIONS:
        core = _largest(inside > erosion)
        if not core.any():
            return
        brain = _depth(~core, grid.step, beyond=True) <= erosion + grid.step / 2
        along = grid.places(brain) @ normals.T
        foremost = along[:, _MIDDLE] > along[:, _MIDDLE].max() - 2 * grid.step
        yield _Brain(
            volume=float(brain.sum()) * grid.step**3 / 1000,
            reach=along.max(axis=0),
            depth=float(np.median(depth[brain][foremost])),
        )


def _tissue(grid: HeadGrid, *, hounsfield: bool) -> tuple[Mask, Float]:
    """Return what may be brain, and each voxel's depth below the skin in mm."""
    depth = _depth(grid.head, grid.step)
    places = grid.places(grid.head)
    top = float(np.percentile(places[:, 2], 99.8))
    heights = grid.corner[2] + np.arange(grid.values.shape[2]) * grid.step
    may_be = (depth > _SCALP) & (heights > top - _BRAIN_HEIGHT)
    if hounsfield:
        low, high = _BRAIN_HU
        return may_be & (grid.values > low) & (grid.values < high), depth
    middle = places[places[:, 2] > top - 130].mean(axis=0)
    near = np.linalg.norm(places - middle, axis=1) < 40
    usual = float(np.median(grid.values[grid.head][near])) if near.any() else np.inf
    return may_be & (grid.values > _TISSUE * usual), depth


def _head(values: NDArray[np.float32], *, hounsfield: bool) -> Mask:
    """Return the head: the largest piece that is no air, with what it encloses."""
    from scipy import ndimage

    low, high = np.percentile(values, [2, 98])
    skin = _SKIN_HU if hounsfield else low + 0.1 * (high - low)
    head = _largest(ndimage.binary_opening(values > skin))
    head = ndimage.binary_closing(np.pad(head, 5), iterations=3)[5:-5, 5:-5, 5:-5]
    for axis in range(3):
        planes = np.moveaxis(head, axis, 0)
        for number in range(len(planes)):
            planes[number] |= ndimage.binary_fill_holes(planes[number])
    return np.asarray(head)


def _largest(mask: Mask) -> Mask:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _depth(mask: Mask, step: float, *, beyond: bool = False) -> Float:
    """Return the distance to what is not in a mask, mm; at the grid's edges it goes on.

    `beyond`: past the edges lies the mask, not what stands at them.
    """
    from scipy import ndimage

    if beyond:
        return np.asarray(ndimage.distance_transform_edt(mask, sampling=step))
    padded = np.pad(mask, _BEYOND, mode="edge")
    found = np.asarray(ndimage.distance_transform_edt(padded, sampling=step))
    inner = slice(_BEYOND, -_BEYOND)
    return found[inner, inner, inner]


def check_head(grid: HeadGrid) -> None:
    """Refuse a volume that is no head, by its size."""
    places = grid.places(grid.head)
    if not len(places):
        message = "Nothing stands out from its background, so there is no head to find a face in."
        raise Withheld(message)
    upper = places[places[:, 2] > places[:, 2].max() - _BRAIN_HEIGHT]
    for (least, most), wide, name in zip(
        _WIDTHS, np.ptp(upper, axis=0)[:2], ("left to right", "front to back"), strict=True
    ):
        if not least <= wide <= most:
            message = (
                f"It is no head, so no face is taken away: {wide:.0f} mm from {name}, expected "
                f"{least:.0f} to {most:.0f}. Release what shows no face without --deface."
            )
            raise Withheld(message)
