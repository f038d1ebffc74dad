"""Reading of a study as a network's inputs, prepared as for training."""

from __future__ import annotations

import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from client.cohort.decode import Decoded, read_objects
from client.cohort.image import Image, as_input, fitting, measured_on
from client.cohort.image_quality import several_people, two_patient_ids
from client.cohort.images import find_images
from client.cohort.left_out import LeftOut
from client.cohort.scan import scan
from client.cohort.select import Grouping, select
from client.cohort.series_choice import beside_an_answer, check_fits, several_kinds
from client.dicom.contained import contained
from client.dicom.headers.header import read_file
from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reading.files import File
from client.dicom.reading.phases import SLICED
from client.dicom.reading.read import Header
from client.dicom.reading.time_axis import stack_of
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.inference.grid import FrameOrigin, flat_place, volume_place
from client.labels.clinical_columns import encode_rows
from client.labels.label_table import Labels, dicom_keys
from client.radiomics.measured import MeasuredVolume
from client.series.by_row import RuledImages, SeriesRules, choose_of_study
from client.series.fitting import Aliases
from client.series.magnification import several_magnifications
from client.series.selection import Problem
from client.site.cache import Cache
from client.slides.kept_tiles import TileFeatures, kept_slide
from client.slides.tiles import SlideView, slides_of
from common.config.run_config import Images, RunConfig
from common.data.kept_items import in_memory
from common.platform.errors import CohortError, ConfigurationError


@dataclass(frozen=True, kw_only=True)
class TileOrigin:
    """Which tile of a slide an item is."""

    view: SlideView
    number: int  # of the view's boxes


@dataclass(frozen=True, kw_only=True)
class Item:
    """One input of the network."""

    image: Tensor  # (channels, *size); (0,) for a model without images
    table: Tensor  # (columns,); (0,) for a model without a table
    place: FrameOrigin | None  # None for a model without images
    series: str = ""  # SeriesInstanceUID; empty for a model without images
    beside: tuple[Path, ...] = ()  # files of other series, times or slices that it was made of
    tile: TileOrigin | None = None  # of a slide; its image may be features (`keeps_features`)
    volume: MeasuredVolume | None = None  # as it was sent, where outlines in it are measured

    def inputs(self) -> dict[str, Tensor]:
        """Return the item by the names that `common.bundle.onnx.Deployed` takes, (1, ...)."""
        found = {"image": self.image, "table": self.table}
        return {name: value[None] for name, value in found.items() if value.numel()}


def inputs_of(items: Sequence[Item]) -> dict[str, Tensor]:
    """Return some items together as `common.bundle.onnx.Deployed` takes them, (items, ...)."""
    each = [item.inputs() for item in items]
    return {name: torch.cat([one[name] for one in each]) for name in each[0]}


@dataclass(frozen=True, kw_only=True)
class ScoredStudy:
    """What of a study a model can be asked about."""

    patient: str
    items: tuple[Item, ...]  # never empty
    sources: tuple[Path, ...]  # a series that stands for the study where no image is asked about
    unusable: tuple[Unusable, ...]


@dataclass(frozen=True, kw_only=True)
class SiteRows:
    """The site's table, for models that take clinical columns, and who was withdrawn."""

    labels: Labels | None  # None: this model takes none
    withdrawn: frozenset[str]  # PatientIDs
    aliases: Aliases = field(default_factory=dict)  # the site's own words for a run's series


