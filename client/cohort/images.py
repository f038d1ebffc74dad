"""Images of the decoded objects: frames (2-D) or volumes (3-D)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.cohort.decode import Decoded, Object, pixels_of
from client.cohort.image import Image
from client.cohort.select import Owned
from client.dicom.contained import contained
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reading.phases import check_phases
from client.dicom.reading.read import Header
from client.dicom.reading.rescale import Pixels
from client.dicom.reading.time_axis import each_frame, phases_of, stack_of
from client.dicom.reading.uptake import SUV, suv_factor
from client.dicom.reading.volume import levels_of, plane_affine, stack_slices
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.series.alignment import misaligned, shown_in_part
from client.series.by_row import RuledImages
from client.series.common_grid import ChannelVolume, on_grid_of, plane_grid
from client.series.neighbours import neighbours
from common.config.cohort import Time
from common.config.run_config import Images


def find_images(
    decoded: Decoded, rules: Images, store: PixelStore, ruled: RuledImages | None = None
) -> Iterator[Image | Unusable]:
    """Yield every usable image, and what is not usable with its reason.

    `ruled` says which series are the channels, where the run has several.
    """
    factors = _uptakes(decoded) if rules.units == SUV else {}
    if len(rules.series) > 1:
        yield from _of_several_series(_ChannelReading(decoded, rules, store, factors, ruled))
    elif rules.time is not None:
        yield from _at_several_times(decoded, rules, rules.time, store, factors)
    elif rules.neighbours is not None:
        yield from _with_neighbours(decoded, store, factors)
    else:
        yield from _each_alone(decoded, rules, store, factors)


def _each_alone(
    decoded: Decoded,
    rules: Images,
    store: PixelStore,
    factors: Mapping[tuple[str, str], float | UnusableFile],
) -> Iterator[Image | Unusable]:
    """Yield each frame, or each series as a volume."""
    grouping = decoded.grouping
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
                volume = None
                if rules.dimensions == 3:
                    volume = volume_of(source, items, pixels, decoded)
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


# --- several series of one study as channels ------------------------------------------------

_Factors = Mapping[tuple[str, str], float | UnusableFile]
#: The objects of each channel of one study.
_Channels = dict[int, list[Object]]


@dataclass(frozen=True)
class _ChannelReading:
    """What is needed to make channels of a study's objects."""

    decoded: Decoded
    rules: Images
    store: PixelStore
    factors: Mapping[tuple[str, str], float | UnusableFile]
    ruled: RuledImages | None

    def volume(self, items: list[Object]) -> Image:
        """Return a channel's volume."""
        pixels = [_scaled(pixels_of(item, self.store), item, self.factors) for item in items]
        return volume_of(items[0].header.series, items, pixels, self.decoded)


def _of_several_series(reading: _ChannelReading) -> Iterator[Image | Unusable]:
    """Yield the images of every study with its series as channels."""
    rules = reading.rules
    sets = _channel_sets(reading.decoded, reading.ruled or RuledImages())
    for _, channels in sorted(sets.items(), key=lambda one: _source(one[1], rules)):
        yield from _with_channels(channels, reading)


def _channel_sets(decoded: Decoded, ruled: RuledImages) -> dict[tuple[str, str], _Channels]:
    """Return the objects of each channel, by patient and study."""
    found: dict[tuple[str, str], _Channels] = {}
    for item in decoded.objects:
        header = item.header
        channel = ruled.channel.get((header.patient, header.series, header.instance))
        if channel is not None:
            study = found.setdefault((header.patient, header.study), {})
            study.setdefault(channel, []).append(item)
    return found


def _source(channels: _Channels, rules: Images) -> str:
    items = channels.get(rules.reference) or next(iter(channels.values()))
    return items[0].header.series if rules.dimensions == 3 else items[0].path


def _with_channels(channels: _Channels, reading: _ChannelReading) -> Iterator[Image | Unusable]:
    """Yield the images of one study with its other series beside them.

    A channel that is there and cannot be used leaves the study out: only an absent one is zeros.
    """
    rules, decoded = reading.rules, reading.decoded
    source = _source(channels, rules)
    first = next(iter(channels.values()))[0].header
    whose, names = decoded.grouping.whose(first), rules.channel_names
    named = names[rules.reference]
    try:
        with contained():
            _check_whole(channels, (first.patient, first.study), reading)
            base = reading.volume(channels[rules.reference])
            made: list[Image | Unusable] = []
            moving: dict[int, Image] = {}
            whole: dict[int, ChannelVolume] = {}
            for place, items in sorted(channels.items()):
                if place != rules.reference:
                    named = names[place]
                    moving[place] = reading.volume(items)
                    _check_frame(base.header, moving[place].header, rules)
                    whole[place] = _moved(moving[place], base)
                    told = _told(base, whole[place], f"{named} on {names[rules.reference]}")
                    made += [problem.listed(moving[place].source, whose) for problem in told]
            named = names[rules.reference]
            made += _on_base(base, moving, whole, channels[rules.reference], reading)
    except UnusableFile as problem:
        named = f"series {named}: {problem.detail or 'see the reason'}"
        yield UnusableFile(problem.reason, named).listed(source, whose)
        return
    yield from made


