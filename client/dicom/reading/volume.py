"""Stacking of slices to a volume; each way in which they may not fit has its own reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from client.dicom.codec.compressed import Array
from client.dicom.reading.padding import Padding
from client.dicom.reading.phases import check_one_kind
from client.dicom.reading.read import Cosines, Header
from client.dicom.reading.rescale import Pixels
from client.dicom.reasons import Reason, UnusableFile

Float = NDArray[np.float64]

#: Cosines that differ by less are the same orientation; scanners round to 1e-4 or so.
_SAME_DIRECTION = 1e-3
#: Distances and pixel spacings that differ by less than this part are the same.
_SAME_DISTANCE = 0.1
_SAME_SPACING = 0.01

#: By the patient's axis that slices follow (x left, y back, z head): the axis and sense that
#: rows and columns follow where a viewer shows them, so that every site's volumes lie alike.
_SHOWN = {0: ((2, -1), (1, 1)), 1: ((2, -1), (0, 1)), 2: ((1, 1), (0, 1))}


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where a volume lies; index (slice, row, column) -> mm in the patient (LPS)."""

    affine: Float  # (4, 4)
    spacing: tuple[float, float, float]  # slice, row, column distance in mm


@dataclass(frozen=True, kw_only=True)
class Turn:
    """How rows and columns are brought to the way in which viewers show them."""

    transposed: bool
    flipped: tuple[int, ...]  # axes, 1 rows and 2 columns, after transposing

    def values(self, volume: Array) -> Array:
        """Turn (slices, rows, columns[, 3])."""
        return np.flip(volume.swapaxes(1, 2) if self.transposed else volume, self.flipped)

    def affine(self, affine: Float, shape: tuple[int, int]) -> Float:
        """Return the affine of the turned volume; shape is rows and columns before."""
        turned = affine[:, [0, 2, 1, 3]] if self.transposed else affine.copy()
        rows_columns = shape[::-1] if self.transposed else shape
        for axis in self.flipped:
            turned[:, 3] += turned[:, axis] * (rows_columns[axis - 1] - 1)
            turned[:, axis] *= -1
        return turned


def turn_of(along_rows: Float, along_columns: Float) -> Turn:
    """Return how to turn a plane; the vectors are the steps of the row and column index."""
    normal = np.cross(along_rows, along_columns)
    rows, columns = _SHOWN[int(np.abs(normal).argmax())]
    transposed = bool(abs(along_rows[rows[0]]) < abs(along_columns[rows[0]]))
    first, second = (along_columns, along_rows) if transposed else (along_rows, along_columns)
    flipped = tuple(
        axis
        for axis, (vector, (patient_axis, sense)) in enumerate(
            ((first, rows), (second, columns)), 1
        )
        if vector[patient_axis] * sense < 0
    )
    return Turn(transposed=transposed, flipped=flipped)


def plane_affine(
    step: Float, cosines: Cosines, spacing: tuple[float, float], corner: Float
) -> Float:
    """Return index (slice, row, column) -> mm (PS3.3 C.7.6.2.1.1)."""
    affine = np.eye(4)
    # The row index runs along the second cosine, the column index along the first.
    affine[:3, 0] = step
    affine[:3, 1] = np.array(cosines[3:]) * spacing[0]
    affine[:3, 2] = np.array(cosines[:3]) * spacing[1]
    affine[:3, 3] = corner
    return affine


def stack_slices(parts: Sequence[tuple[Header, Pixels]]) -> tuple[Pixels, Geometry]:
    """Return a series' slices as one volume; UnusableFile says why they are none.

    A gantry tilt stays in the affine: its slice axis is where the slices are.
    """
    slices = [(part, frame) for part, (h, _) in enumerate(parts) for frame in range(h.frames)]
    order, scanned = order_slices([(parts[part][0], frame) for part, frame in slices])
    chosen = [slices[i] for i in order]
    if len({part.stored.shape[1:] for _, part in parts}) > 1:
        raise UnusableFile(Reason.MIXED_MATRIX, "grey and colour")
    if len({header.rescaled for header, _ in parts}) > 1:
        # Stacked, the others would be in other units than these.
        raise UnusableFile(Reason.MISSING_HEADER, "some slices have a rescale, others have none")
    turn = turn_of(scanned.affine[:3, 1], scanned.affine[:3, 2])
    stored = np.stack([parts[part][1].stored[frame] for part, frame in chosen])
    pixels = Pixels(
        stored=turn.values(stored),
        slope=np.array([parts[part][1].slope[frame] for part, frame in chosen]),
        intercept=np.array([parts[part][1].intercept[frame] for part, frame in chosen]),
        padding=_padding([(parts[part][1], frame) for part, frame in chosen]),
    )
    gap, rows, columns = scanned.spacing
    return pixels, Geometry(
        affine=turn.affine(scanned.affine, parts[0][0].shape),
        spacing=(gap, columns, rows) if turn.transposed else (gap, rows, columns),
    )


def levels_of(headers: Sequence[Header], geometry: Geometry) -> dict[tuple[str, int], int]:
    """Return which slice of a stacked volume each frame of an instance is.

    NO_GEOMETRY where distances are too small or too large for a place to be told from them.
    """
    found = {
        (header.instance, frame): [*position, 1.0]
        for header in headers
        for frame, position in enumerate(header.positions)
    }
    try:
        levels = np.array(list(found.values())) @ np.linalg.inv(geometry.affine)[0]
    except np.linalg.LinAlgError as error:
        raise UnusableFile(Reason.NO_GEOMETRY, "no distance between slices or pixels") from error
    if not np.isfinite(levels).all():
        raise UnusableFile(Reason.NO_GEOMETRY, "distances beyond any volume")
    return {place: round(float(level)) for place, level in zip(found, levels, strict=True)}


