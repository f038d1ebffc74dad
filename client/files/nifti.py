"""NIfTI volumes as frames: one of each slice, turned to the way in which viewers show it.

Which of the three axes slices follow is asked in this order: the header's own word (dim_info); the
axis along which voxels are of another length than along the two others, which are nearer to each
other; the last, as converters from DICOM leave it. Frames go along it, so that a volume that was
stored in another order or sense of its axes is the same.

Public: SUFFIXES, nifti_grid, nifti_pixels.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from client.dicom.codec.compressed import Array
from client.dicom.masks.nifti import SUFFIXES, affine_of
from client.dicom.reading.rescale import Pixels
from client.dicom.reading.volume import Float, Turn, turn_of
from client.dicom.reasons import Reason, UnusableFile
from client.files.grid import FileGrid
from common.platform.errors import CohortError

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

__all__ = ["SUFFIXES", "nifti_grid", "nifti_pixels"]

#: Voxels' sides that differ by less than this part are the same.
_SAME_SIDE = 0.01
#: What single precision leaves of a length.
_DIGITS = 6
#: Spaces of an atlas (NIfTI-1, qform_code): Talairach and MNI; others are the patient's own.
_ATLASES = frozenset({3, 4, 5})
#: Bytes between the header and the values: extensions, which are not read beyond this.
_LARGEST_EXTENSION = 64 << 20
#: Where NIfTI-1 and NIfTI-2 keep the place of the values, and how.
_OFFSETS = {348: (108, "f"), 540: (168, "q")}


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
    image = _opened(path)
    *_, times = _size(image)
    if times > 1 and not several:
        detail = f"{times} volumes in one file; cohort.images.time says how several are read"
        raise UnusableFile(Reason.MULTI_PHASE, detail)
    frames = _frames(image)
    slices, rows, columns = _turned_shape(image, frames)
    step, down, across = frames.affine[:3, :3].T
    corner = frames.affine[:3, 3]
    height, width = (float(np.linalg.norm(side)) for side in (down, across))
    cosines = (*(across / width).tolist(), *(down / height).tolist())
    places = [corner + number * step for number in range(slices)]
    return FileGrid(
        rows=rows,
        columns=columns,
        frames=slices * times,
        bits=8 * _kind(image).itemsize,
        spacing=(_rounded(height), _rounded(width)),
        positions=tuple((float(x), float(y), float(z)) for x, y, z in places) * times,
        orientations=(cosines,) * slices * times,
        times=times,
        space=_space(image),
    )


def nifti_pixels(path: Path) -> Pixels:
    """Return a volume's frames as stored; UnusableFile says why it cannot be used."""
    image = _opened(path)
    frames = _frames(image)
    try:
        array = np.asarray(image.dataobj.get_unscaled()).reshape(_size(image))  # type: ignore[attr-defined]  # nibabel's own, of a file
        slope, intercept = (float(getattr(image.dataobj, name)) for name in ("slope", "inter"))
    except (EOFError, OSError, ValueError, zlib.error) as error:
        # A file that ends too early, or an archive that is damaged.
        raise UnusableFile(Reason.TRUNCATED_PIXELS, type(error).__name__) from error
    stored = np.ascontiguousarray(frames.values(_plain(array)))
    lines = np.full(len(stored), slope), np.full(len(stored), intercept)
    return Pixels(stored=stored, slope=lines[0], intercept=lines[1])


def _opened(path: Path) -> Nifti1Image:
    """Return a volume whose header was read, and its values not yet."""
    try:
        import nibabel
    except ImportError as error:
        message = f"{path.name} is NIfTI, and nibabel is not installed: pip install nibabel"
        raise CohortError(message) from error
    try:
        _check_offset(path)
        image = nibabel.load(path)
    except UnusableFile:
        raise
    except Exception as error:
        # nibabel raises many kinds on broken headers and archives.
        detail = f"no NIfTI: {type(error).__name__}: {error}"[:120]
        raise UnusableFile(Reason.FILE_UNKNOWN, detail) from error
    if not isinstance(image, nibabel.Nifti1Image):  # NIfTI-2 is one, too
        raise UnusableFile(Reason.FILE_UNKNOWN, f"a {type(image).__name__}, expected NIfTI")
    kind = _kind(image)
    if kind.kind not in "iuf" or kind.itemsize > 8:
        detail = f"values of type {kind}, expected one number a voxel"
        raise UnusableFile(Reason.DECODE_ERROR, detail)
    _size(image)
    return image


def _check_offset(path: Path) -> None:
    """Refuse a header that puts its values behind so much else that reading would fill memory."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rb") as file:
        head = file.read(max(_OFFSETS))
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", head.ljust(4, b"\0"))
        if size in _OFFSETS and len(head) >= size:
            place, form = _OFFSETS[size]
            (offset,) = struct.unpack_from(order + form, head, place)
            if not 0 <= offset <= _LARGEST_EXTENSION:
                detail = f"its values begin at byte {offset:g}"
                raise UnusableFile(Reason.TOO_LARGE, detail)


def _kind(image: Nifti1Image) -> np.dtype[np.generic]:
    found: np.dtype[np.generic] = image.get_data_dtype()  # type: ignore[no-untyped-call]
    return found


def _size(image: Nifti1Image) -> tuple[int, int, int, int]:
    """Return how many voxels lie along i, j and k, and how many times there are."""
    size = [int(n) for n in image.shape]
    while len(size) > 4 and size[-1] == 1:
        size.pop()
    size += [1] * (4 - len(size))
    if len(size) > 4 or min(size) < 1:
        detail = f"{' x '.join(map(str, size))} values, expected three axes or four"
        raise UnusableFile(Reason.DECODE_ERROR, detail)
    return size[0], size[1], size[2], size[3]


def _frames(image: Nifti1Image) -> _Frames:
    affine = _affine(image)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    across = _slice_axis(image, sides)
    rows, columns = (axis for axis in (2, 1, 0) if axis != across)
    order = (across, rows, columns)
    stored = affine[:, [*order, 3]]
    turn = turn_of(stored[:3, 1], stored[:3, 2])
    size = _size(image)
    return _Frames(order=order, turn=turn, affine=turn.affine(stored, (size[rows], size[columns])))


def _affine(image: Nifti1Image) -> Float:
    """Return index -> mm (LPS), lengths without what single precision added to them."""
    try:
        affine = affine_of(image)
    except UnusableFile as problem:
        raise UnusableFile(Reason.NO_GEOMETRY, problem.detail) from problem
    for axis in range(3):
        length = float(np.linalg.norm(affine[:3, axis]))
        affine[:3, axis] *= _rounded(length) / length
    return affine


def _slice_axis(image: Nifti1Image, sides: Float) -> int:
    """Return along which axis of the array slices follow each other; see above."""
    said = image.header.get_dim_info()[2]  # type: ignore[no-untyped-call]
    if said is not None:
        return int(said)
    apart = [abs(math.log(sides[axis - 1] / sides[axis - 2])) for axis in range(3)]
    nearest, second, _ = sorted(apart)
    return apart.index(nearest) if second - nearest > _SAME_SIDE else 2


def _turned_shape(image: Nifti1Image, frames: _Frames) -> tuple[int, int, int]:
    size = _size(image)
    slices, rows, columns = (size[axis] for axis in frames.order)
    return (slices, columns, rows) if frames.turn.transposed else (slices, rows, columns)


def _rounded(length: float) -> float:
    return float(f"{length:.{_DIGITS}g}")


def _space(image: Nifti1Image) -> str:
    header = image.header
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
