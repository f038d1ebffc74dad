"""Prepare: images as the network takes them, with their outlines; kept until something changes.

The fourth step from a folder to tensors (client/cohort/loading.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from client.cohort.decode import Decoded
from client.cohort.files import image_below
from client.cohort.image import Image, as_input, fitting
from client.cohort.image_masks import (
    Canvas,
    MaskRules,
    is_nifti,
    mask_name,
    read_mask,
    shared_masks,
)
from client.cohort.images import find_images
from client.cohort.select import Selected, WantedImages
from client.dicom.contained import contained
from client.dicom.masks.grid import on_grid
from client.dicom.masks.kept_mask import forgotten
from client.dicom.masks.mask_remarks import Tell
from client.dicom.masks.seg_segments import Labels as Drawn
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reading.volume import order_slices
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.labels.label_table import dicom_keys
from client.series.by_row import RuledImages
from client.site.cache import Cache, file_key, key_of
from client.slides.kept_tiles import TileFeatures, kept_slide
from client.slides.tiles import SlideView, slides_of
from common.config.run_config import Images
from common.data.kept_items import ItemFiles, Items, is_whole, joined_items, write_item
from common.data.volumes import structure_places, volumes_of

_FARED = TypeAdapter(dict[str, dict[str, tuple[str, ...]]])


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A site's images as the network takes them, in the order of `keys`."""

    image: Items  # (items, channels, *size) float32
    labels: Items  # (items, *size) uint8; (items, 0) where no mask was asked for
    keys: tuple[Mapping[str, str], ...]  # DICOM keys and source of each item
    names: tuple[str, ...]  # their files, below `Cache.items`; () of slides
    problems: tuple[Unusable, ...]
    #: By rule of cohort.images.series, by how it fared (matched, ambiguous, missing): patients.
    fared: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    #: Of whole slides, by source: what people are shown, with a box a tile in the items' order.
    views: Mapping[str, SlideView] = field(default_factory=dict)


def prepare_slides(
    selected: Selected, wanted: WantedImages, cache: Cache, features: TileFeatures | None
) -> Prepared:
    """Return the tiles of every usable slide, or their features, and all that was not used."""
    rules = wanted.rules
    parts: list[Items] = []
    keys: list[dict[str, str]] = []
    views: dict[str, SlideView] = {}
    problems = _without_masks(selected.problems, wanted)
    for slide in slides_of(one.image for one in selected.images):
        header = slide.images[0].header
        try:
            found = kept_slide(slide, rules, cache, features)
        except UnusableFile as problem:
            problems.append(problem.listed(slide.source, selected.grouping.whose(header)))
            continue
        whose = selected.grouping.whose(header)
        problems += [one.listed(slide.source, whose) for one in found.problems]
        parts.append(found.image)
        keys += [{**dicom_keys(header), "source": slide.source}] * len(found.image)
        views[slide.source] = found.view
    nothing = torch.zeros((0, rules.channels, *rules.size))
    empty = nothing if features is None else features.nothing()
    return Prepared(
        image=joined_items(parts) if parts else empty,
        labels=torch.zeros((len(keys), 0), dtype=torch.uint8),
        keys=tuple(keys),
        names=(),
        problems=tuple(problems),
        views=views,
    )


@forgotten()
def prepare_images(
    site: Path,
    decoded: Decoded,
    wanted: WantedImages,
    store: PixelStore,
    cache: Cache,
    ruled: RuledImages | None = None,
) -> Prepared:
    """Return every usable image on the network's grid, and all that was not used until here.

    Each is written as a file of its own; one that is there already is not made again.
    """
    rules, masks = wanted.rules, wanted.masks
    names: list[str] = []
    keys: list[dict[str, str]] = []
    drawn: set[int] = set()
    problems = _without_masks(decoded.problems, wanted)
    outlines = _Outlines(site, decoded, wanted, ruled)

    def listed(problem: UnusableFile, image: Image) -> Unusable:
        return problem.listed(image.source, decoded.grouping.whose(image.header))

    def tell(problem: UnusableFile, image: Image) -> None:
        found = listed(problem, image)
        if found not in problems:  # of each frame of one file the same may be told
            problems.append(found)

    for image in find_images(decoded, rules, store, ruled):
        if isinstance(image, Unusable):
            problems.append(image)
            continue
        try:
            with contained(), fitting():
                target = outlines.of(image, partial(tell, image=image))
            name = _kept_item(cache, image, target, wanted)
        except UnusableFile as problem:
            problems.append(listed(problem, image))
        else:
            names.append(name)
            drawn.update(np.unique(target.numpy()).tolist())
            keys.append(image.keys())
    if masks is not None and names:
        problems += _never_drawn(drawn, len(names), masks.structures)
    found, labels = _items(cache, names, wanted)
    return Prepared(
        image=found,
        labels=labels,
        keys=tuple(keys),
        names=tuple(names),
        problems=tuple(problems),
        fared={}
        if ruled is None
        else {r: {str(w): n for w, n in ways.items()} for r, ways in ruled.fared.items()},
    )