def _check_whole(channels: _Channels, study: tuple[str, str], reading: _ChannelReading) -> None:
    """Refuse a study of which a series that was there by its headers has no pixels."""
    absent = (reading.ruled or RuledImages()).absent.get(study, frozenset())
    for place, name in enumerate(reading.rules.channel_names):
        if place not in channels and place not in absent:
            raise UnusableFile(Reason.INCOMPLETE_SERIES, f"nothing of {name} can be read")


def _check_frame(base: Header, other: Header, rules: Images) -> None:
    """Raise NO_COMMON_FRAME where two series do not share a frame of reference, which is named."""
    one, two = base.frame_of_reference, other.frame_of_reference
    if rules.registration == "frame" and (not one or one != two):
        detail = (
            f"its frame of reference is {two or 'not said'}, that of the grid {one or 'neither'}"
        )
        raise UnusableFile(Reason.NO_COMMON_FRAME, detail)


def _told(base: Image, other: ChannelVolume, which: str) -> Iterator[UnusableFile]:
    """Yield a notice where a series shows little of the grid, or lies elsewhere than it says."""
    shown = None if other.padding is None else ~other.padding
    if part := shown_in_part(base.padding, other.padding):
        yield UnusableFile(Reason.SHOWN_IN_PART, f"series {which}: {part}")
    if moved := misaligned(base.grey, other.values, shown):
        yield UnusableFile(Reason.MISALIGNED, f"series {which}: {moved}")


def _on_base(
    base: Image,
    moving: Mapping[int, Image],
    whole: Mapping[int, ChannelVolume],
    items: list[Object],
    reading: _ChannelReading,
) -> Iterator[Image | Unusable]:
    """Yield the image of a volume, or of each of its slices in 2-D."""
    rules = reading.rules
    beside = frozenset[str]().union(*(one.instances for one in moving.values()))
    if rules.dimensions == 3:
        yield replace(base, others=whole, beside=beside)
        return
    check_phases([item.header for item in items])
    for item in items:
        pixels = _scaled(pixels_of(item, reading.store), item, reading.factors)
        for image in _flat_images(item, pixels, reading.decoded):
            if isinstance(image, Unusable):
                yield image
            else:
                others = {n: _in_plane(volume, image, base) for n, volume in moving.items()}
                yield replace(image, others=others, beside=beside)


def _moved(volume: Image, base: Image) -> ChannelVolume:
    if volume.geometry is None or base.geometry is None:
        raise UnusableFile(Reason.NO_GEOMETRY)
    slices, rows, columns = base.values.shape[:3]
    return on_grid_of(
        volume.grey,
        volume.padding,
        volume.geometry.affine,
        base.geometry.affine,
        (slices, rows, columns),
    )


def _in_plane(volume: Image, image: Image, base: Image) -> ChannelVolume:
    """Return a series in the plane of one slice."""
    header, rows, columns = image.header, *image.values.shape[:2]
    if volume.geometry is None or base.geometry is None or header.spacing is None:
        raise UnusableFile(Reason.NO_GEOMETRY)
    corner = np.array(header.positions[image.frame])
    plane = plane_affine(np.zeros(3), header.orientations[image.frame], header.spacing, corner)
    grid = plane_grid(plane, base.geometry.spacing[0])
    found = on_grid_of(
        volume.grey, volume.padding, volume.geometry.affine, grid, (1, rows, columns)
    )
    return ChannelVolume(values=found.values[0], padding=_first(found.padding))


# --- several pictures of every place --------------------------------------------------------


def _at_several_times(
    decoded: Decoded, rules: Images, time: Time, store: PixelStore, factors: _Factors
) -> Iterator[Image | Unusable]:
    """Yield the pictures of every stack of slices, those of one place in order of time."""
    reading = _ChannelReading(decoded, rules, store, factors, None)
    stacks: dict[tuple[object, ...], list[Object]] = defaultdict(list)
    for item in decoded.objects:
        stacks[item.header.patient, *stack_of(item.header, time.join)].append(item)
    for items in sorted(stacks.values(), key=lambda several: several[0].path):
        first = items[0].header
        owned = {decoded.grouping.owned(one.header.patient, one.header.series) for one in items}
        try:
            with contained():
                if owned & decoded.broken_series:
                    raise UnusableFile(Reason.INCOMPLETE_SERIES, f"{len(items)} can be read")
                shots = [shot for item in items for shot in _each_frame(item)]
                held = {id(shot.header): shot for shot in shots}
                headers = [shot.header for shot in shots]
                phases = [
                    [held[id(header)] for header in phase]
                    for phase in phases_of(headers, time.by, time.frames)
                ]
                made = list(_pictured(phases, time, reading))
        except UnusableFile as problem:
            what = first.series or items[0].path
            yield problem.listed(what, decoded.grouping.whose(first))
            continue
        yield from made


