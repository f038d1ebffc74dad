"""A slide's tiles as a network takes them, kept in files that lose single patients.

Where the run's network works on frozen features, a slide is one file of them, and its tiles are
nowhere; else each tile is a file. What is kept goes by the files, the level and the rules, and the
backbone, so that a slide is read once.

Public: KeptSlide, TileFeatures, kept_slide.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.dicom.contained import contained
from client.dicom.headers.instance import Instance
from client.dicom.reasons import Reason, UnusableFile
from client.site.cache import Cache, file_key, key_of
from client.slides.frames import Rgb
from client.slides.tiles import SlideFiles, SlideView, TileReader
from common.config.run_config import Images, RunConfig
from common.data.kept_items import ItemFiles, Items, is_whole, read_item, write_item
from common.data.preprocessing import prepare
from common.data.unfit_image import UnfitImage


@dataclass(frozen=True, kw_only=True)
class TileFeatures:
    """What a run's frozen backbone makes of tiles."""

    config: RunConfig

    @cached_property
    def key(self) -> list[object]:
        """Return what the features follow beside the tiles."""
        from common.models import followed, image_shape

        config = self.config
        return followed(config.model, image_shape(config.cohort.images), config.extensions)

    def of(self, tile: Tensor) -> Tensor:
        """Return (features,) of a prepared tile, (channels, *size)."""
        from common.models import extract_features

        return extract_features(tile[None], self.config.model, self.config.extensions)[0]

    def nothing(self) -> Tensor:
        """Return the features of no tile, (0, features)."""
        from common.models import feature_width, image_shape

        config = self.config
        shape = image_shape(config.cohort.images)
        return torch.zeros(0, feature_width(config.model, shape, config.extensions))


@dataclass(frozen=True, kw_only=True)
class KeptSlide:
    """A slide's tiles, and what of it could not be read."""

    image: Items  # (tiles, channels, *size) or (tiles, features)
    view: SlideView
    problems: tuple[UnusableFile, ...]  # of single tiles; the others are there


def kept_slide(
    slide: SlideFiles, rules: Images, cache: Cache, features: TileFeatures | None
) -> KeptSlide:
    """Return a slide's tiles, read where they are not kept yet; UnusableFile without any."""
    with contained():
        key = key_of(
            "slide",
            [file_key(path) for path in slide.paths],
            slide.source,
            rules.model_dump(mode="json"),
            None if features is None else features.key,
        )
        patient = slide.images[0].patient
        names = _Names(cache, patient, key)
        if not names.whole():
            _keep(slide, rules, names, features)
        return names.read(slide.images, rules, features)


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What is noted of a slide: how many tiles, and what was wrong with others."""

    tiles: int
    level: tuple[str, ...]  # names of the files that the small picture was made of
    problems: tuple[UnusableFile, ...]


class _Names:
    """The files that one slide is kept in."""

    def __init__(self, cache: Cache, patient: str, key: str) -> None:
        self.cache, self._patient, self._key = cache, patient, key

    def path(self, part: str) -> Path:
        """Return the file of a part: facts, picture, boxes, features, or a tile's number."""
        return self.cache.items / self.name(part)

    def name(self, part: str) -> str:
        return self.cache.item_name(self._patient, key_of(self._key, part))

    def facts(self) -> _Facts | None:
        """Return what was noted; None where nothing was."""
        if not is_whole(self.path("facts")):
            return None
        text = read_item(self.path("facts")).tobytes().decode()
        held = json.loads(text)
        return _Facts(
            tiles=held["tiles"],
            level=tuple(held["level"]),
            problems=tuple(UnusableFile(Reason[r], d) for r, d in held["problems"]),
        )

    def whole(self) -> bool:
        """Return whether everything is there."""
        facts = self.facts()
        if facts is None or not all(is_whole(self.path(p)) for p in ("picture", "boxes")):
            return False
        if is_whole(self.path("features")):
            return True
        return all(is_whole(self.path(str(n))) for n in range(facts.tiles))

    def read(
        self, images: tuple[Instance, ...], rules: Images, features: TileFeatures | None
    ) -> KeptSlide:
        """Return what is kept."""
        facts = self.facts()
        assert facts is not None  # noqa: S101  # whoever calls saw that it is whole
        image: Items
        if features is None:
            names = tuple(self.name(str(n)) for n in range(facts.tiles))
            shape = torch.Size((rules.channels, *rules.size))
            image = ItemFiles(folder=self.cache.items, names=names, item=shape, kind=torch.float32)
        else:
            held = read_item(self.path("features"))
            image = torch.from_numpy(held.astype(np.float32))
        by_name = {one.path.name: one.path for one in images}
        return KeptSlide(
            image=image,
            view=SlideView(
                picture=np.asarray(read_item(self.path("picture")), np.uint8),
                boxes=np.asarray(read_item(self.path("boxes")), np.float32),
                files=tuple(by_name[name] for name in facts.level if name in by_name),
            ),
            problems=facts.problems,
        )


def _keep(slide: SlideFiles, rules: Images, names: _Names, features: TileFeatures | None) -> None:
    """Read a slide's tiles and write what is kept of them; the facts come last."""
    assert rules.slide is not None  # noqa: S101  # whoever calls asked
    reader = TileReader(slide, rules.slide)
    kept: list[int] = []
    made: list[Tensor] = []
    failed: Counter[tuple[Reason, str]] = Counter()
    for number, tile in enumerate(reader.tiles()):
        if isinstance(tile, UnusableFile):
            failed[tile.reason, tile.detail] += 1
            continue
        prepared = prepared_tile(tile, rules)
        if features is None:
            write_item(names.path(str(len(kept))), prepared.numpy(), bits=rules.kept_bits)
        else:
            made.append(features.of(prepared))
        kept.append(number)
    total = len(kept) + failed.total()
    problems = [
        UnusableFile(reason, f"{count} of {total} tiles, which are left out: {detail}")
        for (reason, detail), count in failed.items()
    ]
    if not kept:
        raise problems[0]
    if features is not None:
        write_item(names.path("features"), _half(torch.stack(made)))
    view = reader.view(kept)
    write_item(names.path("picture"), view.picture)
    write_item(names.path("boxes"), view.boxes)
    facts = {
        "tiles": len(kept),
        "level": [path.name for path in view.files],
        "problems": [[p.reason.name, p.detail] for p in problems],
    }
    write_item(names.path("facts"), np.frombuffer(json.dumps(facts).encode(), np.uint8))


def prepared_tile(tile: Rgb, rules: Images) -> Tensor:
    """Return a tile as the network takes it, (channels, *size)."""
    try:
        return prepare(tile.astype(np.float32), None, rules)
    except UnfitImage as error:
        raise UnusableFile(Reason.NOT_FINITE, str(error)) from error


def _half(features: Tensor) -> np.ndarray:
    """Return features in 16 bits; in 32 where a value is beyond them."""
    half = features.half()
    found = half if bool(torch.isfinite(half).all()) else features
    return np.asarray(found.numpy())