def read_study(files: Sequence[Path], config: RunConfig, rows: SiteRows) -> ScoredStudy:
    """Read one study; CohortError when nothing in it is for this model, or it is several.

    A file, series or row that cannot be used is listed with its reason and left out.
    """
    if not files:
        message = "The study has no files. Pull it from the PACS, or give its folder."
        raise CohortError(message)
    _check_reads_dicom(config)
    site = Path(os.path.commonpath([path.absolute().parent for path in files]))
    headers = {path.absolute(): _header(path) for path in files}
    ours = [path for path, header in headers.items() if is_our_result(header)]
    asked = [path for path in headers if path not in ours]
    seen = [headers[path] or _not_opened(path) for path in asked]
    known = [header for header in seen if isinstance(header, Instance)]
    _check_one_person([one for one in known if one.patient not in rows.withdrawn])
    images = config.cohort.images
    gate = _Gate(config, rows, LeftOut() if images is None else beside_an_answer(known, images))
    ruled = None
    people = {(one.patient, one.study) for one in known}
    # Of several, or of a patient who was withdrawn, the gate says so.
    if images is not None and images.series and len(people) < 2 and not _gone(known, rows):
        ruled = _ruled(seen, gate, SeriesRules(images=images, aliases=rows.aliases))
        gate.ruled = ruled
    with (
        tempfile.TemporaryDirectory(prefix="wardround-study-") as folder,
        PixelStore(Path(folder)) as store,
    ):
        if images is not None and images.slide is not None:
            return _slides(site, asked, gate, config, rows, Cache(Path(folder)))
        grouping = Grouping(by_series=images is not None and images.dimensions == 3)
        found = read_objects(site, asked, gate.check, store, grouping)
        problems = [
            *found.problems,
            *(
                Unusable(
                    reason=Reason.DERIVED, what=str(path.relative_to(site)), detail="our result"
                )
                for path in ours
            ),
        ]
        if images is None:
            items = _row_items(found, config, rows, problems)
        else:
            items, unusable = _image_items(site, found, config, rows, store, ruled)
            problems += unusable
    if not items:
        raise CohortError(_nothing(config, problems))
    _check_one_kind(items, found, config)
    used = {site / item.path for item in found.objects if _gives_grid(item.header, ruled, images)}
    _check_alike([one for one in known if one.path in used], config)
    first = found.objects[0].header
    return ScoredStudy(
        patient=first.patient,
        items=tuple(items),
        sources=tuple(site / o.path for o in found.objects if o.header.series == first.series),
        unusable=tuple(problems),
    )


def _slides(
    site: Path, files: Sequence[Path], gate: _Gate, config: RunConfig, rows: SiteRows, cache: Cache
) -> ScoredStudy:
    """Return a study's slides as tiles, cut as for training."""
    rules = config.cohort.images
    assert rules is not None  # noqa: S101  # whoever calls asked for its slides
    selected = select(scan(site, files), gate.check, Grouping(by_series=False))
    problems = list(selected.problems)
    features = TileFeatures(config=config) if config.keeps_features else None
    items: list[Item] = []
    for slide in slides_of(one.image for one in selected.images):
        try:
            found = kept_slide(slide, rules, cache, features)
            table = _row(slide.images[0].header, config, rows, problems)
        except UnusableFile as problem:
            problems.append(problem.listed(slide.source))
            continue
        problems += [one.listed(slide.source) for one in found.problems]
        items += [
            Item(
                image=image,
                table=table,
                place=None,
                series=slide.source,
                tile=TileOrigin(view=found.view, number=number),
            )
            for number, image in enumerate(in_memory(found.image))
        ]
    if not items:
        raise CohortError(_nothing(config, problems))
    return ScoredStudy(
        patient=selected.images[0].image.patient,
        items=tuple(items),
        sources=items[0].tile.view.files if items[0].tile else (),
        unusable=tuple(problems),
    )


def _stack_names(found: Decoded, images: Images) -> dict[str, str]:
    """Return what each series is called: slices of one stack by the first of its series."""
    join = "none" if images.time is None else images.time.join
    first: dict[tuple[object, ...], str] = {}
    return {
        one.header.series: first.setdefault(stack_of(one.header, join), one.header.series)
        for one in found.objects
    }


def _check_one_kind(items: Sequence[Item], found: Decoded, config: RunConfig) -> None:
    """Refuse several series of slices for one answer, which would be a mean over other pictures.

    Outlines are an answer for each series.
    """
    images = config.cohort.images
    if images is None or config.task.outlines:
        return
    series = {item.series for item in items}
    sliced = images.dimensions == 3 or any(o.header.modality in SLICED for o in found.objects)
    if sliced and len(series) > 1:
        message = (
            f"The study has {len(series)} series that this model can be asked about, and one "
            f"answer is given for all. Give the files of one: {', '.join(sorted(series)[:5])}."
        )
        raise CohortError(message)


def _check_reads_dicom(config: RunConfig) -> None:
    """Refuse a model that learned on files: nobody measured it on DICOM, whose values differ."""
    if config.cohort.images is None or config.cohort.in_dicom:
        return
    message = (
        f"{config.name} learned on files that a table names (cohort.images.format: files), and "
        "predict reads studies in DICOM. Ask it with wardround-simulate evaluate, on a folder with "
        "such files and a labels.csv, or through its MONAI bundle."
    )
    raise ConfigurationError(message)


