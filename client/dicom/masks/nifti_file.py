"""A NIfTI file, image or mask: its header, where it lies, and its voxels, read to the file's end.

Nothing of it is believed that readers take differently: a place of the voxels within the header,
more than zeros behind them. An archive is read to its end, where its checksum and length stand.

Public: SUFFIXES, NiftiFile, corners, open_nifti.
"""

from __future__ import annotations

import gzip
import itertools
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from client.dicom.codec.compressed import Array
from client.dicom.reading.volume import Float
from client.dicom.reasons import Reason, UnusableFile
from common.platform.errors import CohortError

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.nifti1 import Nifti1Header

SUFFIXES = (".nii", ".nii.gz")
#: Bytes between header and voxels (extensions), or behind the voxels, of which more is not read.
_MOST_BESIDE = 64 << 20
_CHUNK = 1 << 20
#: sform and qform may place a corner differently by less than this, in voxels.
_ONE_PLACE = 0.25
#: mm of a unit, by its code (xyzt_units, bits 0 to 2): metres and microns; all else is mm.
_UNITS = {1: 1000.0, 3: 0.001}
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class _Form:
    """How a version of NIfTI says that header and voxels are in one file."""

    place: int  # of the magic
    magic: bytes
    offset: tuple[int, str]  # where the header has the place of the voxels, and how
    first: int  # the lowest such place


#: By the size of the header: NIfTI-1 and NIfTI-2.
_FORMS = {
    348: _Form(344, b"n+1\0", (108, "f"), 352),
    540: _Form(4, b"n+2\0\r\n\x1a\n", (168, "q"), 544),
}


