"""Levels of a slide in a scanner's own format, by OpenSlide (extra `pathology`).

Formats: SVS, NDPI, MRXS, SCN, BIF, generic tiled TIFF. Sizes are those that the file says
(openslide.mpp-x and -y); one that says none has no magnification. Associated images (label, macro,
thumbnail) are never asked for: they may show a name.

Public: OpenSlideLevel, OpenSlideReader, openslide_levels, files_beside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from client.dicom.reasons import Reason, UnusableFile
from client.slides.levels import LARGEST_MATRIX
from common.platform.errors import CohortError

if TYPE_CHECKING:
    from openslide import OpenSlide

Rgb = NDArray[np.uint8]  # (rows, columns, 3)
_MPP = ("openslide.mpp-x", "openslide.mpp-y")
_WHITE = 255


@dataclass(frozen=True, kw_only=True)
class OpenSlideLevel:
    """One resolution of a slide."""

    path: Path
    number: int  # of the level in the file, 0 the finest
    microns: float | None  # of a pixel's side; None where it is not said
    rows: int
    columns: int
    scale: float  # pixels of the finest level on a side of one of its own

    @property
    def files(self) -> tuple[Path, ...]:
        """The file that it is in."""
        return (self.path,)


def openslide_levels(path: Path) -> tuple[OpenSlideLevel, ...]:
    """Return a slide's levels, finest first; UnusableFile where it is none, or is broken."""
    with _opened(path) as slide, _told():
        microns = _microns(slide)
        found = [
            OpenSlideLevel(
                path=path,
                number=number,
                microns=None if microns is None else microns * scale,
                rows=rows,
                columns=columns,
                scale=scale,
            )
            for number, ((columns, rows), scale) in enumerate(
                zip(slide.level_dimensions, slide.level_downsamples, strict=True)
            )
        ]
    for one in found:
        if not 0 < one.rows * one.columns <= LARGEST_MATRIX:
            raise UnusableFile(Reason.TOO_LARGE, f"a matrix of {one.rows} x {one.columns} pixels")
    return tuple(found)


class OpenSlideReader:
    """Reads regions of a level."""

    def __init__(self, level: OpenSlideLevel) -> None:
        self.level = level
        self._opening = _opened(level.path)

    def __enter__(self) -> Self:
        self._slide = self._opening.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opening.__exit__(kind, error, trace)

    def region(self, top: int, left: int, rows: int, columns: int) -> Rgb:
        """Return a part of the matrix; white beyond its edges and where nothing was scanned."""
        corner = round(left * self.level.scale), round(top * self.level.scale)
        with _told():
            picture = self._slide.read_region(corner, self.level.number, (columns, rows))
        values = np.asarray(picture)
        alpha = values[..., 3:].astype(np.uint16)
        mixed = values[..., :3] * alpha + _WHITE * (_WHITE - alpha)
        found = (mixed / _WHITE + 0.5).astype(np.uint8)
        found[max(self.level.rows - top, 0) :] = _WHITE
        found[:, max(self.level.columns - left, 0) :] = _WHITE
        return found


def files_beside(path: Path) -> tuple[Path, ...]:
    """Return the files that belong to a slide beside the one that names it (MRXS)."""
    folder = path.with_suffix("")
    if path.suffix.lower() != ".mrxs" or not folder.is_dir():
        return ()
    return tuple(sorted(one for one in folder.iterdir() if one.is_file()))


@contextmanager
def _opened(path: Path) -> Iterator[OpenSlide]:
    try:
        from openslide import OpenSlide, OpenSlideUnsupportedFormatError
    except ImportError as error:
        message = (
            f"{path.name} is a slide in a scanner's format, and OpenSlide is not installed: "
            "pip install 'wardround[pathology]'"
        )
        raise CohortError(message) from error
    try:
        with _told():
            slide = OpenSlide(path)
    except OpenSlideUnsupportedFormatError as error:
        raise UnusableFile(Reason.FILE_UNKNOWN, "no slide that OpenSlide reads") from error
    with slide:
        yield slide


@contextmanager
def _told() -> Iterator[None]:
    """Raise UnusableFile for what OpenSlide finds broken in a file."""
    from openslide import OpenSlideError, OpenSlideUnsupportedFormatError

    try:
        yield
    except OpenSlideUnsupportedFormatError:
        raise
    except OpenSlideError as error:
        raise UnusableFile(Reason.DECODE_ERROR, str(error)[:120]) from error


def _microns(slide: OpenSlide) -> float | None:
    """Return the side of a pixel of the finest level, or the root of its area."""
    try:
        sides = [float(slide.properties[name]) for name in _MPP]
    except (KeyError, ValueError):
        return None
    return math.sqrt(math.prod(sides)) if all(0 < side < math.inf for side in sides) else None
