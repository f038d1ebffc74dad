"""Tiles of one slide at one magnification, where there is tissue.

Public: SlideFiles, SlideView, TileReader, slides_of.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from client.dicom.headers.instance import Instance
from client.dicom.reasons import Reason, UnusableFile
from client.slides.frames import FrameReader, Rgb
from client.slides.levels import SlideLevel, coarsest_up_to, level_for, levels_of
from client.slides.openslide_levels import (
    OpenSlideLevel,
    OpenSlideReader,
    files_beside,
    openslide_levels,
)
from client.slides.stain import Stain, stain_of
from client.slides.tissue import MASK_MICRONS, tissue_of
from common.config.run_config import Slide

_Level = SlideLevel | OpenSlideLevel

#: The longer side of a slide's small picture, for people to look at.
_VIEW_PIXELS = 768
#: Pixels of the small picture that tissue is looked for in, beyond which it is refused.
_LARGEST_MASK = 1 << 27
#: Tiles that a slide's stains are found in.
_STAIN_TILES = 16
#: Rows of frames that are shrunk at a time.
_BAND = 2048


@dataclass(frozen=True, kw_only=True)
class SlideFiles:
    """The objects of one slide: its levels, and parts of them."""

    source: str  # SeriesInstanceUID, or what else names it
    images: tuple[Instance, ...]  # never empty, in the order of their paths

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, also those that one of them names."""
        own = tuple(image.path for image in self.images)
        return (*own, *(beside for path in own for beside in files_beside(path)))


@dataclass(frozen=True, kw_only=True)
class SlideView:
    """What people are shown of a slide."""

    picture: Rgb  # small
    boxes: NDArray[np.float32]  # (tiles, 4) top, left, bottom, right, as parts of the slide
    files: tuple[Path, ...] = ()  # of the level that the picture was made of


def slides_of(images: Iterable[Instance]) -> tuple[SlideFiles, ...]:
    """Return the slides that these objects make: those of one patient, study and slide's frame.

    All levels of a slide share their frame of reference (PS3.3 C.8.12.4); where none is said they
    share their series.
    """
    found: dict[tuple[str, ...], list[Instance]] = defaultdict(list)
    for image in images:
        place = image.frame_of_reference or image.series or str(image.path)
        found[image.patient, image.study, place].append(image)
    slides = []
    for group in found.values():
        ordered = tuple(sorted(group, key=lambda image: image.path))
        names = sorted({image.series for image in ordered if image.series})
        slides.append(
            SlideFiles(source=names[0] if names else str(ordered[0].path), images=ordered)
        )
    return tuple(slides)


def _levels(slide: SlideFiles) -> tuple[_Level, ...]:
    """Return a slide's levels: of DICOM by its headers, of another file by OpenSlide."""
    first = slide.images[0]
    return levels_of(slide.paths) if first.sop_class else openslide_levels(first.path)


def _opened(level: _Level) -> FrameReader | OpenSlideReader:
    return OpenSlideReader(level) if isinstance(level, OpenSlideLevel) else FrameReader(level)


