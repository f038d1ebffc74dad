"""Gathering of the readiness report from folder, rules and a run's needs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from client.cohort.column_check import questions_about
from client.cohort.image_quality import QualityVerdict, Suspect
from client.cohort.left_out import ColumnsUnusable, LeftOut, NobodyUsable
from client.cohort.loading import load_cohort
from client.cohort.pixel_quality import PixelSuspects, look_at_pixels
from client.cohort.quality_refusals import CohortPaths, images_left_out, judged, reader_of
from client.cohort.site_cohort import SiteCohort
from client.cohort.split import site_key
from client.cohort_statistics.account import CohortFacts, StudyAccount, account
from client.cohort_statistics.brightness import mean_intensities
from client.cohort_statistics.description import facts_of, tables_of
from client.cohort_statistics.released_counts import CountMembers, released
from client.dicom.headers.header import read_file
from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.index.index import Index, Tell
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reading.files import File
from client.dicom.reasons import Unusable
from client.readiness.kinds import kinds, remarks
from client.readiness.needs import causes, column_rows, files_named, label_rows, mask_rows, needs_of
from client.readiness.pictures import SeenImage, pictures_of
from client.readiness.report import (
    Amount,
    CountTable,
    Readiness,
    SeriesRow,
    Speed,
    amount,
    reason_rows,
)
from client.site.cache import PIXELS, Cache
from client.site.home import Home
from client.site.site_config import SiteConfig
from client.site.withdrawals import withdrawn
from client.training.cohort_features import site_of
from common.config.run_config import RunConfig
from common.messages.cohort_statistics import LEFT_OUT, SERIES
from common.platform.errors import CohortError
from common.tasks import task_of

#: Files that are read again for the speed, where the index was up to date.
_MEASURED = 300
_MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True)
class FolderContents:
    """What lies in the folder, by the index."""

    rows: tuple[Instance, ...]
    quarantined: tuple[Quarantined, ...]
    files_per_second: float
    bytes_per_second: float
    measured: int  # files


def readiness(
    home: Home, site: SiteConfig, config: RunConfig | None, tell: Tell | None = None
) -> Readiness:
    """Return the report; CohortError only where the folder itself is not there."""
    if not site.data.is_dir():
        message = f"There is no folder {site.data}. Mount it, or correct data in {home.site_yaml}."
        raise CohortError(message)
    paths = CohortPaths(data=site.data, labels=site.labels_csv, index=home.index, cache=home.cache)
    seen = look(paths, tell)
    loaded = _cohort(home, site, paths, config)
    studies = account(seen.rows, seen.quarantined, loaded.facts, site.data.absolute())
    pixels = _pixels(paths, seen.rows, site)
    verdict = _judged(paths, seen.rows, site, config, pixels)
    if config is None:
        refused = {str(suspect.row.path) for suspect in verdict.left_out}
        studies = tuple(_readable(study, refused) for study in studies)
    used = [study for study in studies if study.used]
    lost = [study for study in studies if not study.used]
    exact = _exact(config, studies, loaded.facts, home.cache)
    images = config is not None and config.cohort.in_dicom
    in_files = bool(config is not None and config.cohort.file_column)
    amounts = amount(studies), amount(used), amount(lost)
    if config is not None and not images:
        amounts = _of_table(exact)
    return Readiness(
        site=site.name,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        folder=str(site.data),
        run=config.name if config else "",
        fingerprint=config.fingerprint() if config else "",
        stopped_by=loaded.stopped_by,
        found=amounts[0],
        used=amounts[1],
        left_out=amounts[2],
        reasons=reason_rows(
            _problems(_less_masks(seen, paths), loaded, verdict, site.data.absolute()),
            lost if images and loaded.known else (),
        ),
        suspects=reason_rows(_listed(verdict.warned, site.data.absolute())),
        looked_at=(pixels.looked_at, len(seen.rows)),
        text_read=pixels.text_read,
        remarks=remarks(seen.rows),
        kinds=kinds(seen.rows),
        needs=needs_of(config, used, loaded.facts, seen.rows) if config else (),
        series=_series(loaded.facts, config, site),
        labels=() if in_files else label_rows(paths.labels, seen.rows),
        unmatched=() if in_files else causes(site.data, paths.labels, seen.rows),
        masks=mask_rows(paths.labels),
        columns=column_rows(paths.labels, config),
        questions=tuple(questions_about(paths.labels, config)) if config else (),
        tables=_counted(exact),
        speed=_speed(seen, paths),
        pictures=loaded.pictures,
        told=released(exact, _smallest(site, config)) if config and exact else None,
        telling=_telling(site, config),
    )


def look(paths: CohortPaths, tell: Tell | None = None) -> FolderContents:
    """Bring the index up to date and measure how fast files are read."""
    with Index(paths.index) as index:
        begun = time.perf_counter()
        change = index.update(paths.data, tell)
        seconds = time.perf_counter() - begun
        rows = tuple(index.instances(paths.data))
        odd = tuple(index.quarantined(paths.data))
    count = change.read
    sample = [row.path for row in rows[:: max(1, len(rows) // _MEASURED)]][:_MEASURED]
    if not count and sample:  # nothing was new: read some of it again
        begun = time.perf_counter()
        for path in sample:
            with suppress(OSError):
                status = path.stat()
                read_file(File(path=path, size=status.st_size, mtime_ns=status.st_mtime_ns))
        seconds, count = time.perf_counter() - begun, len(sample)
    return FolderContents(
        rows=rows,
        quarantined=odd,
        measured=count,
        files_per_second=count / seconds if count else 0.0,
        bytes_per_second=_reading(sample),
    )


def _reading(sample: Sequence[Path]) -> float:
    """Return bytes a second of reading whole files."""
    begun, count = time.perf_counter(), 0
    for path in sample:
        try:
            count += len(path.read_bytes())
        except OSError:
            continue  # it is listed with its reason
    return count / max(time.perf_counter() - begun, 1e-6)


@dataclass(frozen=True, kw_only=True)
class _Cohort:
    facts: CohortFacts = field(default_factory=CohortFacts)
    stopped_by: str = ""
    known: bool = True  # False: it stopped before anybody was looked at
    pictures: tuple[SeenImage, ...] = ()


def _cohort(home: Home, site: SiteConfig, paths: CohortPaths, config: RunConfig | None) -> _Cohort:
    """Load the run's cohort; where nobody can be used, say why instead."""
    gone = withdrawn(home)
    if config is None:
        return _Cohort(facts=CohortFacts())
    try:
        cache = Cache(home.cache, home.index)
        with cache.in_use():
            left_out = LeftOut(withdrawn=gone, images=images_left_out(paths, config, site.quality))
            task = task_of(config.task)
            cohort: SiteCohort = load_cohort(
                site.data, config, task, cache, paths.labels, left_out, aliases=site.series_aliases
            )
    except NobodyUsable as error:
        looked = not isinstance(error, ColumnsUnusable)
        facts = CohortFacts(unusable=error.unusable, fared=error.fared)
        return _Cohort(facts=facts, stopped_by=str(error), known=looked)
    except CohortError as error:
        return _Cohort(stopped_by=str(error), known=False)
    parts = site_of(cohort, config, site_key(home.identity_key))
    return _Cohort(
        facts=facts_of(cohort, parts, config),
        stopped_by=cohort.doubt,
        pictures=pictures_of(cohort.items),
    )


