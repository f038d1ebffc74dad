"""Levels of a whole slide (DICOM VL Whole Slide Microscopy, PS3.3 A.32.8), by their headers.

    TILED_FULL             frame n lies where arithmetic says (PS3.3 C.7.6.17.3); the first optical
                           path and focal plane are taken
    TILED_SPARSE           where its plane position says (C.8.12.14); the same are taken
    a concatenation        its parts are one level (C.7.6.16.2.2.4)
    pixels without a size  NO_MAGNIFICATION; it is never guessed from an objective's power

Public: SlideLevel, LevelPart, Sized, LARGEST_MATRIX, levels_of, level_for, coarsest_up_to.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from client.dicom.codec.compressed import Format
from client.dicom.codec.decode import format_of
from client.dicom.reading.never_decoded import check_pictured
from client.dicom.reading.parse import BoundedFile, parse_file
from client.dicom.reasons import Reason, UnusableFile

_MICRONS = 1e3
#: A level may be coarser than what is wanted by this part, and is enlarged then.
_COARSER = 1.05
#: Pixels of a level's matrix; the largest scanners make some 2^36.
LARGEST_MATRIX = 1 << 40


class Sized(Protocol):
    """A level, whichever format it is in."""

    @property
    def microns(self) -> float | None:
        """Side of a pixel; None where it is not said."""


_Level = TypeVar("_Level", bound=Sized)


@dataclass(frozen=True, kw_only=True)
class LevelPart:
    """A file of a level, and which of the level's frames it holds."""

    path: Path
    first: int  # of the level's frames
    frames: int
    pixels: int  # where its pixel data element begins, bytes
    offsets: tuple[int, ...]  # of an extended offset table; empty without
    header: Dataset  # without pixels


@dataclass(frozen=True, kw_only=True)
class SlideLevel:
    """One resolution of a slide."""

    parts: tuple[LevelPart, ...]
    microns: float | None  # of a pixel's side; None where it is not said
    rows: int  # of the whole matrix
    columns: int
    form: Format  # of one frame
    syntax: str  # Transfer Syntax UID
    frame: NDArray[np.int64]  # (tiles,) number of each frame that is taken
    top: NDArray[np.int64]  # (tiles,) its first row in the matrix
    left: NDArray[np.int64]  # (tiles,) its first column

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is in."""
        return tuple(part.path for part in self.parts)


def levels_of(paths: Iterable[Path]) -> tuple[SlideLevel, ...]:
    """Return a slide's levels, finest first; UnusableFile where a file of it cannot be read."""
    parts: dict[str, list[tuple[Path, Dataset, int]]] = defaultdict(list)
    known: dict[str, Path] = {}
    for path in sorted(paths):
        header, pixels = _header(path)
        own = str(header.get("SOPInstanceUID") or path)
        if own in known:
            if path.stat().st_size != known[own].stat().st_size:
                raise UnusableFile(Reason.DUP_SOP_DIFFERENT, f"{path.name} and {known[own].name}")
            continue
        known[own] = path
        whole = str(header.get("ConcatenationUID") or own)
        parts[whole].append((path, header, pixels))
    found = [_level(files) for files in parts.values()]
    # One of each size: another optical path or focal plane may be an object of its own.
    found.sort(key=lambda one: (one.microns or math.inf, -one.rows, _number(one)))
    sizes: dict[tuple[float | None, int, int], SlideLevel] = {}
    for one in found:
        sizes.setdefault((one.microns, one.rows, one.columns), one)
    return tuple(sizes.values())


def level_for(levels: Sequence[_Level], microns: float) -> _Level:
    """Return the coarsest level whose pixels are at most so large, or a twentieth more.

    UnusableFile with NO_MAGNIFICATION where none says its size, or all are coarser.
    """
    known = [one for one in levels if one.microns is not None]
    if not known:
        raise UnusableFile(Reason.NO_MAGNIFICATION, "no level says how large its pixels are")
    fine = [one for one in known if (one.microns or 0) <= microns * _COARSER]
    if not fine:
        finest = min(one.microns or 0 for one in known)
        detail = f"its finest level is at {finest:.3g} microns a pixel, the run wants {microns:g}"
        raise UnusableFile(Reason.NO_MAGNIFICATION, detail)
    return max(fine, key=lambda one: one.microns or 0)


def coarsest_up_to(levels: Sequence[_Level], microns: float) -> _Level:
    """Return the coarsest level up to a size of pixels, else the coarsest of all."""
    known = [one for one in levels if one.microns is not None]
    fitting = [one for one in known if (one.microns or 0) <= microns * _COARSER]
    return max(fitting or known, key=lambda one: one.microns or 0)


def _header(path: Path) -> tuple[Dataset, int]:
    try:
        with BoundedFile(path) as file:
            header = parse_file(file, path, pixels=False)
            pixels = file.tell()
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, type(error).__name__) from error
    check_pictured(header)  # a label may show a name: no frame of one is ever asked for
    return header, pixels


