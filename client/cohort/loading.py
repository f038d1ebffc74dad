"""From a site's folder to a cohort, in six steps; each takes what the one before returns.

scan       the files of the folder, and their headers    client/cohort/scan.py
select     those that the run takes                      client/cohort/select.py
decode     their pixels                                  client/cohort/decode.py
prepare    images and outlines as the network takes them client/cohort/prepare.py
join       images with their rows of the table           client/cohort/join.py
assemble   tensors, by patient                           client/cohort/assemble.py

Where images are files that the table names, client/cohort/files.py stands for scan and select.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from client.cohort.assemble import assemble
from client.cohort.column_check import doubt_of, numbers_of
from client.cohort.decode import decode
from client.cohort.files import select_files, told_by_line
from client.cohort.image_masks import MaskRules, mask_rules
from client.cohort.join import join_images, join_rows
from client.cohort.left_out import ColumnsUnusable, LeftOut, NobodyUsable, whats_there
from client.cohort.prepare import (
    Prepared,
    keep_prepared,
    kept_images,
    prepare_images,
    prepare_slides,
    prepared_key,
)
from client.cohort.scan import dicom_files, scan
from client.cohort.select import ImageGate, Selected, WantedImages, select
from client.cohort.site_cohort import SiteCohort
from client.dicom.index.index import Index
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reasons import Reason, Unusable
from client.labels.label_table import Labels, read_labels
from client.series.by_row import RuledImages
from client.series.fitting import NO_ALIASES, Aliases
from client.site.cache import PIXELS, Cache
from client.slides.kept_tiles import TileFeatures
from common.config.run_config import Images, RunConfig
from common.config.tasks.forms import LabelMap
from common.platform.errors import CohortError
from common.tasks import Task

_NOTHING = LeftOut()


def load_cohort(
    site: Path,
    config: RunConfig,
    task: Task,
    cache: Cache,
    labels_csv: Path | None = None,
    left_out: LeftOut = _NOTHING,
    *,
    aliases: Aliases = NO_ALIASES,
) -> SiteCohort:
    """Read a site's folder for a run; its table is `labels_csv`, or labels.csv in the folder.

    `aliases` are the site's own words for the series that the run's rules name.

    Nothing is read of patients who were withdrawn; whoever hands them over asked for them while
    holding the cache (`Cache.in_use`), so that no withdrawal comes in between. Images that the
    site's rules of quality refuse are listed with the rule's reason.

    CohortError when the folder or its table is missing, nobody in it can be used, or a column that
    the run reads says nothing here (client/cohort/column_check.py); single files, rows and patients
    that cannot be used are listed in `unusable` and left out.

    Guarantee for a run with privacy: what becomes of a patient follows from the files and rows of
    that PatientID alone. Rows must name it, and speak of its images alone; UIDs that PatientIDs
    share, copies and broken files are each one's own; files that do not say whose they are are
    nobody's. Neither few patients nor what a column holds stop such a run: `doubt` says it.
    """
    if not site.is_dir():
        message = f"There is no folder {site}. Each site is a folder with a labels.csv."
        raise CohortError(message)
    needed = needed_columns(config, task)
    table = labels_csv or site / "labels.csv"
    labels = _labels(table, needed, config, left_out)
    rules = config.cohort.images
    if rules is None:
        prepared, joined = None, join_rows(labels, needed)
    else:
        wanted = _wanted(rules, config, labels, left_out, aliases)
        prepared = _prepared(site, wanted, cache, config)
        if not config.cohort.in_dicom:
            told = told_by_line(prepared.problems, labels, rules.file_columns)
            prepared = replace(prepared, problems=tuple(told))
        index = cache.index if config.cohort.in_dicom else None
        joined = join_images(site, prepared, labels, index)
    unused = (
        *labels.unusable,
        *_withdrawn(left_out),
        *(() if prepared is None else prepared.problems),
        *joined.problems,
    )
    fared = {} if prepared is None else prepared.fared
    doubt = doubt_of(labels, [item.row for item in joined.items], config, table)
    if doubt and not labels.by_patient:
        raise ColumnsUnusable(doubt, unused, fared)
    cohort = assemble(site.name, config, labels, prepared, joined)
    cohort = replace(cohort, unusable=(*unused, *cohort.unusable), fared=fared)
    if not len(cohort.items) and not labels.by_patient:
        usable = None if prepared is None else len(prepared.keys)
        message = f"Nobody in {site} can be used for run {config.name}: "
        message += whats_there(labels, usable, cohort.unusable, site)
        raise NobodyUsable(message, cohort.unusable, fared)
    nobody = "" if len(cohort.items) else "Nobody here can be used for it."
    return replace(cohort, doubt=doubt or nobody)


def _prepared(site: Path, wanted: WantedImages, cache: Cache, config: RunConfig) -> Prepared:
    """Return a site's prepared images, from the cache when nothing has changed."""
    in_dicom = wanted.rules.format == "dicom"
    files = dicom_files(site, wanted.mask_files()) if in_dicom else []
    try:
        if wanted.rules.slide is not None:
            # Each slide has its own entry in the cache.
            with PixelStore(cache.folder / PIXELS) as store, Index(cache.index) as index:
                selected, _ = _selected(site, files, wanted, index, store)
            return prepare_slides(selected, wanted, cache, _features(config))
        key = prepared_key(site, files, wanted)
        kept = kept_images(cache, key, wanted)
        if kept is not None:
            return kept
        with PixelStore(cache.folder / PIXELS) as store, Index(cache.index) as index:
            selected, ruled = _selected(site, files, wanted, index, store)
            decoded = decode(selected, store, index if in_dicom else None)
            prepared = prepare_images(site, decoded, wanted, store, cache, ruled)
        keep_prepared(cache, key, prepared)
    except (OSError, sqlite3.Error) as error:
        message = f"Cannot use the cache {cache.folder}: {error}. Free space there or delete it."
        raise CohortError(message) from error
    return prepared