@dataclass(frozen=True)
class NiftiFile:
    """A file whose header was read, and its voxels not yet."""

    path: Path
    header: Nifti1Header

    @property
    def kind(self) -> np.dtype[np.generic]:
        """Return the type of a voxel as stored."""
        found: np.dtype[np.generic] = self.header.get_data_dtype()  # type: ignore[no-untyped-call]
        return found

    @property
    def size(self) -> tuple[int, ...]:
        """Return how many voxels lie along three axes or more; a plane is one slice."""
        size = [int(n) for n in self.header.get_data_shape()]  # type: ignore[no-untyped-call]
        while len(size) > 3 and size[-1] == 1:
            size.pop()
        return (*size, 1) if len(size) == 2 else tuple(size)

    def affine(self) -> Float:
        """Return index -> mm in the patient (LPS) of the sform, else the qform.

        NO_GEOMETRY where neither is set, or the two do not say the same.
        """
        header = self.header
        unit = _UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
        forms: tuple[Float | None, ...] = (
            header.get_sform(coded=True)[0],  # type: ignore[no-untyped-call]
            header.get_qform(coded=True)[0],  # type: ignore[no-untyped-call]
        )
        found = [form for form in forms if form is not None]
        if not found:
            raise _unplaced("no orientation: sform and qform are not set")
        if len(found) == 2 and _apart(found[0], found[1], self.size[:3]) > _ONE_PLACE:
            raise _unplaced("sform and qform place it differently; save it anew")
        affine = np.asarray(np.diag([unit, unit, unit, 1.0]) @ found[0], np.float64)
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise _unplaced("its affine is none")
        return _LPS @ affine

    def scaling(self) -> tuple[float, float]:
        """Return slope and intercept that make stored values those that are meant."""
        slope, intercept = self.header.get_slope_inter()  # type: ignore[no-untyped-call]
        return 1.0 if slope is None else float(slope), float(intercept or 0.0)

    def stored(self) -> Array:
        """Return the voxels as stored, (*size); UnusableFile where the file is not whole."""
        return self._read(lambda proxy: np.asarray(proxy.get_unscaled()))  # type: ignore[no-untyped-call]

    def scaled(self) -> Array:
        """Return the voxels as the header scales them, (*size), else as `stored`."""
        return self._read(np.asarray)

    def _read(self, voxels: Callable[[ArrayProxy], Array]) -> Array:
        from nibabel.arrayproxy import ArrayProxy

        header = self.header
        try:
            with _stream(self.path) as stream:
                proxy = ArrayProxy(stream, header)  # type: ignore[no-untyped-call]
                found = voxels(proxy).reshape(self.size)
                stream.seek(int(proxy.offset) + found.size * self.kind.itemsize)
                _check_end(stream)
        except (EOFError, OSError, ValueError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's
            damaged = isinstance(error, gzip.BadGzipFile | zlib.error)
            reason = Reason.DECODE_ERROR if damaged else Reason.TRUNCATED_PIXELS
            # What nibabel says of a file that ends too early names its whole path.
            said = f": {error}" if damaged else ""
            raise UnusableFile(reason, f"{type(error).__name__}{said}"[:120]) from error
        return found


def open_nifti(path: Path) -> NiftiFile:
    """Read a header; UnusableFile with FILE_UNKNOWN, DECODE_ERROR or TOO_LARGE says why not."""
    try:
        import nibabel
    except ImportError as error:
        message = f"{path.name} is NIfTI, and nibabel is not installed: pip install nibabel"
        raise CohortError(message) from error
    try:
        head, size = _head(path)
        kind = nibabel.Nifti1Header if size == min(_FORMS) else nibabel.Nifti2Header
        found = NiftiFile(path, kind(head[:size]))  # type: ignore[no-untyped-call]
        found.scaling()
    except UnusableFile:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's
        # nibabel raises many kinds on broken headers, and gzip on archives.
        detail = f"{type(error).__name__}: {error}"
        raise _unknown(detail) from error
    return found


def corners(shape: tuple[int, ...]) -> Float:
    """Return the corner voxels' indices, (4, 8)."""
    ends = [(0, max(n - 1, 1)) for n in shape]
    return np.array([(*corner, 1) for corner in itertools.product(*ends)], np.float64).T


def _stream(path: Path) -> BinaryIO:
    packed = path.name.lower().endswith(".gz")
    return cast("BinaryIO", gzip.open(path, "rb")) if packed else path.open("rb")


def _head(path: Path) -> tuple[bytes, int]:
    """Return what a file begins with, and how much of it is the header, which is checked."""
    with _stream(path) as stream:
        head = stream.read(max(_FORMS))
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", head.ljust(4, b"\0"))
        if size in _FORMS and len(head) >= size:
            _check_form(head, _FORMS[size], order)
            return head, size
    raise _unknown("no header")


def _check_form(head: bytes, form: _Form, order: str) -> None:
    """Refuse voxels in another file, within the header, or far behind it."""
    if head[form.place : form.place + len(form.magic)] != form.magic:
        raise _unknown("its header is not that of voxels in the same file")
    place, kind = form.offset
    (offset,) = struct.unpack_from(order + kind, head, place)
    if not offset >= form.first or offset % 1:  # nor what is no number
        detail = f"vox_offset {offset:g}, expected at least {form.first}, behind the header"
        raise UnusableFile(Reason.DECODE_ERROR, f"{detail}; save it anew")
    if offset > form.first + _MOST_BESIDE:
        raise UnusableFile(Reason.TOO_LARGE, f"its values begin at byte {offset:g}")


def _check_end(stream: BinaryIO) -> None:
    """Read to the end, where an archive is checked; behind the voxels may be a few zeros."""
    behind = 0
    while chunk := stream.read(_CHUNK):
        behind += len(chunk)
        if behind > _MOST_BESIDE:
            raise UnusableFile(Reason.TOO_LARGE, f"over {_MOST_BESIDE} bytes behind its voxels")
        if any(chunk):
            detail = "more data behind the voxels that its header tells of; save it anew"
            raise UnusableFile(Reason.DECODE_ERROR, detail)


def _apart(one: Float, other: Float, shape: tuple[int, ...]) -> float:
    """Return how far two affines place a grid's corners from each other, in its voxels."""
    difference = (one - other) @ corners(shape)
    size = np.linalg.norm(one[:3, :3], axis=0).min()
    return float(np.linalg.norm(difference[:3], axis=0).max() / max(size, 1e-9))


def _unknown(detail: str) -> UnusableFile:
    return UnusableFile(Reason.FILE_UNKNOWN, f"no NIfTI: {detail}"[:120])


def _unplaced(detail: str) -> UnusableFile:
    return UnusableFile(Reason.NO_GEOMETRY, detail)