# --- what was found ------------------------------------------------------------------------


def _readable(study: StudyAccount, refused: set[str]) -> StudyAccount:
    """Return the study as used where an image of it can be read and no rule refuses it."""
    return replace(study, used=any(str(path) not in refused for path in study.images))


def _pixels(paths: CohortPaths, rows: Sequence[Instance], site: SiteConfig) -> PixelSuspects:
    with PixelStore(paths.cache / PIXELS) as store:
        return look_at_pixels(rows, store, reader_of(site.quality))


def _judged(
    paths: CohortPaths,
    rows: Sequence[Instance],
    site: SiteConfig,
    config: RunConfig | None,
    pixels: PixelSuspects,
) -> QualityVerdict:
    try:
        return judged(rows, config, site.quality, paths.labels, pixels)
    except CohortError:  # no table, so no side in it; said above
        return judged(rows, None, site.quality, paths.labels, pixels)


def _problems(
    seen: FolderContents, loaded: _Cohort, verdict: QualityVerdict, folder: Path
) -> list[Unusable]:
    """Return everything that is left out, each thing once for a reason."""
    found = list(loaded.facts.unusable)
    told = {(problem.reason, problem.what) for problem in found}
    # A run says of a whole series what is said here of its files.
    series = {_name(s.row.path, folder): s.row.series for s in verdict.left_out}
    more = [*_listed(verdict.left_out, folder), *(_below(q, folder) for q in seen.quarantined)]
    for problem in more:
        keys = {(problem.reason, problem.what), (problem.reason, series.get(problem.what, ""))}
        if not keys & told:
            told.add((problem.reason, problem.what))
            found.append(problem)
    return found