def _level(files: Sequence[tuple[Path, Dataset, int]]) -> SlideLevel:
    ordered = sorted(files, key=lambda one: int(one[1].get("ConcatenationFrameOffsetNumber") or 0))
    first = ordered[0][1]
    parts = tuple(_part(*one) for one in ordered)
    _check_whole(first, parts)
    rows, columns = (
        _whole_number(first, f"TotalPixelMatrix{side}") for side in ("Rows", "Columns")
    )
    if not 0 < rows * columns <= LARGEST_MATRIX:
        raise UnusableFile(Reason.MISSING_HEADER, f"a matrix of {rows} x {columns} pixels")
    form = format_of(first)
    if form.allocated != 8 or form.samples not in {1, 3} or min(form.rows, form.columns) < 1:
        detail = f"frames of {form.samples} x {form.allocated} bits"
        raise UnusableFile(Reason.DECODE_ERROR, detail)
    frame, top, left = _places(first, parts, form, rows, columns)
    return SlideLevel(
        parts=parts,
        microns=_microns(first),
        rows=rows,
        columns=columns,
        form=form,
        syntax=str(first.file_meta.TransferSyntaxUID),
        frame=frame,
        top=top,
        left=left,
    )


def _part(path: Path, header: Dataset, pixels: int) -> LevelPart:
    table = header.get("ExtendedOffsetTable")
    return LevelPart(
        path=path,
        first=int(header.get("ConcatenationFrameOffsetNumber") or 0),
        frames=int(header.get("NumberOfFrames") or 1),
        pixels=pixels,
        offsets=() if not table else tuple(np.frombuffer(table, "<u8").tolist()),
        header=header,
    )


def _check_whole(first: Dataset, parts: Sequence[LevelPart]) -> None:
    """Refuse a concatenation of which a part is missing, or there twice."""
    wanted, place = int(first.get("InConcatenationTotalNumber") or len(parts)), 0
    for part in parts:
        if part.first != place:
            wanted = max(wanted, len(parts) + 1)
            break
        place += part.frames
    if wanted != len(parts):
        detail = f"{len(parts)} parts of a concatenation of {wanted} or in no order"
        raise UnusableFile(Reason.INCOMPLETE_SERIES, detail)


def _whole_number(header: Dataset, keyword: str) -> int:
    value = header.get(keyword)
    if value is None:
        raise UnusableFile(Reason.MISSING_HEADER, keyword)
    return int(value)


def _number(level: SlideLevel) -> int:
    return int(level.parts[0].header.get("InstanceNumber") or 0)


def _microns(header: Dataset) -> float | None:
    """Return the side of a pixel; of pixels that are not square the root of their area."""
    shared = header.get("SharedFunctionalGroupsSequence") or []
    each = header.get("PerFrameFunctionalGroupsSequence") or []
    for group in (*shared, *each[:1]):
        for measures in group.get("PixelMeasuresSequence") or []:
            spacing = [float(value) for value in measures.get("PixelSpacing") or ()]
            if len(spacing) == 2 and all(0 < value < math.inf for value in spacing):
                return math.sqrt(spacing[0] * spacing[1]) * _MICRONS
    return None


_Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _places(
    first: Dataset, parts: Sequence[LevelPart], form: Format, rows: int, columns: int
) -> _Places:
    """Return number, first row and first column of the frames that are taken."""
    frames = sum(part.frames for part in parts)
    kind = str(first.get("DimensionOrganizationType") or "")
    positioned = any("PerFrameFunctionalGroupsSequence" in part.header for part in parts)
    if kind == "TILED_SPARSE" or (kind != "TILED_FULL" and positioned):
        return _sparse(parts)
    down, across = math.ceil(rows / form.rows), math.ceil(columns / form.columns)
    if frames < down * across:
        detail = f"{frames} frames of {down} x {across} tiles"
        raise UnusableFile(Reason.INCOMPLETE_SERIES, detail)
    # Rows of tiles, then focal planes, then optical paths: the first of these come first.
    number = np.arange(down * across, dtype=np.int64)
    return number, number // across * form.rows, number % across * form.columns


def _sparse(parts: Sequence[LevelPart]) -> _Places:
    found: list[tuple[int, int, int]] = []
    kept: tuple[str, str] | None = None
    for part in parts:
        groups = part.header.get("PerFrameFunctionalGroupsSequence") or []
        if len(groups) != part.frames:
            detail = f"{len(groups)} places for {part.frames} frames"
            raise UnusableFile(Reason.MISSING_HEADER, detail)
        for number, group in enumerate(groups, part.first):
            place = next(iter(group.get("PlanePositionSlideSequence") or []), None)
            if place is None:
                raise UnusableFile(Reason.MISSING_HEADER, "PlanePositionSlideSequence")
            path = next(iter(group.get("OpticalPathIdentificationSequence") or []), Dataset())
            depth = str(place.get("ZOffsetInSlideCoordinateSystem") or "")
            plane = str(path.get("OpticalPathIdentifier") or ""), depth
            kept = kept or plane
            if plane == kept:
                row = _whole_number(place, "RowPositionInTotalImagePixelMatrix")
                column = _whole_number(place, "ColumnPositionInTotalImagePixelMatrix")
                found.append((number, row - 1, column - 1))
    numbers, top, left = np.array(found, np.int64).reshape(-1, 3).T
    return numbers, top, left