def _kept_item(cache: Cache, image: Image, target: Tensor, wanted: WantedImages) -> str:
    """Return the name of an image's file, written where it is not there yet, or UnusableFile."""
    rules = wanted.rules
    name = _name_of(cache, image, target, rules)
    if not is_whole(cache.items / name):
        with contained(), fitting():
            prepared = as_input(image, rules)
        write_item(cache.items / name, prepared.numpy(), bits=rules.kept_bits)
    if wanted.masks is not None and not is_whole(cache.items / _outline(name)):
        write_item(cache.items / _outline(name), target.numpy())
    if rules.patch is not None and not is_whole(cache.items / _places(name)):
        # Of the name's own seed: the same voxels, whoever else is there.
        places = structure_places(target.numpy(), int.from_bytes(name.encode()[-16:]))
        write_item(cache.items / _places(name), places)
    return name


def _name_of(cache: Cache, image: Image, target: Tensor, rules: Images) -> str:
    """Return the name of an image's file, by all that goes into it, whoever else is there."""
    key = key_of(
        "item",
        rules.model_dump(mode="json"),
        image.spacing,
        _content(image.values),
        None if image.padding is None else _content(image.padding),
        *_others(image),
        _content(target.numpy()),
    )
    return cache.item_name(image.header.patient, key)


def _outline(name: str) -> str:
    return name.replace(".npy", "-outline.npy")


def _others(image: Image) -> Iterator[tuple[int, str, str]]:
    """Yield what goes into an item of the other series on its grid."""
    for place, other in sorted(image.others.items()):
        hidden = "" if other.padding is None else _content(other.padding)
        yield place, _content(other.values), hidden


def _places(name: str) -> str:
    return name.replace(".npy", "-places.npy")


def _content(values: NDArray[np.generic]) -> str:
    shaped = f"{values.dtype} {values.shape}".encode()
    return hashlib.blake2b(np.ascontiguousarray(values).data, key=shaped[:64]).hexdigest()


def _items(cache: Cache, names: Sequence[str], wanted: WantedImages) -> tuple[Items, Items]:
    """Return images and label maps of these names."""
    rules = wanted.rules
    shape, outlines = torch.Size((rules.input_channels, *rules.size)), torch.Size(rules.size)
    if not names:
        return torch.zeros((0, *shape)), torch.zeros((0, 0), dtype=torch.uint8)
    if rules.patch is not None:
        return _volumes(cache, names, rules)
    image = ItemFiles(folder=cache.items, names=tuple(names), item=shape, kind=torch.float32)
    if wanted.masks is None:
        return image, torch.zeros((len(names), 0), dtype=torch.uint8)
    maps = tuple(map(_outline, names))
    return image, ItemFiles(folder=cache.items, names=maps, item=outlines, kind=torch.uint8)


def _volumes(cache: Cache, names: Sequence[str], rules: Images) -> tuple[Items, Items]:
    """Return images that keep their own extent, and their label maps."""
    images, maps, places = (
        tuple(cache.items / of(name) for name in names) for of in (str, _outline, _places)
    )
    patch = tuple(rules.size)
    return (
        volumes_of(images, (rules.input_channels,), patch, torch.float32),
        volumes_of(maps, (), patch, torch.uint8, places),
    )


def _without_masks(problems: Iterable[Unusable], wanted: WantedImages) -> list[Unusable]:
    """Return the problems, without those of files that are masks and no images."""
    labels, masks = wanted.labels, wanted.masks
    if masks is None:  # nothing is missing where no mask was asked for
        return [p for p in problems if p.reason is not Reason.SEGMENTATION]
    if not labels.by_patient:
        return list(problems)
    own = {(row["PatientID"], row[masks.column]) for row in labels.rows}
    own |= {("", row[masks.column]) for row in labels.rows}
    return [p for p in problems if (p.patient, p.what) not in own]


def _never_drawn(
    drawn: AbstractSet[int], masks: int, structures: Iterable[str]
) -> Iterator[Unusable]:
    """Yield a notice for each structure that none of the site's masks holds."""
    for number, name in enumerate(structures, 1):
        if number not in drawn:
            detail = f"drawn in none of the {masks} masks that are used"
            yield Unusable(reason=Reason.MASK_NAMES, what=f"structure {name}", detail=detail)