def _padding(chosen: Sequence[tuple[Pixels, int]]) -> tuple[Padding | None, ...]:
    found = [part.padding[frame] if part.padding else None for part, frame in chosen]
    return tuple(found) if any(found) else ()


def order_slices(slices: Sequence[tuple[Header, int]]) -> tuple[list[int], Geometry]:
    """Return the order of (header, frame) along the normal, and where the slices lie as scanned."""
    _check_alike([header for header, _ in slices])
    header = slices[0][0]
    cosines = np.array([h.orientations[frame] for h, frame in slices])
    if np.abs(cosines - cosines[0]).max() > _SAME_DIRECTION:
        raise UnusableFile(Reason.MIXED_ORIENTATION)
    normal = _normal(cosines[0])
    positions = np.array([h.positions[frame] for h, frame in slices])
    level = positions @ normal
    order = [int(i) for i in np.argsort(level, kind="stable")]
    gap = _usual_gap(level[order])
    check_one_kind([header for header, _ in slices])
    _check_numbers([slices[i][0] for i in order], gap)
    step = (positions[order[-1]] - positions[order[0]]) / (len(order) - 1)
    spacing = header.spacing or (1.0, 1.0)
    line = positions[order[0]] + np.arange(len(order))[:, None] * step
    aside = positions[order] - line
    aside -= (aside @ normal)[:, None] * normal
    if np.linalg.norm(aside, axis=1).max() > max(spacing):
        raise UnusableFile(Reason.NONUNIFORM_SPACING, "slices do not follow one line")
    affine = plane_affine(step, header.orientations[0], spacing, positions[order[0]])
    return order, Geometry(affine=affine, spacing=(gap, *spacing))


def _check_alike(headers: Sequence[Header]) -> None:
    for header in headers:
        if not header.positions or header.spacing is None or min(header.spacing) <= 0:
            raise UnusableFile(Reason.NO_GEOMETRY)
    if len(headers) < 2:
        raise UnusableFile(Reason.TOO_FEW_SLICES, f"{len(headers)} slice")
    if len({header.shape for header in headers}) > 1:
        raise UnusableFile(Reason.MIXED_MATRIX, "rows x columns differ")
    distances = np.array([header.spacing for header in headers])
    if np.abs(distances / distances[0] - 1).max() > _SAME_SPACING:
        raise UnusableFile(Reason.MIXED_MATRIX, "pixel spacing differs")
    _check_one_series(headers)


def _check_one_series(headers: Sequence[Header]) -> None:
    """Refuse slices that share a series' UID by mistake (PS3.3 A.1.2, C.7.4.1).

    A series is of one study, one modality and one frame of reference; positions in two frames
    have nothing to do with each other, however well they seem to fit.
    """
    for name, found in (
        ("StudyInstanceUID", {header.study for header in headers}),
        ("Modality", {header.modality for header in headers}),
        ("FrameOfReferenceUID", {header.frame_of_reference for header in headers}),
    ):
        if len(found - {""}) > 1:
            raise UnusableFile(Reason.MIXED_SERIES, f"{name} differs")


def _normal(cosines: Float) -> Float:
    """Return the slices' normal towards left, back or head, whichever is nearest."""
    first, second = cosines[:3], cosines[3:]
    lengths = [float(np.linalg.norm(first)), float(np.linalg.norm(second))]
    if max(abs(length - 1) for length in lengths) > 0.01 or abs(float(first @ second)) > 0.01:
        raise UnusableFile(Reason.NO_GEOMETRY, "orientation is not two perpendicular directions")
    normal = np.asarray(np.cross(first, second), np.float64)
    return normal if normal[np.abs(normal).argmax()] > 0 else -normal


def _check_numbers(headers: Sequence[Header], gap: float) -> None:
    """Refuse every n-th slice of a series, which lie as evenly as all of them would.

    Their numbers go by n, and n of their thickness fill the distance.
    """
    steps = {abs(one.number - other.number) for one, other in pairwise(headers)}
    thick = {header.thickness for header in headers}
    if len(steps) != 1 or len(thick) != 1:
        return
    (step,), (thickness,) = steps, thick
    if step < 2 or not thickness or thickness <= 0:
        return
    if abs(gap / (step * thickness) - 1) < _SAME_DISTANCE:
        detail = f"numbers go by {step}, slices of {thickness:g} mm lie {gap:.2f} mm apart"
        raise UnusableFile(Reason.MISSING_SLICES, detail)


def _usual_gap(level: Float) -> float:
    """Return the distance between neighbours, or raise when it is not one distance."""
    gaps = np.diff(level)
    real = gaps[gaps > 1e-3]  # mm
    if not len(real):
        raise UnusableFile(Reason.DUP_POSITION, "all slices lie at one position")
    usual = float(np.median(real))
    same = gaps <= _SAME_DISTANCE * usual
    if same.any():
        counts = set(Counter(np.concatenate([[0], np.cumsum(~same)]).tolist()).values())
        reason = Reason.MULTI_PHASE if len(counts) == 1 else Reason.DUP_POSITION
        raise UnusableFile(reason, f"{int(same.sum())} of {len(level)} slices lie on another")
    if np.abs(gaps / usual - 1).max() > _SAME_DISTANCE:
        steps = gaps / gaps.min()
        missing = np.abs(steps - steps.round()).max() < _SAME_DISTANCE
        raise UnusableFile(
            Reason.MISSING_SLICES if missing else Reason.NONUNIFORM_SPACING,
            f"gaps of {gaps.min():.2f} to {gaps.max():.2f} mm",
        )
    return usual
