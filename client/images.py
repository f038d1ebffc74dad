"""A site's folder of DICOM files as prepared images: read once, cached, everything else listed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.cache import Cache, file_identity, key_of
from client.dicom.masks import read_png, read_segmentation
from client.dicom.read import (
    Header,
    Pixels,
    UnusableFile,
    check_image,
    read_dataset,
    read_header,
    read_pixels,
)
from client.dicom.reasons import Reason, Unusable
from client.dicom.volume import Geometry, order_slices
from common.config import Images
from common.preprocessing import prepare, prepare_labels

#: Not DICOM, and no need to say so for each.
_NOT_IMAGES = frozenset({".csv", ".png", ".txt", ".md", ".json", ".html", ".yaml", ".yml", ".xlsx"})


@dataclass(frozen=True, kw_only=True)
class Image:
    """One 2-D frame or one volume, before it is prepared."""

    header: Header
    values: NDArray[np.float32]  # (rows, columns[, 3]) or (slices, rows, columns[, 3])
    geometry: Geometry | None  # of a volume

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Distances in mm along the axes, where they are known."""
        return self.header.spacing if self.geometry is None else self.geometry.spacing

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape."""
        return self.values.shape[: 2 if self.geometry is None else 3]

    def keys(self) -> dict[str, str]:
        """Return the DICOM keys that find this image's row."""
        return {
            "SeriesInstanceUID": self.header.series, "StudyInstanceUID": self.header.study,
            "AccessionNumber": self.header.accession, "PatientID": self.header.patient,
        }  # fmt: skip


def dicom_files(site: Path, masks: frozenset[str]) -> list[Path]:
    """Return the files that may be DICOM, in a fixed order; masks are left out."""
    return sorted(
        path
        for path in site.rglob("*")
        if path.is_file()
        and path.suffix.lower() not in _NOT_IMAGES
        and not path.name.startswith(".")
        and path.relative_to(site).as_posix() not in masks
    )


def find_images(
    site: Path, files: Sequence[Path], rules: Images, problems: list[Unusable]
) -> Iterator[Image]:
    """Yield every usable image; what is not usable is added to `problems` with its reason."""
    readable = _read_all(site, files, rules, problems)
    if rules.dimensions == 2:
        for _, header, pixels in readable:
            for frame in range(len(pixels.stored)):
                values = pixels.values(frame)
                if values.min() == values.max():
                    problems.append(Unusable(reason=Reason.BLANK, what=header.instance))
                    continue
                yield Image(header=header, values=values, geometry=None)
        return
    series: dict[str, list[tuple[Header, Pixels]]] = defaultdict(list)
    for _, header, pixels in readable:
        series[header.series].append((header, pixels))
    for uid, parts in sorted(series.items()):
        try:
            yield _volume(parts)
        except UnusableFile as problem:
            problems.append(Unusable(reason=problem.reason, what=uid, detail=problem.detail))


def _read_all(
    site: Path, files: Sequence[Path], rules: Images, problems: list[Unusable]
) -> Iterator[tuple[Path, Header, Pixels]]:
    seen: set[str] = set()
    for path in files:
        try:
            dataset = read_dataset(path)
            check_image(dataset)
            header = read_header(dataset)
            if rules.modalities and header.modality not in rules.modalities:
                raise UnusableFile(Reason.WRONG_MODALITY, header.modality)
            if not header.patient:
                raise UnusableFile(Reason.MISSING_HEADER, "PatientID")
            if header.instance in seen:
                raise UnusableFile(Reason.DUPLICATE_SOP)
            pixels = read_pixels(dataset)
        except UnusableFile as problem:
            problems.append(Unusable(
                reason=problem.reason, what=path.relative_to(site).as_posix(),
                detail=problem.detail,
            ))  # fmt: skip
            continue
        except Exception as error:  # noqa: BLE001 - one bad file never stops the others
            problems.append(Unusable(
                reason=Reason.MISSING_HEADER, what=path.relative_to(site).as_posix(),
                detail=type(error).__name__,
            ))  # fmt: skip
            continue
        seen.add(header.instance)
        yield path, header, pixels


def _volume(parts: Sequence[tuple[Header, Pixels]]) -> Image:
    """Return a series' slices as one volume."""
    slices = [(part, frame) for part, (_, p) in enumerate(parts) for frame in range(len(p.stored))]
    if len({parts[part][1].stored.shape[1:] for part, _ in slices}) > 1:
        raise UnusableFile(Reason.MIXED_MATRIX)
    order, geometry = order_slices([(parts[part][0], frame) for part, frame in slices])
    values = np.stack([parts[slices[i][0]][1].values(slices[i][1]) for i in order])
    return Image(header=parts[0][0], values=values, geometry=geometry)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A site's images as the network takes them, in the order of `keys`."""

    image: Tensor  # (items, channels, *size) float32
    labels: Tensor  # (items, *size) uint8; (items, 0) where no mask was asked for
    keys: tuple[Mapping[str, str], ...]  # DICOM keys of each item
    problems: tuple[Unusable, ...]


