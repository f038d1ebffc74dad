"""NIfTI masks, put onto the grid of their DICOM volume by their affine.

NIfTI's millimetres point right, forward and up (RAS), DICOM's left, back and up (LPS). A grid
whose axes are the volume's in another order or sense is turned; one that lies between the
volume's voxels is refused, unless the site's schema asks to resample it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from client.dicom.masks.lost_structures import check_kept
from client.dicom.masks.mask_remarks import Tell, to_nobody
from client.dicom.masks.nifti_file import NiftiFile, corners, open_nifti
from client.dicom.masks.png import label_map
from client.dicom.masks.seg_segments import Labels, Structures
from client.dicom.reading.volume import Float, Geometry
from client.dicom.reasons import Reason, UnusableFile

#: Of a mask, in bytes: a header may claim any size.
_LARGEST = 4 << 30
#: A mask lies on the grid when each of its corners is nearer than this to a voxel's, in voxels.
_ON_GRID = 0.25
#: What scaling by a number of 32 bits leaves on a whole number at most.
_ROUNDING = 1e-3
#: Part of a resampled mask's voxels that may lie outside the volume.
_AT_BORDER = 0.01

Shape = tuple[int, int, int]  # slices, rows, columns
_Whole = TypeVar("_Whole", np.uint8, np.int32)


def read_nifti(
    path: Path,
    shape: Shape,
    geometry: Geometry,
    structures: Structures,
    *,
    resample: bool,
    tell: Tell = to_nobody,
) -> Labels:
    """Read a mask onto a volume's grid; UnusableFile with MASK_UNUSABLE says why not.

    Where resampling passes over all of a structure, the reason is MASK_LOST; parts of one are told.
    """
    try:
        values, affine, scaled = _read(path)
    except UnusableFile as problem:
        if problem.reason is Reason.TOO_LARGE:
            raise
        _refuse(problem.detail)
    except Exception as error:
        # nibabel raises many kinds on broken files.
        raise UnusableFile(
            Reason.MASK_UNUSABLE, f"{type(error).__name__}: {error}"[:120]
        ) from error
    to_target = np.linalg.inv(geometry.affine) @ affine
    placed = values if resample else _turned(values, to_target, shape)
    try:
        drawn = label_map(placed, structures)
    except UnusableFile as problem:
        raise UnusableFile(problem.reason, problem.detail + scaled) from problem
    if not resample:
        return drawn
    _check_within(values, to_target, shape)
    told = check_kept(
        drawn, structures, lambda parts: _nearest(parts, to_target, shape), "the image's grid"
    )
    if told:
        tell(UnusableFile(Reason.MASK_CUT, told))
    return _nearest(drawn, to_target, shape)


def _read(path: Path) -> tuple[NDArray[np.integer], Float, str]:
    """Return (i, j, k) whole numbers, their affine, index -> mm in the patient (LPS), and scaling.

    The scaling is what is to be said of the header's where values are refused; mostly nothing.
    """
    file = open_nifti(path)
    size = file.size
    if len(size) != 3:
        _refuse(f"{len(size)} dimensions {size}, expected 3")
    if file.kind.kind not in "iuf":
        _refuse(f"values of type {file.kind}, expected whole numbers")
    if np.prod(size, dtype=np.float64) * 8 > _LARGEST:
        raise UnusableFile(Reason.TOO_LARGE, "x".join(map(str, size)))
    values: NDArray[Any] = file.scaled()
    scaled = _scaling(file)
    if values.dtype.kind == "f":
        # A slope of 32 bits, such as 0.1, leaves its rounding on whole numbers.
        largest = _ROUNDING if scaled else 0.0
        finite = np.isfinite(values).all()
        if not finite or np.abs(values - np.rint(values)).max(initial=0) > largest:
            _refuse(f"values between whole numbers{scaled}; save it as a label map")
        values = np.rint(values)
        if np.abs(values).max(initial=0) > 1 << 30:
            _refuse("values beyond any label")
        values = values.astype(np.int32)
    if values.dtype.kind == "i" and values.min(initial=0) < 0:
        _refuse(f"the value {int(values.min())}, which no label has; save it without a sign")
    return values, file.affine(), scaled


def _scaling(file: NiftiFile) -> str:
    """Return what the header makes of stored values; nothing where it leaves them as they are."""
    slope, intercept = file.scaling()
    if (slope, intercept) == (1.0, 0.0):
        return ""
    return f", by its header's scl_slope {slope:g} and scl_inter {intercept:g}"


def _turned(values: NDArray[np.integer], to_target: Float, shape: Shape) -> NDArray[np.integer]:
    """Return the mask on a volume's grid, whose axes it has in another order or sense."""
    steps = np.rint(to_target)
    turn = steps[:3, :3]
    if (np.abs(turn).sum(axis=0) != 1).any() or (np.abs(turn).sum(axis=1) != 1).any():
        _refuse_grid()
    ends = corners(values.shape)
    if np.abs((to_target - steps) @ ends).max() > _ON_GRID:
        _refuse_grid()
    order = [int(np.abs(turn[axis]).argmax()) for axis in range(3)]
    placed = values.transpose(order)
    flipped = tuple(axis for axis in range(3) if turn[axis, order[axis]] < 0)
    placed = np.flip(placed, flipped)
    start = np.rint((to_target @ ends)[:3].min(axis=1)).astype(int)
    return _inside(placed, start, shape)