class TileReader:
    """Chooses a slide's tiles from its smallest levels, and reads them from one."""

    def __init__(self, slide: SlideFiles, rules: Slide) -> None:
        """Choose them; UnusableFile without magnification, without tissue or unreadable."""
        self._rules = rules
        levels = _levels(slide)
        self.level = level_for(levels, rules.mpp)
        assert self.level.microns is not None  # noqa: S101  # level_for takes no other
        #: Pixels of the level on a tile's side.
        self.side = rules.tile * rules.mpp / self.level.microns
        small = coarsest_up_to(levels, MASK_MICRONS)
        self.picture, microns = _small_picture(small)
        tissue = tissue_of(self.picture, microns)
        seed = f"{slide.images[0].patient}/{slide.source}"
        self.places = _chosen(self.level, self.side, tissue, rules, seed)
        if not len(self.places):
            share = f"{tissue.mean():.1%} of it is tissue, no tile has {rules.tissue:.0%}"
            raise UnusableFile(Reason.NO_TISSUE, share)
        self._small = small.files

    def view(self, kept: Sequence[int]) -> SlideView:
        """Return the slide's small picture, with the boxes of these tiles on it."""
        places, level = self.places[list(kept)], self.level
        ends = places + self.side
        boxes = np.concatenate([places, ends], axis=1) / ([level.rows, level.columns] * 2)
        shrunk = Picture.fromarray(self.picture)
        shrunk.thumbnail((_VIEW_PIXELS, _VIEW_PIXELS))
        return SlideView(
            picture=np.asarray(shrunk), boxes=boxes.astype(np.float32), files=self._small
        )

    def tiles(self) -> Iterator[Rgb | UnusableFile]:
        """Yield each tile, (tile, tile, 3), or why it cannot be read."""
        with _opened(self.level) as reader:
            stain = self._stain(reader)
            for top, left in self.places:
                try:
                    found = self._tile(reader, float(top), float(left))
                except UnusableFile as problem:
                    yield problem
                else:
                    yield found if stain is None else stain.applied(found)

    def _stain(self, reader: FrameReader | OpenSlideReader) -> Stain | None:
        """Return the slide's own stains, of a few tiles evenly over it."""
        if self._rules.stain == "none":
            return None
        some = np.linspace(0, len(self.places) - 1, min(_STAIN_TILES, len(self.places)))
        found: list[Rgb] = []
        for place in np.unique(np.rint(some).astype(int)):
            top, left = self.places[place]
            with contextlib.suppress(UnusableFile):  # listed when it is read as a tile
                found.append(self._tile(reader, float(top), float(left))[::2, ::2])
        return stain_of(found)

    def _tile(self, reader: FrameReader | OpenSlideReader, top: float, left: float) -> Rgb:
        first_row, first_column = int(top), int(left)
        rows = int(np.ceil(top + self.side)) - first_row
        columns = int(np.ceil(left + self.side)) - first_column
        region = reader.region(first_row, first_column, rows, columns)
        wanted = self._rules.tile
        if (rows, columns) == (wanted, wanted) and self.side == wanted:
            return region
        across, down = left - first_column, top - first_row
        box = (across, down, min(across + self.side, columns), min(down + self.side, rows))
        return np.asarray(
            Picture.fromarray(region).resize((wanted, wanted), Picture.Resampling.BILINEAR, box=box)
        )


def _small_picture(level: _Level) -> tuple[Rgb, float]:
    """Return a whole level at about 8 microns a pixel, and how large its pixels are then."""
    assert level.microns is not None  # noqa: S101  # only such levels are asked
    times = max(1, round(MASK_MICRONS / level.microns))
    rows, columns = -(-level.rows // times), -(-level.columns // times)
    if rows * columns > _LARGEST_MASK:
        detail = f"its smallest level has {level.rows} x {level.columns} pixels"
        raise UnusableFile(Reason.TOO_LARGE, detail)
    found = np.full((rows, columns, 3), 255, np.uint8)
    high = max(times, _BAND // times * times)
    with _opened(level) as reader:
        for top in range(0, level.rows, high):
            for left in range(0, level.columns, high):
                down, across = (min(high, level.rows - top), min(high, level.columns - left))
                part = Picture.fromarray(reader.region(top, left, down, across)).reduce(times)
                a, b = top // times, left // times
                values = np.asarray(part)
                found[a : a + values.shape[0], b : b + values.shape[1]] = values
    return found, level.microns * times


def _chosen(
    level: _Level, side: float, tissue: NDArray[np.bool_], rules: Slide, seed: str
) -> NDArray[np.float64]:
    """Return top and left of the tiles that are taken, (tiles, 2), row by row.

    A grid from the corner; a slide that is smaller than a tile is one, with white beside it. More
    than `most_tiles` are drawn by the patient's own seed: the same ones in every round and run.
    """
    down, across = (max(1, int(length / side + 1e-6)) for length in (level.rows, level.columns))
    rows, columns = np.divmod(np.arange(down * across), across)
    places = np.stack([rows, columns], axis=1) * side
    share = _tissue_share(places, side, tissue, level)
    places = places[share >= rules.tissue]
    if len(places) > rules.most_tiles:
        digest = hashlib.sha256(f"tiles/{seed}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        kept = np.sort(generator.permutation(len(places))[: rules.most_tiles])
        places = places[kept]
    return places


def _tissue_share(
    places: NDArray[np.float64], side: float, tissue: NDArray[np.bool_], level: _Level
) -> NDArray[np.float64]:
    """Return how much of each tile is tissue, (tiles,), by sums over the mask."""
    scale = np.array([tissue.shape[0] / level.rows, tissue.shape[1] / level.columns])
    first = np.floor(places * scale + 1e-6).astype(int)
    last = np.ceil((places + side) * scale - 1e-6).astype(int)
    limit = np.array(tissue.shape)
    last = np.minimum(np.maximum(last, first + 1), limit)
    first = np.minimum(first, last - 1)
    sums = np.zeros(limit + 1)
    sums[1:, 1:] = tissue.cumsum(0).cumsum(1)
    (a, b), (c, d) = first.T, last.T
    inside = sums[c, d] - sums[a, d] - sums[c, b] + sums[a, b]
    # Of the whole tile: what lies beyond the slide is no tissue.
    return np.asarray(inside / (side * side * scale[0] * scale[1]))
