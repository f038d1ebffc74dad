"""Measurement of the masks that a site's table names.

Nothing of it leaves the site: no message is made of what is measured. It is a table and reports in
the site's own folders, and results for its PACS where its admin sends them.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from client.cohort.decode import Object, decode
from client.cohort.files import select_files
from client.cohort.image_masks import mask_path, mask_rules, shared_masks
from client.cohort.left_out import LeftOut
from client.cohort.scan import dicom_files, scan
from client.cohort.select import Grouping, Selected, SelectedImage, WantedImages, select
from client.dicom.contained import contained
from client.dicom.index.index import Index
from client.dicom.masks.kept_mask import forgotten
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reading.read import Header
from client.dicom.reasons import NOTICES, Reason, Unusable, UnusableFile
from client.labels.label_table import Labels, dicom_keys, read_labels
from client.measurement.drawn_on import named_in, worth_decoding
from client.measurement.ejection_fraction import ejection_fraction
from client.measurement.mask_reading import MaskReading
from client.measurement.plan import MeasurePlan
from client.radiomics.measured import MeasuredMask
from client.site.cache import PIXELS, Cache
from common.config.run_config import Images
from common.platform.errors import CohortError

#: How volumes in files are read, of any size: nothing is made of them for a network.
_FILES = Images.model_validate({"size": [16, 16, 16], "format": "files"})
#: By row of the table and name of the mask: the instances that it says it was drawn on.
_Named = Mapping[tuple[int, str], frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class MeasuredRow:
    """What was measured of a row of the table."""

    row: int  # of the table
    patient: str
    masks: tuple[MeasuredMask, ...]
    fractions: Mapping[str, float]  # by structure: ejection fraction, %


@dataclass(frozen=True, kw_only=True)
class SiteMeasurements:
    """What was measured at a site, and everything that was not, with its reason."""

    name: str  # the site's folder
    labels: Labels
    rows: tuple[MeasuredRow, ...]  # those of which anything was measured
    unusable: tuple[Unusable, ...]  # notices too, of what was measured and is worth a look

    @property
    def left_out(self) -> tuple[Unusable, ...]:
        """What was not measured."""
        return tuple(one for one in self.unusable if one.reason not in NOTICES)


def measure_site(
    site: Path,
    plan: MeasurePlan,
    cache: Cache,
    labels_csv: Path | None = None,
    withdrawn: frozenset[str] = frozenset(),
) -> SiteMeasurements:
    """Measure the masks of every row of a site's table, which is labels.csv in its folder.

    CohortError when folder or table is missing; a row, mask or image that cannot be used is listed
    with its reason, and stops no other. Of patients who were withdrawn nothing is read.
    """
    if not site.is_dir():
        message = f"There is no folder {site}. Each site is a folder with a labels.csv."
        raise CohortError(message)
    table = labels_csv or site / "labels.csv"
    columns = tuple(dict.fromkeys(plan.columns.values()))
    file_column = _FILES.file_columns[0] if plan.format == "files" else ""
    labels = read_labels(
        table, columns, with_images=True, withdrawn=withdrawn, file_column=file_column
    )
    try:
        with PixelStore(cache.folder / PIXELS) as store, Index(cache.index) as index:
            return _measured(site, plan, labels, store, index)
    except (OSError, sqlite3.Error) as error:
        message = f"Cannot use the cache {cache.folder}: {error}. Free space there or delete it."
        raise CohortError(message) from error


@forgotten()
def _measured(
    site: Path, plan: MeasurePlan, labels: Labels, store: PixelStore, index: Index
) -> SiteMeasurements:
    """Find the images of each mask by their headers, decode those, and measure row by row."""
    selected = _selected(site, plan, labels, store, index)
    named = _named(site, plan, labels)
    worth = _worth_decoding(selected, labels, named)
    decoded = decode(worth, store, index if plan.format == "dicom" else None)
    objects: dict[int, list[Object]] = defaultdict(list)
    for item in decoded.objects:
        objects[labels.find(dicom_keys(item.header))].append(item)
    headers = [item.header for item in decoded.objects]
    shared = (
        shared_masks(headers, labels, mask_rules(plan.structures, plan.columns[n], labels))
        for n in plan.columns
    )
    reading = MaskReading(
        site=site,
        plan=plan,
        labels=labels,
        store=store,
        decoded=decoded,
        shared=frozenset().union(*shared),
    )
    problems = [
        one
        for one in (*labels.unusable, *decoded.problems)
        if one.reason is not Reason.SEGMENTATION  # a mask that another row names, or nobody
    ]
    rows = [
        _row(row, objects[row], named, reading, problems) for row in sorted(labels.index.values())
    ]
    return SiteMeasurements(
        name=site.name,
        labels=labels,
        rows=tuple(row for row in rows if row.masks),
        unusable=tuple(dict.fromkeys(problems)),
    )


def _selected(
    site: Path, plan: MeasurePlan, labels: Labels, store: PixelStore, index: Index
) -> Selected:
    """Return the images that rows of the table are of."""

    def wanted(header: Header) -> None:
        if not header.patient:
            raise UnusableFile(Reason.MISSING_HEADER, "PatientID")
        if header.modality not in (plan.modalities or {header.modality}):
            raise UnusableFile(Reason.WRONG_MODALITY, header.modality)
        labels.find(dicom_keys(header))

    if plan.format == "files":
        asked = WantedImages(rules=_FILES, labels=labels, left_out=LeftOut(), masks=None)
        return select_files(site, asked, store.withdrawn).selected
    masks = frozenset(row[column] for row in labels.rows for column in plan.columns.values())
    scanned = scan(site, dicom_files(site, masks), index)
    return select(scanned, wanted, Grouping(by_series=True), store.withdrawn)


def _named(site: Path, plan: MeasurePlan, labels: Labels) -> _Named:
    found: dict[tuple[int, str], frozenset[str]] = {}
    for row in labels.index.values():
        for name, column in plan.columns.items():
            with suppress(UnusableFile):  # whoever reads the mask says why there is none
                found[row, name] = named_in(mask_path(site, labels.rows[row][column]))
    return found


def _worth_decoding(selected: Selected, labels: Labels, named: _Named) -> Selected:
    images: dict[int, list[SelectedImage]] = defaultdict(list)
    for one in selected.images:
        images[labels.find(dicom_keys(one.image.header))].append(one)
    paths = {
        one.path
        for (row, _), instances in named.items()
        for one in worth_decoding(images[row], instances)
    }
    chosen = tuple(one for one in selected.images if one.path in paths)
    return replace(selected, images=chosen)


def _row(
    row: int,
    objects: Sequence[Object],
    named: _Named,
    reading: MaskReading,
    problems: list[Unusable],
) -> MeasuredRow:
    """Return what a row's masks measure; what they do not is added to the problems."""
    patient = reading.labels.rows[row].get("PatientID", "")
    what = f"patient {patient}" if patient else f"line {reading.labels.lines[row]}"

    def tell(problem: UnusableFile, mask: str = "") -> None:
        detail = f"{mask}: {problem.detail}" if mask else problem.detail
        problems.append(UnusableFile(problem.reason, detail).listed(what, patient))

    masks = []
    for name in reading.plan.columns:
        instances = named.get((row, name), frozenset())
        try:
            with contained():
                masks.append(reading.of(row, name, objects, instances, partial(tell, mask=name)))
        except UnusableFile as problem:
            tell(problem, name)
    fractions = dict(_fractions(masks, reading.plan, tell)) if masks else {}
    return MeasuredRow(row=row, patient=patient, masks=tuple(masks), fractions=fractions)


def _fractions(
    masks: Iterable[MeasuredMask], plan: MeasurePlan, tell: Callable[[UnusableFile], None]
) -> Iterator[tuple[str, float]]:
    """Yield each structure's ejection fraction, in %; tell of those that there are not."""
    wanted, by_name = plan.ejection_fraction, {mask.name: mask for mask in masks}
    if wanted is None:
        return
    end_diastole, end_systole = map(by_name.get, (wanted.end_diastole, wanted.end_systole))
    if end_diastole and end_systole and end_diastole.sources == end_systole.sources:
        detail = f"both masks were drawn on the same {len(end_systole.sources)} images"
        tell(UnusableFile(Reason.PHASE_MISSING, detail))
        return
    for structure in wanted.structures:
        volumes = [
            None if one is None else one.volume_of(structure) for one in (end_diastole, end_systole)
        ]
        try:
            yield structure, ejection_fraction(*volumes)
        except UnusableFile as problem:
            tell(UnusableFile(problem.reason, f"{structure}: {problem.detail}"))