def _inside(
    values: NDArray[np.integer], start: NDArray[np.int_], shape: Shape
) -> NDArray[np.integer]:
    """Return the mask in the volume's frame; what it outlines must not lie outside."""
    found = np.zeros(shape, values.dtype)
    source, target = [], []
    for first, length, whole in zip(start.tolist(), values.shape, shape, strict=True):
        low, high = max(first, 0), min(first + length, whole)
        if low >= high:
            _refuse("lies outside the volume")
        source.append(slice(low - first, high - first))
        target.append(slice(low, high))
    found[tuple(target)] = values[tuple(source)]
    if np.count_nonzero(found) != np.count_nonzero(values):
        _refuse("outlines something outside the volume")
    return found


def _nearest(values: NDArray[_Whole], to_target: Float, shape: Shape) -> NDArray[_Whole]:
    """Return for each voxel of a volume the mask's nearest value; 0 outside it."""
    back = np.linalg.inv(to_target)
    rows, columns = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    found = np.zeros(shape, values.dtype)
    for level in range(shape[0]):
        place = np.stack(
            [np.full(rows.size, level), rows.reshape(-1), columns.reshape(-1), np.ones(rows.size)]
        )
        index = np.rint((back @ place)[:3]).astype(np.int64)
        held = ((index >= 0) & (index < np.array(values.shape)[:, None])).all(axis=0)
        plane = np.zeros(rows.size, values.dtype)
        plane[held] = values[tuple(index[:, held])]
        found[level] = plane.reshape(rows.shape)
    return found


def _check_within(values: NDArray[np.integer], to_target: Float, shape: Shape) -> None:
    """Refuse a mask of which more than rounding at the border lies outside the volume."""
    drawn = np.argwhere(values)
    place = drawn @ to_target[:3, :3].T + to_target[:3, 3]
    outside = ((place < -1) | (place > np.array(shape))).any(axis=1)
    if outside.sum() > _AT_BORDER * len(drawn):
        _refuse(f"{int(outside.sum())} of its {len(drawn)} voxels lie outside the volume")


def _refuse_grid() -> NoReturn:
    _refuse(
        "mask and image have different grids; draw it on the image, or set `resample: nearest` "
        "for its column in the table's schema"
    )


def _refuse(detail: str) -> NoReturn:
    raise UnusableFile(Reason.MASK_UNUSABLE, detail)
