"""`measure`: volumes, shapes, grey values and ejection fractions of outlines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client.dicom.reasons import NOTICES
from client.measurement.measured_page import html_of, show
from client.measurement.measured_table import check_target, values_of, write_table
from client.measurement.plan import MeasurePlan
from client.measurement.site_measurements import SiteMeasurements, measure_site
from client.results.measured_report import MeasuredStudy, write_measured
from client.results.score import Score
from client.results.writing import Result
from client.site.cache import Cache
from client.site.home import MEASURED_PAGE, MEASURED_TABLE, Home
from client.site.pacs_section import PacsConfig
from client.site.site_config import SiteConfig, load_site_config
from client.site.terminal import as_text, say
from client.site.withdrawals import withdrawn
from client.site.yaml_part import load_part
from common.platform.durable_files import replace_durably
from common.platform.errors import CohortError, ConfigurationError, ExitCode, WardroundError

if TYPE_CHECKING:
    from client.pacs.sending.delivery import Delivered


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What was asked for on the command line."""

    plan: Path | None  # MEASURE.yaml
    bundle: Path | None  # of a model whose outlines are measured, in place of a plan
    labels: Path | None  # the table that is measured from; None: the site's
    out: Path | None  # None: the home's own folder
    reports: bool  # write a DICOM SR a study
    send: bool  # and bring those into the PACS
    every: bool
    as_json: bool


def measure(home: Home, wanted: MeasureOptions) -> ExitCode:
    """Measure every mask of the table, and write and show what was found.

    RUN_FAILED when a result did not arrive in the PACS.
    """
    site = load_site_config(home.site_yaml)
    pacs = _pacs(home, site) if wanted.send else None
    out = wanted.out or home.measurements
    table = wanted.labels or site.labels_csv
    check_target(out / MEASURED_TABLE, table)
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    source = _of_model if wanted.bundle is not None else _of_masks
    plan, found, results, unwritten = source(home, site, table, wanted)
    if not found.rows:
        if wanted.as_json:
            say(json.dumps(as_json(found), indent=1))
        else:
            show(found, every=wanted.every)
        message = f"Nothing could be measured, so {out / MEASURED_TABLE} was not written."
        raise CohortError(message)
    path = write_table(found, plan, out / MEASURED_TABLE, table)
    replace_durably(out / MEASURED_PAGE, html_of([found], plan).encode(), mode=0o600)
    delivered, fault = _delivered(results, pacs)
    if wanted.as_json:
        sent = [[one.result.path.name, one.state.name, one.detail] for one in delivered]
        say(json.dumps({**as_json(found), "no_report": unwritten, "sent": sent}, indent=1))
    else:
        show(found, every=wanted.every)
        say(f"Written to {path}: the table with a column for each measurement.")
        say(f"To use it in runs, write `labels: {path}` in {home.site_yaml}.")
        say(f"To read: {out / MEASURED_PAGE}. Nothing of it leaves this site.")
        for one in unwritten:
            say(as_text(one))
        if results:
            say(f"Reports ({len(results)} files): {home.results}")
        _say_sent(delivered)
    if fault is not None:
        raise fault
    arrived = not unwritten and all(one.arrived for one in delivered)
    return ExitCode.DONE if pacs is None or arrived else ExitCode.RUN_FAILED


_Found = tuple[MeasurePlan, SiteMeasurements, list[Result], list[str]]


def _of_masks(home: Home, site: SiteConfig, table: Path, wanted: MeasureOptions) -> _Found:
    """Measure what people drew."""
    if wanted.plan is None:
        message = "Say what to measure: a MEASURE.yaml, or --bundle FOLDER for a model's outlines."
        raise ConfigurationError(message)
    plan, cache = load_part(wanted.plan, MeasurePlan), Cache(home.cache, home.index)
    with cache.in_use():
        found = measure_site(site.data, plan, cache, table, withdrawn(home))
    results, unwritten = _reports(found, plan, home.results) if wanted.reports else ([], [])
    return plan, found, results, unwritten


def _of_model(home: Home, site: SiteConfig, table: Path, wanted: MeasureOptions) -> _Found:
    """Measure what a model outlines; its reports are those of `predict`."""
    if wanted.plan is not None or wanted.bundle is None:
        message = "Give a MEASURE.yaml or --bundle FOLDER: a bundle says itself what it outlines."
        raise ConfigurationError(message)
    # Imported here: torch takes its time, and a wrong path should not wait for it.
    from client.inference.calibration.trained_on import trained_on
    from client.inference.inputs import check_bundle
    from client.inference.local import local_of
    from client.inference.trained_model import open_model
    from client.measurement.predicted_outlines import measure_predicted, plan_of
    from client.results.writing import write_results

    check_bundle(wanted.bundle)
    model = open_model(wanted.bundle, site.extensions)
    plan, results, unwritten = plan_of(model), list[Result](), list[str]()

    def keep(score: Score) -> None:
        if not wanted.reports:
            return
        home.results.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            results.extend(write_results(score, home.results))
        except CohortError as problem:
            unwritten.append(f"No report of {score.sources[0]}: {problem}")

    found = measure_predicted(
        site.data,
        model,
        local_of(home, model, explain=False),
        home.index,
        table,
        learned=trained_on(home.trained, model.name.fingerprint, model.seed),
        keep=keep,
    )
    return plan, found, results, unwritten


def _reports(
    found: SiteMeasurements, plan: MeasurePlan, folder: Path
) -> tuple[list[Result], list[str]]:
    """Write a report for each row; return why one cannot be written, which stops no other."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    results, unwritten = [], []
    for row in found.rows:
        study = MeasuredStudy(
            masks=row.masks, fractions=row.fractions, plan=plan.fingerprint, codes=plan.codes
        )
        try:
            results.append(write_measured(study, folder))
        except CohortError as problem:
            unwritten.append(f"No report of {row.patient}: {problem}")
    return results, unwritten


def _delivered(
    results: Sequence[Result], pacs: PacsConfig | None
) -> tuple[tuple[Delivered, ...], WardroundError | None]:
    """Send reports where a PACS is to have them; what was measured is said all the same."""
    if pacs is None or not results:
        return (), None
    from client.pacs.sending.delivery import deliver

    try:
        return deliver(results, pacs), None
    except WardroundError as error:
        return (), error


def _say_sent(delivered: Sequence[Delivered]) -> None:
    for one in delivered:
        detail = f" {as_text(one.detail)}" if one.detail else ""
        say(f"  {one.result.path.name}: {one.state.value}.{detail}")


def _pacs(home: Home, site: SiteConfig) -> PacsConfig:
    if site.pacs is None:
        message = (
            f"{home.site_yaml} names no PACS that reports could be sent to. Fill in its section "
            "pacs, or leave --send out."
        )
        raise ConfigurationError(message)
    return site.pacs


def as_json(found: SiteMeasurements) -> dict[str, object]:
    """Return all that was measured and was not, for programs."""
    return {
        "research": "for research, not for clinical use",
        "measured": [
            {
                "patient": row.patient,
                "line": found.labels.lines[row.row],
                "values": dict(values_of(row)),
            }
            for row in found.rows
        ],
        "not_measured": [[u.reason.name, u.what, u.detail] for u in found.left_out],
        "worth_a_look": [
            [u.reason.name, u.what, u.detail] for u in found.unusable if u.reason in NOTICES
        ],
    }