@dataclass(frozen=True, kw_only=True)
class MaskRules:
    """Which masks go with which images."""

    structures: Mapping[str, tuple[int, ...]]
    path_of: Mapping[tuple[str, str], str]  # (key column, value) -> path below the site


def prepare_images(site: Path, rules: Images, masks: MaskRules | None, cache: Cache) -> Prepared:
    """Return a site's prepared images, from the cache when nothing has changed."""
    paths = frozenset(masks.path_of.values()) if masks else frozenset[str]()
    files = dicom_files(site, paths)
    mask_files = [site / p for p in sorted(paths) if (site / p).is_file()]
    key = key_of(
        "prepared", str(site.resolve()), [file_identity(site, p) for p in (*files, *mask_files)],
        rules.model_dump(mode="json"),
        [dict(masks.structures), sorted((*k, v) for k, v in masks.path_of.items())] if masks else 0,
    )  # fmt: skip
    kept = _from_cache(cache, key)
    if kept is not None:
        return kept
    problems: list[Unusable] = []
    images: list[Tensor] = []
    labels: list[Tensor] = []
    keys: list[dict[str, str]] = []
    for image in find_images(site, files, rules, problems):
        try:
            label = _mask(site, image, masks, rules)
        except UnusableFile as problem:
            problems.append(Unusable(
                reason=problem.reason, what=image.header.study, detail=problem.detail
            ))  # fmt: skip
            continue
        images.append(prepare(image.values, image.spacing, rules))
        labels.append(label)
        keys.append(image.keys())
    found = _stacked(images, labels, keys, problems, rules)
    cache.keep_array(f"{key}-image", found.image.numpy())
    cache.keep_array(f"{key}-labels", found.labels.numpy())
    cache.keep_facts(key, {
        "keys": [dict(k) for k in found.keys],
        "problems": [[p.reason.name, p.what, p.detail] for p in found.problems],
    })  # fmt: skip
    return found


def _stacked(
    images: list[Tensor], labels: list[Tensor], keys: list[dict[str, str]],
    problems: list[Unusable], rules: Images,
) -> Prepared:  # fmt: skip
    empty = torch.zeros((0, rules.channels, *rules.size))
    return Prepared(
        image=torch.stack(images) if images else empty,
        labels=torch.stack(labels) if labels else torch.zeros((0, 0), dtype=torch.uint8),
        keys=tuple(keys),
        problems=tuple(problems),
    )


def _mask(site: Path, image: Image, masks: MaskRules | None, rules: Images) -> Tensor:
    """Return the image's label map, or (0,) where none was asked for."""
    if masks is None:
        return torch.zeros(0, dtype=torch.uint8)
    keys = image.keys()
    name = next((masks.path_of[k, v] for k, v in keys.items() if (k, v) in masks.path_of), None)
    if name is None:
        raise UnusableFile(Reason.LABEL_MISSING)
    path = site / name
    if not path.resolve().is_relative_to(site.resolve()):
        raise UnusableFile(Reason.MASK_UNUSABLE, "the path leaves the site's folder")
    if path.suffix.lower() == ".png":
        if image.geometry is not None:
            raise UnusableFile(Reason.MASK_UNUSABLE, "a PNG for a volume; use DICOM SEG")
        grid = read_png(path, (image.shape[0], image.shape[1]), masks.structures)
    elif image.geometry is not None:
        shape = (image.shape[0], image.shape[1], image.shape[2])
        grid = read_segmentation(path, shape, image.geometry, masks.structures)
    else:
        raise UnusableFile(Reason.MASK_UNUSABLE, "2-D masks are PNG files")
    return prepare_labels(grid, image.spacing, rules)


def _from_cache(cache: Cache, key: str) -> Prepared | None:
    facts = cache.facts(key)
    image = cache.array(f"{key}-image") if facts else None
    labels = cache.array(f"{key}-labels") if facts else None
    if facts is None or image is None or labels is None:
        return None
    keys, problems = facts["keys"], facts["problems"]
    if not isinstance(keys, list) or not isinstance(problems, list):
        return None
    return Prepared(
        # Copied into memory: training reads every item every round.
        image=torch.from_numpy(np.array(image)),
        labels=torch.from_numpy(np.array(labels)),
        keys=tuple(keys),
        problems=tuple(Unusable(reason=Reason[r], what=w, detail=d) for r, w, d in problems),
    )
