"""Prepared images of a site's folder, with the keys that find their rows."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.cohort.found import Found, Object, Owned
from client.cohort.image_gate import ImageGate, WantedImages
from client.cohort.image_intake import dicom_files, pixels_of, read_objects, read_objects_alone
from client.cohort.image_masks import Canvas, mask_name, read_mask, shared_masks
from client.cohort.mask_grid import on_grid
from client.dicom.contained import contained
from client.dicom.index.index import Index
from client.dicom.pixels.store import PixelStore
from client.dicom.reading.phases import check_phases
from client.dicom.reading.read import Header
from client.dicom.reading.rescale import Pixels
from client.dicom.reading.volume import Geometry, levels_of, stack_slices
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.labels.label_table import dicom_keys
from client.site.cache import Cache, file_key, key_of
from common.config.run_config import Images
from common.data.preprocessing import Fault, UnfitImage, prepare
from common.platform.errors import CohortError

_UNFIT: Mapping[Fault, Reason] = {
    "too large": Reason.TOO_LARGE,
    "not finite": Reason.NOT_FINITE,
    "no geometry": Reason.NO_GEOMETRY,
}


@dataclass(frozen=True, kw_only=True)
class Image:
    """One 2-D frame or one volume, before it is prepared."""

    source: str  # file (2-D) or series (3-D)
    header: Header  # of the object, or of the series' first
    values: NDArray[np.float32]  # (rows, columns[, 3]) or (slices, rows, columns[, 3])
    frame: int  # of the object; 0 for a volume
    geometry: Geometry | None  # of a volume
    first: str  # file of the object, or of the series' first
    instances: frozenset[str]  # SOPInstanceUIDs
    padding: NDArray[np.bool_] | None = None  # as values, without colours; None: there is none
    #: Of a volume, by instance and frame: the slice that it is.
    levels: Mapping[tuple[str, int], int] = field(default_factory=dict)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Distances along the axes, where they are known: in mm, of a frame perhaps in relation."""
        return self.header.pixel if self.geometry is None else self.geometry.spacing

    def keys(self) -> dict[str, str]:
        """Return the DICOM keys that find this image's row, and where it comes from."""
        return {**dicom_keys(self.header), "source": self.source}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A site's images as the network takes them, in the order of `keys`."""

    image: Tensor  # (items, channels, *size) float32
    labels: Tensor  # (items, *size) uint8; (items, 0) where no mask was asked for
    keys: tuple[Mapping[str, str], ...]  # DICOM keys and source of each item
    problems: tuple[Unusable, ...]


def prepare_images(site: Path, wanted: WantedImages, cache: Cache) -> Prepared:
    """Return a site's prepared images, from the cache when nothing has changed."""
    rules, labels, masks = wanted.rules, wanted.labels, wanted.masks
    paths = frozenset(row[masks.column] for row in labels.rows) if masks else frozenset[str]()
    # A row that names somebody's image as its mask takes no image away where each is looked at
    # alone; a mask is no image, and is passed over all the same.
    files = dicom_files(site, frozenset() if labels.by_patient else paths)
    try:
        key = _key(site, files, wanted)
        kept = _from_cache(cache, key)
        if kept is not None:
            return kept
        with PixelStore(cache.folder / "pixels") as store, Index(cache.index) as index:
            gate = ImageGate(wanted)
            gate.look(site, index)
            read = read_objects_alone if labels.by_patient else read_objects
            found = read(
                site, files, gate.check, store, by_series=rules.dimensions == 3, index=index
            )
            if masks is None:  # nothing is missing where no mask was asked for
                found.problems = [p for p in found.problems if p.reason is not Reason.SEGMENTATION]
            elif labels.by_patient:
                own = {(row["PatientID"], row[masks.column]) for row in labels.rows}
                own |= {("", name) for name in paths}
                found.problems = [p for p in found.problems if (p.patient, p.what) not in own]
            prepared = _prepare_all(site, found, wanted, store)
        _keep(cache, key, prepared)
    except (OSError, sqlite3.Error) as error:
        message = f"Cannot use the cache {cache.folder}: {error}. Free space there or delete it."
        raise CohortError(message) from error
    return prepared