def _check_alike(images: Sequence[Instance], config: RunConfig) -> None:
    """Refuse pictures of several kinds, which training takes for no items of one row."""
    rules = config.cohort.images
    one = rules is not None and rules.slide is None
    if one and (told := several_magnifications(images)):
        message = f"The study's slides are at {told}. Give the files of one magnification."
        raise CohortError(message)
    if config.cohort.images is None or config.task.outlines:
        return
    if kinds := several_kinds(images):
        message = (
            f"The study's pictures are of {kinds}, and one answer is given for all. Give the files "
            "of one."
        )
        raise CohortError(message)


def _gone(known: Sequence[Instance], rows: SiteRows) -> bool:
    return any(one.patient in rows.withdrawn for one in known)


def _ruled(seen: Sequence[Instance | Quarantined], gate: _Gate, rules: SeriesRules) -> RuledImages:
    """Return the series of the study that the model's own rules choose, as in training."""
    modalities = rules.images.modalities
    there = [
        one
        for one in seen
        if isinstance(one, Instance) and one.modality in (modalities or {one.modality})
    ]
    lost = [one for one in seen if isinstance(one, Quarantined)]
    try:
        return choose_of_study(there, lost, rules, gate.refusal)
    except UnusableFile as problem:
        message = (
            f"The study's series do not fit this model: {problem.reason.name}, {problem.detail}. "
            f"{problem.reason.value}"
        )
        raise CohortError(message) from problem


def _gives_grid(header: Header, ruled: RuledImages | None, images: Images | None) -> bool:
    if ruled is None or images is None:
        return True
    place = ruled.channel.get(header.key)
    return place == images.reference


