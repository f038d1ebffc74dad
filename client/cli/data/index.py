"""`index`: reads the images once, so that no round waits for it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import typer

from client.site.home import Home
from client.site.site_config import SiteConfig, load_site_config
from client.site.terminal import as_text, say, table
from common.platform.errors import CohortError

_TELL_SECONDS = 5.0
T = TypeVar("T")


def index(home: Home, config: Path | None, *, every: bool) -> None:
    """Read all images once, so that the first round finds them prepared."""
    site = load_site_config(home.site_yaml)
    if config is None:
        _index_folder(home, site, every=every)
    else:
        _index_run(home, site, config, every=every)


def _index_run(home: Home, site: SiteConfig, path: Path, *, every: bool) -> None:
    from client.cohort.column_check import questions_about
    from client.cohort.left_out import LeftOut
    from client.cohort.loading import load_cohort, needed_columns
    from client.cohort.quality_refusals import CohortPaths, images_left_out
    from client.governance.extensions import check_task_allowed
    from client.site.cache import Cache
    from client.site.withdrawals import withdrawn
    from client.training.cohort_features import with_features
    from common.config.run_config import load_config
    from common.extensions.pinning import pinned
    from common.tasks import task_of

    config = pinned(load_config(path), at_site=True).in_force()
    check_task_allowed(config, site.extensions)
    task, cache = task_of(config.task), Cache(home.cache, home.index)
    paths = CohortPaths(data=site.data, labels=site.labels_csv, index=home.index, cache=home.cache)
    with cache.in_use():
        refused = images_left_out(paths, config, site.quality) if site.data.is_dir() else {}
        left_out = LeftOut(withdrawn=withdrawn(home), images=refused)
        cohort = load_cohort(
            site.data, config, task, cache, site.labels_csv, left_out, aliases=site.series_aliases
        )
        if config.model.network == "frozen_features":
            say("Computing the frozen features, once.")
            cohort = with_features(cohort, config, cache)
    if config.cohort.in_dicom:
        _say_join(home, site, needed_columns(config, task), every=every)
    if cohort.doubt:
        raise CohortError(cohort.doubt)
    items = len(cohort.items.patient)
    say(f"{len(cohort.items)} patients with {items} items can be used for {config.name}.")
    for remark in questions_about(site.labels_csv, config):
        say(as_text(remark))
    _say_unusable(
        [(u.reason.name, u.reason.value, u.what, u.detail) for u in cohort.unusable], every=every
    )


def _say_join(home: Home, site: SiteConfig, needed: Sequence[str], *, every: bool) -> None:
    """Say how the table and the images found each other."""
    from client.cohort.join_report import join_report
    from client.dicom.index.index import Index
    from client.files.other_formats import other_formats
    from client.labels.label_table import dicom_keys, read_labels
    from client.site.withdrawals import withdrawn

    labels = read_labels(site.labels_csv, needed, with_images=True, withdrawn=withdrawn(home))
    with Index(home.index) as index:
        report = join_report(labels, (dicom_keys(image.header) for image in index.instances()))
    for line in report.lines():
        say(as_text(line))
    if report.unmatched_rows and (instead := other_formats(site.data, labels.rows)):
        say(as_text(instead))
    lonely = (*report.unmatched_rows, *report.unmatched_images) if every else ()
    if lonely:
        table([(f"  {as_text(o.what)}", as_text(o.value), as_text(o.cause)) for o in lonely])


def _index_folder(home: Home, site: SiteConfig, *, every: bool) -> None:
    from client.cohort.decode import decode
    from client.cohort.scan import dicom_files, scan
    from client.cohort.select import Grouping, select
    from client.dicom.headers.checks import WHOLE_SLIDE
    from client.dicom.index.index import Index
    from client.dicom.pixels.pixel_store import PixelStore
    from client.files.other_formats import other_formats

    if not site.data.is_dir():
        message = f"There is no folder {site.data}. Mount it, or correct data in {home.site_yaml}."
        raise CohortError(message)
    files = dicom_files(site.data, frozenset())
    say(f"Reading {len(files)} files in {site.data}.")
    with PixelStore(home.cache / "pixels") as store, Index(home.index) as index:
        change = index.update(site.data)
        say(f"{change.read} new or changed, {change.gone} gone; decoding what is not decoded yet.")
        selected = select(
            scan(site.data, files, index),
            lambda _header: None,
            Grouping(by_series=False),
            store.withdrawn,
        )
        # A whole slide is read tile by tile, by the run that wants it.
        whole = [one for one in selected.images if one.image.sop_class == WHOLE_SLIDE]
        others = tuple(one for one in selected.images if one.image.sop_class != WHOLE_SLIDE)
        found = decode(replace(selected, images=others), store, index, _told)
    usable = [item.header for item in found.objects] + [one.image.header for one in whole]
    patients = {header.patient for header in usable}
    kinds = Counter(header.modality or "unknown" for header in usable)
    said = ", ".join(f"{count} x {as_text(kind)}" for kind, count in kinds.most_common())
    say(f"{len(usable)} images of {len(patients)} patients can be used ({said or 'none'}).")
    instead = "" if usable else other_formats(site.data)
    if instead:
        say(as_text(instead))
    elif not files:
        say("There are no files there: wardround-site pull, or correct data in site.yaml.")
    _say_unusable(
        [(p.reason.name, p.reason.value, p.what, p.detail) for p in found.problems], every=every
    )


def _told(images: Sequence[T]) -> Iterator[T]:
    """Yield the images and say now and then how far it is."""
    last = time.monotonic()
    for number, image in enumerate(images):
        if time.monotonic() - last > _TELL_SECONDS:
            last = time.monotonic()
            typer.echo(f"  {number} of {len(images)}", err=True)
        yield image


def _say_unusable(problems: Iterable[tuple[str, str, str, str]], *, every: bool) -> None:
    """Say why things cannot be used; single ones are named only where all were asked for."""
    listed = list(problems)
    if not listed:
        return
    counts = Counter((name, meaning) for name, meaning, _, _ in listed)
    say("Not used:")
    table([(f"  {n} x", name, meaning) for (name, meaning), n in counts.most_common()])
    if not every:
        say("--all names each of them.")
        return
    table([(f"  {name}", as_text(what), as_text(detail)) for name, _, what, detail in listed])
