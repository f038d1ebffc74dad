"""NIfTI volumes as frames: one of each slice, turned to the way in which viewers show it.

Which of the three axes slices follow is asked in this order: the header's own word (dim_info); the
one axis of one voxel; the axis along which voxels are of another length than along the two others,
which are nearer to each other; the last, as converters from DICOM leave it. Frames go along it, so
that a volume that was stored in another order or sense of its axes is the same.

Public: SUFFIXES, nifti_grid, nifti_pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.dicom.codec.compressed import Array
from client.dicom.masks.nifti_file import SUFFIXES, NiftiFile, open_nifti
from client.dicom.reading.rescale import Pixels
from client.dicom.reading.volume import Float, Turn, turn_of
from client.dicom.reasons import Reason, UnusableFile
from client.files.grid import FileGrid

__all__ = ["SUFFIXES", "nifti_grid", "nifti_pixels"]

#: Voxels' sides that differ by less than this part are the same.
_SAME_SIDE = 0.01
#: What single precision leaves of a length.
_DIGITS = 6
#: Spaces of an atlas (NIfTI-1, qform_code): Talairach and MNI; others are the patient's own.
_ATLASES = frozenset({3, 4, 5})


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """How an array becomes frames."""

    order: tuple[int, int, int]  # the array's axes that are slices, rows and columns
    turn: Turn
    affine: Float  # index (slice, row, column) -> mm, as frames lie

    def values(self, array: Array) -> Array:
        """Return (frames, rows, columns) of (i, j, k, times), one time after the other."""
        found = [self.turn.values(one.transpose(self.order)) for one in np.moveaxis(array, 3, 0)]
        return np.concatenate(found)


def nifti_grid(path: Path, *, several: bool = False) -> FileGrid:
    """Return where a volume's slices lie; UnusableFile says why it cannot be used.

    Volumes of `several` times may follow each other along a fourth axis.
    """
    file = _opened(path)
    *_, times = _size(file)
    if times > 1 and not several:
        detail = f"{times} volumes in one file; cohort.images.time says how several are read"
        raise UnusableFile(Reason.MULTI_PHASE, detail)
    frames = _frames(file)
    slices, rows, columns = _turned_shape(file, frames)
    step, down, across = frames.affine[:3, :3].T
    corner = frames.affine[:3, 3]
    height, width = (float(np.linalg.norm(side)) for side in (down, across))
    cosines = (*(across / width).tolist(), *(down / height).tolist())
    places = [corner + number * step for number in range(slices)]
    return FileGrid(
        rows=rows,
        columns=columns,
        frames=slices * times,
        bits=8 * file.kind.itemsize,
        spacing=(_rounded(height), _rounded(width)),
        positions=tuple((float(x), float(y), float(z)) for x, y, z in places) * times,
        orientations=(cosines,) * slices * times,
        times=times,
        space=_space(file),
    )


def nifti_pixels(path: Path) -> Pixels:
    """Return a volume's frames as stored; UnusableFile says why it cannot be used."""
    file = _opened(path)
    frames = _frames(file)
    array = file.stored().reshape(_size(file))
    stored = np.ascontiguousarray(frames.values(_plain(array)))
    lines = [np.full(len(stored), number) for number in file.scaling()]
    return Pixels(stored=stored, slope=lines[0], intercept=lines[1])


def _opened(path: Path) -> NiftiFile:
    """Return a volume of one number a voxel, whose values were not read yet."""
    file = open_nifti(path)
    if file.kind.kind not in "iuf" or file.kind.itemsize > 8:
        detail = f"values of type {file.kind}, expected one number a voxel"
        raise UnusableFile(Reason.DECODE_ERROR, detail)
    _size(file)
    return file


def _size(file: NiftiFile) -> tuple[int, int, int, int]:
    """Return how many voxels lie along i, j and k, and how many times there are."""
    size = (*file.size, 1) if len(file.size) == 3 else file.size
    if len(size) != 4 or min(size) < 1:
        detail = f"{' x '.join(map(str, size))} values, expected two axes to four"
        raise UnusableFile(Reason.DECODE_ERROR, detail)
    return size[0], size[1], size[2], size[3]


def _frames(file: NiftiFile) -> _Frames:
    affine = _affine(file)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    across = _slice_axis(file, sides)
    rows, columns = (axis for axis in (2, 1, 0) if axis != across)
    order = (across, rows, columns)
    stored = affine[:, [*order, 3]]
    turn = turn_of(stored[:3, 1], stored[:3, 2])
    size = _size(file)
    return _Frames(order=order, turn=turn, affine=turn.affine(stored, (size[rows], size[columns])))


def _affine(file: NiftiFile) -> Float:
    """Return index -> mm (LPS), lengths without what single precision added to them."""
    affine = file.affine()
    for axis in range(3):
        length = float(np.linalg.norm(affine[:3, axis]))
        affine[:3, axis] *= _rounded(length) / length
    return affine


def _slice_axis(file: NiftiFile, sides: Float) -> int:
    """Return along which axis of the array slices follow each other; see above."""
    said = file.header.get_dim_info()[2]  # type: ignore[no-untyped-call]
    if said is not None:
        return int(said)
    planes = [axis for axis, count in enumerate(_size(file)[:3]) if count == 1]
    if len(planes) == 1:
        return planes[0]
    apart = [abs(math.log(sides[axis - 1] / sides[axis - 2])) for axis in range(3)]
    nearest, second, _ = sorted(apart)
    return apart.index(nearest) if second - nearest > _SAME_SIDE else 2


def _turned_shape(file: NiftiFile, frames: _Frames) -> tuple[int, int, int]:
    size = _size(file)
    slices, rows, columns = (size[axis] for axis in frames.order)
    return (slices, columns, rows) if frames.turn.transposed else (slices, rows, columns)


def _rounded(length: float) -> float:
    return float(f"{length:.{_DIGITS}g}")


def _space(file: NiftiFile) -> str:
    header = file.header
    code = int(header["sform_code"]) or int(header["qform_code"])
    return f"atlas {code}" if code in _ATLASES else "patient"


def _plain(array: Array) -> Array:
    """Return values of at most 32 bits in the machine's order of bytes."""
    kind = array.dtype
    if kind.itemsize == 8:
        held = np.iinfo(np.int32)
        whole = kind.kind in "iu" and array.size and array.min() >= held.min
        kind = np.dtype(np.int32 if whole and array.max() <= held.max else np.float32)
    return array.astype(kind.newbyteorder("="), copy=False)