def _key(site: Path, files: list[Path], wanted: WantedImages) -> str:
    """Return what changes when the folder, the rules or the wanted images do."""
    labels, masks = wanted.labels, wanted.masks
    known = [(path.relative_to(site).as_posix(), _file_key(path)) for path in files]
    if masks is not None:
        known += [(r[masks.column], _file_key(site / r[masks.column])) for r in labels.rows]
    index = sorted((*key, row) for key, row in labels.index.items())
    patients = [row.get("PatientID", "") for row in labels.rows]
    mask_rules = (dict(masks.structures), masks.column, masks.resample) if masks else None
    return key_of(
        "prepared",
        known,
        wanted.rules.model_dump(mode="json"),
        index,
        patients,
        mask_rules,
        sorted(labels.conflicts),
        labels.by_patient,
        sorted((k, r.name) for k, (r, _) in wanted.left_out.images.items()),
    )


def _file_key(path: Path) -> str:
    try:
        return file_key(path)
    except (OSError, ValueError):  # listed when it is read
        return ""


def find_images(found: Found, rules: Images, store: PixelStore) -> Iterator[Image]:
    """Yield every usable image; what is not usable is added to the problems with its reason."""
    if rules.dimensions == 2:
        parts: dict[Owned, list[Object]] = {("", i.path): [i] for i in _of_one_phase(found)}
    else:
        parts = defaultdict(list)
        for item in found.objects:
            parts[found.owned(item.header.patient, item.header.series)].append(item)
    for (_, source), items in sorted(parts.items()):
        try:
            with contained():
                pixels = [pixels_of(item, store) for item in items]
                volume = _volume(source, items, pixels, found) if rules.dimensions == 3 else None
        except UnusableFile as problem:
            found.problems.append(problem.listed(source, found.whose(items[0].header)))
            continue
        if volume is None:
            yield from _flat_images(items[0], pixels[0], found)
        else:
            yield volume


def _of_one_phase(found: Found) -> list[Object]:
    """Return the objects of series that show each place once; the others are listed."""
    series: dict[tuple[str, str], list[Object]] = defaultdict(list)
    for item in found.objects:
        header = item.header
        place = header.series or f"study {header.study}"
        series[header.patient, place].append(item)
    kept: list[Object] = []
    for items in series.values():
        try:
            with contained():
                check_phases([item.header for item in items])
            kept += items
        except UnusableFile as problem:
            found.problems += [
                problem.listed(item.path, found.whose(item.header)) for item in items
            ]
    return kept


def _flat_images(item: Object, pixels: Pixels, found: Found) -> Iterator[Image]:
    for frame in range(item.header.frames):
        try:
            with contained():
                image = Image(
                    source=item.path,
                    header=item.header,
                    values=_checked(pixels.values(frame)),
                    frame=frame,
                    geometry=None,
                    first=item.path,
                    padding=_first(pixels.padded((slice(frame, frame + 1),))),
                    instances=frozenset({item.header.instance}),
                )
        except UnusableFile as problem:
            name = f"{item.path} frame {frame + 1}"
            found.problems.append(problem.listed(name, found.whose(item.header)))
        else:
            yield image


def _volume(source: str, items: list[Object], pixels: list[Pixels], found: Found) -> Image:
    if not source:
        raise UnusableFile(Reason.MISSING_HEADER, "SeriesInstanceUID")
    if found.owned(items[0].header.patient, source) in found.broken_series:
        raise UnusableFile(Reason.INCOMPLETE_SERIES, f"{len(items)} slices can be read")
    if len({item.header.patient for item in items}) > 1:
        raise UnusableFile(Reason.PATIENT_MISMATCH, "one series, several patients")
    parts = [(item.header, part) for item, part in zip(items, pixels, strict=True)]
    volume, geometry = stack_slices(parts)
    return Image(
        source=source,
        header=items[0].header,
        values=_checked(volume.patch((slice(None),))),
        padding=volume.padded((slice(None),)),
        frame=0,
        geometry=geometry,
        first=items[0].path,
        instances=frozenset(item.header.instance for item in items),
        levels=levels_of([item.header for item in items], geometry),
    )


