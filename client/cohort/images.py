"""Images of the decoded objects: frames (2-D) or volumes (3-D), as values before any network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from client.cohort.decode import Decoded, Object, pixels_of
from client.cohort.select import Owned
from client.dicom.contained import contained
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reading.phases import check_phases
from client.dicom.reading.read import Header
from client.dicom.reading.rescale import Pixels
from client.dicom.reading.uptake import SUV, suv_factor
from client.dicom.reading.volume import Geometry, levels_of, stack_slices
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.labels.label_table import dicom_keys
from common.config.run_config import Images
from common.data.unfit_image import Fault, UnfitImage

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


def find_images(decoded: Decoded, rules: Images, store: PixelStore) -> Iterator[Image | Unusable]:
    """Yield every usable image, and what is not usable with its reason."""
    grouping = decoded.grouping
    factors = _uptakes(decoded) if rules.units == SUV else {}
    if rules.dimensions == 2:
        parts: dict[Owned, list[Object]] = {}
        for item in _of_one_phase(decoded):
            if isinstance(item, Unusable):
                yield item
            else:
                parts["", item.path] = [item]
    else:
        parts = defaultdict(list)
        for item in decoded.objects:
            parts[grouping.owned(item.header.patient, item.header.series)].append(item)
    for (_, source), items in sorted(parts.items()):
        try:
            with contained():
                pixels = [_scaled(pixels_of(item, store), item, factors) for item in items]
                volume = _volume(source, items, pixels, decoded) if rules.dimensions == 3 else None
        except UnusableFile as problem:
            yield problem.listed(source, grouping.whose(items[0].header))
            continue
        if volume is None:
            yield from _flat_images(items[0], pixels[0], decoded)
        else:
            yield volume


def _uptakes(decoded: Decoded) -> dict[tuple[str, str], float | UnusableFile]:
    """Return by what each PET series of a patient becomes SUV, or why it cannot."""
    series: dict[tuple[str, str], list[Header]] = defaultdict(list)
    for item in decoded.objects:
        if item.header.tracer is not None:
            series[item.header.patient, item.header.series].append(item.header)
    found: dict[tuple[str, str], float | UnusableFile] = {}
    for key, headers in series.items():
        try:
            with contained():
                found[key] = suv_factor(headers)
        except UnusableFile as problem:
            found[key] = problem
    return found


def _scaled(
    pixels: Pixels, item: Object, factors: Mapping[tuple[str, str], float | UnusableFile]
) -> Pixels:
    factor = factors.get((item.header.patient, item.header.series), 1.0)
    if isinstance(factor, UnusableFile):
        raise UnusableFile(factor.reason, factor.detail)
    if factor == 1:
        return pixels
    return replace(pixels, slope=pixels.slope * factor, intercept=pixels.intercept * factor)


def _of_one_phase(decoded: Decoded) -> Iterator[Object | Unusable]:
    """Yield the objects of series that show each place once; the others with their reason."""
    series: dict[tuple[str, str], list[Object]] = defaultdict(list)
    for item in decoded.objects:
        header = item.header
        place = header.series or f"study {header.study}"
        series[header.patient, place].append(item)
    for items in series.values():
        try:
            with contained():
                check_phases([item.header for item in items])
        except UnusableFile as problem:
            for item in items:
                yield problem.listed(item.path, decoded.grouping.whose(item.header))
        else:
            yield from items


def _flat_images(item: Object, pixels: Pixels, decoded: Decoded) -> Iterator[Image | Unusable]:
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
            yield problem.listed(name, decoded.grouping.whose(item.header))
        else:
            yield image


def _volume(source: str, items: list[Object], pixels: list[Pixels], decoded: Decoded) -> Image:
    if not source:
        raise UnusableFile(Reason.MISSING_HEADER, "SeriesInstanceUID")
    if decoded.grouping.owned(items[0].header.patient, source) in decoded.broken_series:
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


@contextmanager
def fitting() -> Iterator[None]:
    """Raise UnusableFile where no network's input, or no mask for it, can be made of an image."""
    try:
        yield
    except UnfitImage as error:
        raise UnusableFile(_UNFIT[error.fault], str(error)) from error