class _Outlines:
    """The label maps of images, where a run learns outlines."""

    def __init__(
        self, site: Path, decoded: Decoded, wanted: WantedImages, ruled: RuledImages | None
    ) -> None:
        self._site, self._wanted = site, wanted
        channel, grid = (ruled or RuledImages()).channel, wanted.rules.reference
        headers = [item.header for item in decoded.objects]
        # Masks are drawn on what gives the grid; other channels are no images of their own.
        headers = [h for h in headers if channel.get(h.key, grid) == grid]
        self._of_row = Counter(wanted.labels.find(dicom_keys(header)) for header in headers)
        self._shared = shared_masks(headers, wanted.labels, wanted.masks)
        self._volume: tuple[tuple[str, str], Drawn] | None = None  # the last one, by its files

    def of(self, image: Image, tell: Tell) -> Tensor:
        """Return an image's label map, or (0,) where none was asked for; losses are told.

        UnusableFile for an outline that cannot be used.
        """
        labels, masks = self._wanted.labels, self._wanted.masks
        if masks is None:
            return torch.zeros(0, dtype=torch.uint8)
        row = labels.find(dicom_keys(image.header))
        canvas = image.canvas(alone=self._of_row[row] == 1)
        name = labels.rows[row][masks.column]
        if self._wanted.rules.format == "files" and image.geometry is None and is_nifti(name):
            drawn = self._slice_of(image, canvas, name, masks, tell)
        else:
            drawn = read_mask(self._site, name, canvas, masks, tell)
        rules, structures = self._wanted.rules, list(masks.structures)
        target = on_grid(drawn, image.spacing, rules, structures, tell)
        if target.any() and mask_name(image.header, labels, masks) in self._shared:
            message = "the table names this outline for several patients"
            raise UnusableFile(Reason.MASK_UNUSABLE, message)
        return target

    def _slice_of(
        self, image: Image, canvas: Canvas, name: str, masks: MaskRules, tell: Tell
    ) -> Drawn:
        """Return a slice's part of what is drawn on its whole volume, which is read once."""
        header = image.header
        order, geometry = order_slices([(header, frame) for frame in range(len(header.positions))])
        if self._volume is None or self._volume[0] != (image.first, name):
            whole = replace(canvas, geometry=geometry, shape=(header.frames, *header.shape))
            self._volume = (image.first, name), read_mask(self._site, name, whole, masks, tell)
        found: Drawn = self._volume[1][order.index(image.frame)]
        return found


# --- the cache ---------------------------------------------------------------------------


def prepared_key(site: Path, files: Sequence[Path], wanted: WantedImages) -> str:
    """Return what changes when the folder, the rules or the wanted images do."""
    labels, masks = wanted.labels, wanted.masks
    known = [(path.relative_to(site).as_posix(), _file_key(path)) for path in files]
    columns = (*wanted.rules.file_columns, *(() if masks is None else (masks.column,)))
    known += [(row[name], _named_key(site, row[name])) for row in labels.rows for name in columns]
    index = sorted((*key, row) for key, row in labels.index.items())
    patients = [row.get("PatientID", "") for row in labels.rows]
    # In their order, which numbers them: a key sorts the names of a dict.
    structures = list(masks.structures.items()) if masks else None
    label = (masks.label,) if masks and masks.label else ()
    mask_rules = (structures, masks.column, masks.resample, *label) if masks else None
    return key_of(
        "prepared items",
        known,
        wanted.rules.model_dump(mode="json"),
        index,
        patients,
        mask_rules,
        sorted(labels.conflicts),
        labels.by_patient,
        sorted((name, words) for name, words in wanted.aliases.items()),
        sorted((k, r.name) for k, (r, _) in wanted.left_out.images.items()),
    )


def _named_key(site: Path, name: str) -> str:
    try:
        return _file_key(image_below(site, name))
    except UnusableFile:  # listed when it is read
        return ""


def _file_key(path: Path) -> str:
    try:
        return file_key(path)
    except (OSError, ValueError):  # listed when it is read
        return ""


def keep_prepared(cache: Cache, key: str, prepared: Prepared) -> None:
    """Keep which images were prepared, for the next time."""
    cache.keep_facts(
        key,
        {
            "items": list(prepared.names),
            "keys": [dict(k) for k in prepared.keys],
            "problems": [[p.reason.name, p.what, p.detail, p.patient] for p in prepared.problems],
            "fared": {rule: dict(ways) for rule, ways in prepared.fared.items()},
        },
    )


def kept_images(cache: Cache, key: str, wanted: WantedImages) -> Prepared | None:
    """Return what was prepared before of the same files by the same rules; None if nothing was.

    Every file is read once here, and its checksum looked at.
    """
    facts = cache.facts(key) or {}
    names, keys, problems = (facts.get(part) for part in ("items", "keys", "problems"))
    if not (isinstance(names, list) and isinstance(keys, list) and isinstance(problems, list)):
        return None
    files = [*names, *(map(_outline, names) if wanted.masks is not None else ())]
    files += map(_places, names) if wanted.rules.patch is not None else ()
    if not all(is_whole(cache.items / name) for name in files):
        return None
    image, labels = _items(cache, names, wanted)
    return Prepared(
        image=image,
        labels=labels,
        keys=tuple(keys),
        names=tuple(names),
        problems=tuple(
            Unusable(reason=Reason[r], what=w, detail=d, patient=p) for r, w, d, p in problems
        ),
        fared=_FARED.validate_python(facts.get("fared", {})),
    )