def _less_masks(seen: FolderContents, paths: CohortPaths) -> FolderContents:
    """Leave out of what is quarantined the files that the table names: masks are in use."""
    named = files_named(paths.labels)
    folder = paths.data.absolute()
    left = tuple(q for q in seen.quarantined if _name(Path(q.what), folder) not in named)
    return replace(seen, quarantined=left)


def _listed(suspects: Iterable[Suspect], folder: Path) -> list[Unusable]:
    return [
        Unusable(reason=s.reason, what=_name(s.row.path, folder), detail=s.detail) for s in suspects
    ]


def _below(problem: Quarantined, folder: Path) -> Unusable:
    name = _name(Path(problem.what), folder)
    return Unusable(reason=problem.reason, what=name, detail=problem.detail)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


# --- counts, speed, and what would leave ---------------------------------------------------


def _of_table(exact: Mapping[str, CountMembers]) -> tuple[Amount, Amount, Amount]:
    """Return how many patients a table without images comes to: found, used, left out."""
    rows = exact["patients"].rows if exact else {}
    found, used, lost = (len(rows.get(name, ())) for name in ("found", "used", "left out"))
    return Amount(patients=found), Amount(patients=used), Amount(patients=lost)


def _exact(
    config: RunConfig | None, studies: Sequence[StudyAccount], facts: CohortFacts, cache: Path
) -> dict[str, CountMembers]:
    if config is None or not facts.patients:
        return {}
    images = config.cohort.in_dicom
    brightness = mean_intensities(studies, cache) if images else {}
    return tables_of(config, studies if images else (), facts, brightness)


def _series(
    facts: CohortFacts, config: RunConfig | None, site: SiteConfig
) -> tuple[SeriesRow, ...]:
    images = None if config is None else config.cohort.images
    found = []
    for rule in () if images is None else images.series:
        ways = facts.fared.get(rule.name, {})
        counts = {way: len(ways.get(way, ())) for way in ("matched", "ambiguous", "missing")}
        words = site.series_aliases.get(rule.name, ())
        found.append(SeriesRow(rule=rule.name, own_words=words, **counts))
    return tuple(found)


def _counted(exact: Mapping[str, CountMembers]) -> tuple[CountTable, ...]:
    return tuple(
        CountTable(
            name=name,
            unit=members.unit,
            rows=tuple((row, len(people)) for row, people in members.rows.items()),
        )
        for name, members in exact.items()
        if name not in {"studies", "patients", LEFT_OUT} and not name.startswith(SERIES)
    )


def _speed(seen: FolderContents, paths: CohortPaths) -> Speed:
    needed = sum(
        row.rows * row.columns * row.samples * row.frames * max(row.bits_allocated // 8, 1)
        for row in seen.rows
    )
    place = next(p for p in (paths.cache, *paths.cache.parents) if p.exists())
    return Speed(
        files=seen.measured,
        files_per_second=seen.files_per_second,
        megabytes_per_second=seen.bytes_per_second / _MEGABYTE,
        cache_needed=needed,
        disk_free=shutil.disk_usage(place).free,
    )


def _smallest(site: SiteConfig, config: RunConfig) -> int:
    return max(site.policy.smallest_cell, config.evaluation.smallest_cell)


def _telling(site: SiteConfig, config: RunConfig | None) -> str:
    """Return what the policy says of counts that leave, in plain words."""
    policy = site.policy
    if not policy.statistics:
        return "Nothing of this is told to the coordinator: policy.statistics is false."
    smallest = policy.smallest_cell if config is None else _smallest(site, config)
    noise = max(policy.statistics_noise, config.evaluation.count_noise if config else 0.0)
    if config is not None and config.privacy != "none" and not policy.statistics_noise > 0:
        return (
            "Nothing of this is told to the coordinator of a private run: policy.statistics_noise "
            "is 0. The counts below stay here."
        )
    if noise > 0:
        return (
            "Once before a run the coordinator is told counts by patient, each with noise of "
            f"{noise:g} patients that is charged to the ledger."
        )
    return (
        "Once before a run the coordinator is told the counts below, and no count of fewer than "
        f"{smallest} patients."
    )