def _first(padded: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    return None if padded is None else padded[0]


def _checked(values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = values.min(), values.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise UnusableFile(Reason.NOT_FINITE)
    if low == high:
        raise UnusableFile(Reason.BLANK)
    return values


def _prepare_all(site: Path, found: Found, wanted: WantedImages, store: PixelStore) -> Prepared:
    rules, labels, masks = wanted.rules, wanted.labels, wanted.masks
    images: list[Tensor] = []
    targets: list[Tensor] = []
    keys: list[dict[str, str]] = []
    of_row = Counter(labels.find(dicom_keys(item.header)) for item in found.objects)
    shared = shared_masks([item.header for item in found.objects], labels, masks)
    for image in find_images(found, rules, store):
        try:
            with contained(), fitting():
                target = _mask(site, image, wanted, found, of_row)
                if target.any() and mask_name(image.header, labels, masks) in shared:
                    message = "the table names this outline for several patients"
                    raise UnusableFile(Reason.MASK_UNUSABLE, message)
                prepared = prepare(image.values, image.spacing, rules, image.padding)
        except UnusableFile as problem:
            found.problems.append(problem.listed(image.source, found.whose(image.header)))
        else:
            images.append(prepared)
            targets.append(target)
            keys.append(image.keys())
    if masks is not None:
        found.problems += _never_drawn(targets, masks.structures)
    empty = torch.zeros((0, rules.channels, *rules.size))
    return Prepared(
        image=torch.stack(images) if images else empty,
        labels=torch.stack(targets) if targets else torch.zeros((0, 0), dtype=torch.uint8),
        keys=tuple(keys),
        problems=tuple(found.problems),
    )


def _never_drawn(targets: Sequence[Tensor], structures: Iterable[str]) -> Iterator[Unusable]:
    """Yield a notice for each structure that none of the site's masks holds."""
    drawn = {number for target in targets for number in np.unique(target.numpy()).tolist()}
    for number, name in enumerate(structures, 1):
        if targets and number not in drawn:
            detail = f"drawn in none of the {len(targets)} masks that are used"
            yield Unusable(reason=Reason.MASK_NAMES, what=f"structure {name}", detail=detail)


@contextmanager
def fitting() -> Iterator[None]:
    """Raise UnusableFile where no network's input, or no mask for it, can be made of an image."""
    try:
        yield
    except UnfitImage as error:
        raise UnusableFile(_UNFIT[error.fault], str(error)) from error


def _mask(
    site: Path, image: Image, wanted: WantedImages, found: Found, of_row: Mapping[int, int]
) -> Tensor:
    """Return the image's label map, or (0,) where none was asked for."""
    labels, masks = wanted.labels, wanted.masks
    if masks is None:
        return torch.zeros(0, dtype=torch.uint8)
    row = labels.find(dicom_keys(image.header))
    canvas = Canvas(
        header=image.header,
        frame=image.frame,
        geometry=image.geometry,
        shape=image.header.shape if image.geometry is None else image.values.shape[:3],
        first=image.first,
        instances=image.instances,
        alone=of_row[row] == 1,
        levels=image.levels,
    )
    name = labels.rows[row][masks.column]

    def tell(problem: UnusableFile) -> None:
        listed = problem.listed(image.source, found.whose(image.header))
        if listed not in found.problems:  # of each frame of one file the same may be told
            found.problems.append(listed)

    drawn = read_mask(site, name, canvas, masks, tell)
    return on_grid(drawn, image.spacing, wanted.rules, list(masks.structures), tell)


def _keep(cache: Cache, key: str, prepared: Prepared) -> None:
    cache.keep_array(f"{key}-image", prepared.image.numpy())
    cache.keep_array(f"{key}-labels", prepared.labels.numpy())
    cache.keep_facts(
        key,
        {
            "keys": [dict(k) for k in prepared.keys],
            "problems": [[p.reason.name, p.what, p.detail, p.patient] for p in prepared.problems],
        },
    )


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
        image=torch.from_numpy(image),
        labels=torch.from_numpy(labels),
        keys=tuple(keys),
        problems=tuple(
            Unusable(reason=Reason[r], what=w, detail=d, patient=p) for r, w, d, p in problems
        ),
    )