def _each_frame(item: Object) -> Iterator[Object]:
    """Yield each frame of an object as an object."""
    for frame, header in enumerate(each_frame(item.header)):
        yield replace(item, header=header, frame=frame if item.header.frames > 1 else None)


def _pictured(
    phases: list[list[Object]], time: Time, reading: _ChannelReading
) -> Iterator[Image | Unusable]:
    """Yield volumes, or slices, with what was there at later times; or each by itself."""
    if reading.rules.dimensions == 3:
        groups = [[reading.volume(phase)] for phase in phases]
    else:
        groups = [[_flat(item, reading) for item in phase] for phase in phases]
    for same in zip(*groups, strict=True):  # one place, or one volume, at all times
        if time.form == "items":
            yield from same
            continue
        base, *later = same
        others = {
            number: ChannelVolume(values=one.grey, padding=one.padding)
            for number, one in enumerate(later, 1)
        }
        instances = frozenset[str]().union(*(one.instances for one in same))
        yield replace(base, others=others, instances=instances)


def _flat(item: Object, reading: _ChannelReading) -> Image:
    """Return the one picture of an object."""
    pixels = _scaled(pixels_of(item, reading.store), item, reading.factors)
    (found,) = _flat_images(item, pixels, reading.decoded)
    if isinstance(found, Unusable):
        raise UnusableFile(found.reason, f"{item.path}: {found.detail}".rstrip(": "))
    return found


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
                    frame=frame if item.frame is None else item.frame,
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


def _with_neighbours(
    decoded: Decoded, store: PixelStore, factors: Mapping[tuple[str, str], float | UnusableFile]
) -> Iterator[Image | Unusable]:
    """Yield each slice between the ones before and after it, (rows, columns, 3)."""
    grouping = decoded.grouping
    series: dict[Owned, list[tuple[Object, int]]] = defaultdict(list)
    for item in _of_one_phase(decoded):
        if isinstance(item, Unusable):
            yield item
            continue
        owned = grouping.owned(item.header.patient, item.header.series)
        series[owned] += [(item, frame) for frame in range(item.header.frames)]
    for owned, slices in sorted(series.items(), key=lambda one: one[0]):
        whose = grouping.whose(slices[0][0].header)
        try:
            with contained():
                if owned in decoded.broken_series:
                    detail = f"{len(slices)} slices can be read"
                    raise UnusableFile(Reason.INCOMPLETE_SERIES, detail)
                beside = neighbours([(item.header, frame) for item, frame in slices])
        except UnusableFile as problem:
            yield problem.listed(owned[1], whose)
            continue
        for (item, frame), near in zip(slices, beside, strict=True):
            places = (slices[near[0]], (item, frame), slices[near[1]])
            try:
                with contained():
                    yield _between(item, frame, places, store, factors)
            except UnusableFile as problem:
                yield problem.listed(f"{item.path} frame {frame + 1}", whose)


def _between(
    item: Object,
    frame: int,
    places: Sequence[tuple[Object, int]],
    store: PixelStore,
    factors: Mapping[tuple[str, str], float | UnusableFile],
) -> Image:
    held = [_scaled(pixels_of(one, store), one, factors) for one, _ in places]
    values = [pixels.values(at) for pixels, (_, at) in zip(held, places, strict=True)]
    if any(one.ndim != 2 for one in values):
        raise UnusableFile(Reason.DECODE_ERROR, "a coloured picture between its neighbours")
    _checked(values[1])
    if not all(np.isfinite(one).all() for one in values):
        raise UnusableFile(Reason.NOT_FINITE, "a slice beside it")
    return Image(
        source=item.path,
        header=item.header,
        values=np.stack(values, axis=-1),
        frame=frame,
        geometry=None,
        first=item.path,
        padding=_first(held[1].padded((slice(frame, frame + 1),))),
        instances=frozenset({item.header.instance}),
        beside=frozenset(one.header.instance for one, _ in places),
    )


def volume_of(source: str, items: list[Object], pixels: list[Pixels], decoded: Decoded) -> Image:
    """Return a series' objects as one volume; UnusableFile says why they are none."""
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