def _selected(
    site: Path, files: list[Path], wanted: WantedImages, index: Index, store: PixelStore
) -> tuple[Selected, RuledImages | None]:
    """Scan and select: by headers, or by the files that rows name."""
    if wanted.rules.format == "files":
        found = select_files(site, wanted, store.withdrawn)
        return found.selected, found.ruled
    scanned = scan(site, files, index)
    gate = ImageGate(wanted, site, index)
    return select(scanned, gate.check, wanted.grouping(), store.withdrawn), gate.choice.ruled


def _features(config: RunConfig) -> TileFeatures | None:
    """Return what takes the place of tiles where the run's network works on frozen features."""
    return TileFeatures(config=config) if config.keeps_features else None


def _wanted(
    rules: Images, config: RunConfig, labels: Labels, left_out: LeftOut, aliases: Aliases
) -> WantedImages:
    return WantedImages(
        rules=rules,
        labels=labels,
        left_out=left_out,
        masks=_mask_rules(config, labels),
        aliases=aliases,
    )


def _labels(table: Path, needed: tuple[str, ...], config: RunConfig, left_out: LeftOut) -> Labels:
    return read_labels(
        table,
        needed,
        with_images=config.cohort.images is not None,
        withdrawn=left_out.withdrawn,
        numbers=numbers_of(config),
        by_patient=config.privacy != "none",
        file_column=config.cohort.file_column,
    )


def _withdrawn(left_out: LeftOut) -> list[Unusable]:
    gone = sorted(left_out.withdrawn)
    return [Unusable(reason=Reason.WITHDRAWN, what=f"patient {name}") for name in gone]


def _mask_rules(config: RunConfig, labels: Labels) -> MaskRules | None:
    form = config.task.predicts
    if not isinstance(form, LabelMap):
        return None
    return mask_rules(form.structures, form.mask, labels)


def needed_columns(config: RunConfig, task: Task) -> tuple[str, ...]:
    """Return every column of labels.csv that the run reads."""
    table, split = config.cohort.table, config.cohort.split
    names = list(task.columns())
    names += config.cohort.images.file_columns if config.cohort.images else ()
    if table is not None:
        names += [c.column for c in table.numbers]
        names += [c.column for c in table.categories]
    side = config.cohort.images.laterality_column if config.cohort.images else None
    names += [n for n in (split.column, config.cohort.confounder, side) if n is not None]
    return tuple(dict.fromkeys(names))