class _Gate:
    """Lets one study's images through, of a modality and patient that may be scored."""

    def __init__(self, config: RunConfig, rows: SiteRows, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._images = config.cohort.images
        self._rows = rows
        self._seen: set[tuple[str, str]] = set()
        self.ruled: RuledImages | None = None

    def refusal(self, image: Instance) -> Problem | None:
        """Return why an image that fits a rule is no part of an answer; None: it is."""
        try:
            if self._images is not None:
                check_fits(image.header, self._images)
            self._left_out.check(image.patient, image.instance)
        except UnusableFile as problem:
            return problem.reason, problem.detail
        return None

    def check(self, header: Header) -> None:
        """Raise UnusableFile for an image that is left out, CohortError for what ends it all."""
        images, labels = self._images, self._rows.labels
        if header.patient in self._rows.withdrawn:
            message = "The study's patient was withdrawn at this site; nothing of them is scored."
            raise CohortError(message)
        if images is not None:
            check_fits(header, images)
        self._left_out.check(header.patient, header.instance)
        if self.ruled is not None:
            refused = self.ruled.refused.get(header.key)
            if refused is not None:
                raise UnusableFile(*refused)
        if not header.patient:
            raise UnusableFile(Reason.MISSING_HEADER, "PatientID")
        if labels is not None and images is not None:
            labels.find(dicom_keys(header))
        # Before pixels are decoded: somebody may have given the folder of all studies.
        self._seen.add((header.study, header.patient))
        if len(self._seen) > 1:
            message = (
                "The files are of several studies or patients, expected one study. Give one "
                "study's folder or its StudyInstanceUID."
            )
            raise CohortError(message)


def _header(path: Path) -> Instance | Quarantined | None:
    try:
        status = path.stat()
        return read_file(File(path=path, size=status.st_size, mtime_ns=status.st_mtime_ns))
    except OSError:  # listed when it is read
        return None


def _not_opened(path: Path) -> Quarantined:
    return Quarantined(reason=Reason.UNREADABLE, what=str(path))


def _check_one_person(images: Sequence[Instance]) -> None:
    """Refuse images that training would leave out as those of two people."""
    for found in (*several_people(images), *two_patient_ids(images)):
        message = (
            f"The study is not clearly one person's: {found.reason.name}, {found.detail}. "
            f"{found.reason.value}"
        )
        raise CohortError(message)


def is_our_result(found: Instance | Quarantined | None) -> bool:
    """Return whether an image is what a model said before: it came back with its study."""
    from client.results.equipment import MANUFACTURER, PRODUCT

    return isinstance(found, Instance) and (
        (found.manufacturer, found.model) == (MANUFACTURER, PRODUCT)
    )


def _image_items(
    site: Path,
    found: Decoded,
    config: RunConfig,
    rows: SiteRows,
    store: PixelStore,
    ruled: RuledImages | None,
) -> tuple[list[Item], list[Unusable]]:
    """Return an item for each image, and what cannot be used."""
    problems: list[Unusable] = []
    rules = config.cohort.images
    if rules is None:
        return [], problems
    names = _stack_names(found, rules)
    by_series: dict[str, list[tuple[Path, Header]]] = defaultdict(list)
    for item in found.objects:
        by_series[names[item.header.series]].append((site / item.path, item.header))
    paths = {one.header.instance: site / one.path for one in found.objects}
    items: list[Item] = []
    for image in find_images(found, rules, store, ruled):
        if isinstance(image, Unusable):
            problems.append(image)
            continue
        try:
            table = _row(image.header, config, rows, problems)
            with contained(), fitting():
                place = _place(site, image, by_series[names[image.header.series]])
                seen = image.instances | image.beside
                made = Item(
                    image=as_input(image, rules),
                    table=table,
                    place=place,
                    beside=tuple(
                        path
                        for instance, path in paths.items()
                        if instance in seen and path not in place.sources
                    ),
                    series=names[image.header.series],
                    volume=measured_on(image) if config.task.outlines else None,
                )
        except UnusableFile as problem:
            problems.append(problem.listed(image.source))
        else:
            items.append(made)
    return items, problems


def _place(site: Path, image: Image, series: Sequence[tuple[Path, Header]]) -> FrameOrigin:
    if image.geometry is None:
        return flat_place(site / image.source, image.header, image.frame)
    # Of several times, the first gives the volume its slices.
    held = {instance for instance, _ in image.levels}
    own = [(path, header) for path, header in series if header.instance in held]
    return volume_place(own, image.values.shape[:3], image.spacing)


def _row(header: Header, config: RunConfig, rows: SiteRows, problems: list[Unusable]) -> Tensor:
    """Return the clinical columns of an image's row; what is odd in it is listed."""
    if config.cohort.table is None or rows.labels is None:
        return torch.zeros(0)
    row = rows.labels.find(dicom_keys(header))
    values, odd = encode_rows(rows.labels, [row], config.cohort.table)
    problems += odd
    return values[0]


def _row_items(
    found: Decoded, config: RunConfig, rows: SiteRows, problems: list[Unusable]
) -> list[Item]:
    """Return the rows of the study's patient, for a model that takes no images."""
    if config.cohort.table is None or rows.labels is None or not found.objects:
        return []
    patient = found.objects[0].header.patient
    places = [
        row
        for row in rows.labels.distinct(table_columns(config))
        if rows.labels.rows[row]["PatientID"] == patient
    ]
    if not places:
        problems.append(UnusableFile(Reason.LABEL_MISSING).listed("the study's patient"))
        return []
    values, odd = encode_rows(rows.labels, places, config.cohort.table)
    problems += odd
    return [Item(image=torch.zeros(0), table=row, place=None) for row in values]


def table_columns(config: RunConfig) -> tuple[str, ...]:
    """Return the clinical columns that the model takes."""
    table = config.cohort.table
    if table is None:
        return ()
    return tuple([c.column for c in table.numbers] + [c.column for c in table.categories])


def _nothing(config: RunConfig, problems: Sequence[Unusable]) -> str:
    """Return what was found where nothing can be scored."""
    counts = Counter(problem.reason for problem in problems).most_common(4)
    listed = "; ".join(f"{n} x {reason.name} ({reason.value})" for reason, n in counts)
    images = config.cohort.images
    wanted = "rows of the site's table"
    if images is not None:
        kinds = ", ".join(images.modalities) or "any modality"
        wanted = f"{images.dimensions}-D images of {kinds}"
        wanted = wanted if images.slide is None else "whole slides (DICOM)"
    return (
        f"Nothing in this study can be scored by {config.name}, which takes {wanted}. "
        f"{listed or 'No file holds an image.'}"
    )
