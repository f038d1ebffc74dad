"""Description of a site's cohort for a run: the patients behind each count, then what may leave."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from client.cohort.quality_refusals import CohortPaths
from client.cohort.site_cohort import SiteCohort
from client.cohort_statistics.account import CohortFacts, StudyAccount, account
from client.cohort_statistics.brightness import mean_intensities
from client.cohort_statistics.outcome_rows import foreground_of, outcomes_of
from client.cohort_statistics.released_counts import CountMembers, noised, released, sensitivity
from client.dicom.index.index import Index
from client.dicom.reasons import NOTICES, Reason
from client.privacy.composition import charged_as
from client.privacy.repeated_answers import AnotherRequest
from client.training.private_round import told_at
from client.training.training_site import Site
from common.config.parts.ranges import UNKNOWN, bin_of
from common.config.run_config import RunConfig
from common.messages.cohort_statistics import (
    AGES,
    AXES,
    AXIS_EXTENTS,
    AXIS_SPACINGS,
    INTENSITIES,
    LEFT_OUT,
    MODALITIES,
    OTHER,
    SERIES,
    SPACINGS,
    CohortStatistics,
    extent_table,
    layout_of,
    spacing_table,
)
from common.messages.wire import Refusal, RefusalReason, SiteStatistics, StatisticsRequest
from common.platform.errors import BudgetExceeded, PrivacyError
from common.privacy.plan import Spend, count_mechanism

Rows = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Telling:
    """What the site's policy says of counts that describe its cohort."""

    smallest_cell: int = 5
    noise: float = 0.0  # standard deviation, in patients; 0: exact counts


@dataclass(frozen=True, kw_only=True)
class DescribableCohort:
    """What is kept of a loaded cohort, so that it can be described without its images."""

    paths: CohortPaths | None = None  # None: nothing is known of its images
    facts: CohortFacts = field(default_factory=CohortFacts)
    images: bool = False  # the run reads images


def describe(
    site: Site, described: DescribableCohort, request: StatisticsRequest, telling: Telling
) -> SiteStatistics | Refusal:
    """Return the site's answer; its noise, if any, is charged before it is drawn.

    A private run is told of the cohort with noise alone, and once: a repetition gets the same.
    """
    config, facts = request.config, described.facts
    spread = _noise_of(config, telling)
    if config.privacy != "none" and (site.guard is None or not site.guard.beside):
        return _refusal(site, request, RefusalReason.STATISTICS)
    if spread > 0:
        try:
            told = site.answers.find(request)
        except AnotherRequest:
            return _refusal(site, request, RefusalReason.ANSWERED)
        if isinstance(told, SiteStatistics):
            return told
    studies: tuple[StudyAccount, ...] = ()
    brightness: Mapping[tuple[str, str], float] = {}
    if described.paths is not None and described.images:
        studies = account_of(described.paths, facts)
        brightness = mean_intensities(studies, described.paths.cache)
    if spread > 0:  # one patient's files that name nobody would count as many people
        studies = tuple(study for study in studies if study.named)
    tables = tables_of(config, studies, facts, brightness)
    smallest = max(telling.smallest_cell, config.evaluation.smallest_cell)
    counts, spend = released(tables, smallest), None
    if spread > 0:
        try:
            counts, spend = _noised(site, request, tables, smallest, spread)
        except BudgetExceeded:
            return _refusal(site, request, RefusalReason.BUDGET)
    answer = SiteStatistics(
        run=request.run, round=request.round, site=site.name, statistics=counts, spend=spend
    )
    if spread > 0:
        site.answers.keep(request, answer)
    return answer


def _noise_of(config: RunConfig, telling: Telling) -> float:
    """Return the noise on each count; whether a private run is told at all is the site's to say."""
    if config.privacy != "none" and telling.noise <= 0:
        return 0.0
    return max(telling.noise, config.evaluation.count_noise)


def _refusal(site: Site, request: StatisticsRequest, reason: RefusalReason) -> Refusal:
    return Refusal(run=request.run, round=request.round, site=site.name, reason=reason)


def used_and_left_out(run: str, described: DescribableCohort) -> str:
    """Return in a line, for the site's log, how much a run uses and why the rest is left out."""
    facts = described.facts
    reasons = Counter(problem.reason for problem in facts.unusable)
    text = f"Run {run} uses {len(facts.patients)} patients."
    # A line of a log is no reason not to train.
    with suppress(Exception):
        if described.paths is not None and described.images:
            studies = account_of(described.paths, facts)
            used = sum(study.used for study in studies)
            text = f"Run {run}: {used} of {len(studies)} studies are used."
            reasons = Counter(s.reason for s in studies if s.reason is not None)
    listed = ", ".join(f"{count} x {reason.name}" for reason, count in reasons.most_common())
    why = f" Left out: {listed}. `wardround-site report` names them." if listed else ""
    return text + why


def account_of(paths: CohortPaths, facts: CohortFacts) -> tuple[StudyAccount, ...]:
    """Return every study, after the index was brought up to date with the folder."""
    with Index(paths.index) as index:
        index.update(paths.data)
        rows, odd = index.instances(paths.data), index.quarantined(paths.data)
        return account(rows, odd, facts, paths.data)


def _noised(
    site: Site,
    request: StatisticsRequest,
    tables: Mapping[str, CountMembers],
    smallest: int,
    spread: float,
) -> tuple[CohortStatistics, Spend]:
    """Charge a Gaussian mechanism on all counts together, then draw it."""
    guard = site.guard
    if guard is None:
        message = f"Site {site.name} has no ledger to charge noise of {spread:g} patients to."
        raise PrivacyError(message)
    mechanism = count_mechanism(sensitivity(tables), spread)
    delta = told_at(site, request.config, guard)
    spend = guard.charge(request, "statistics", mechanism, delta)
    noise = guard.noise.of_round(charged_as(request.run, "statistics"), request.round)
    counts = noised(tables, smallest, spread, noise)
    return counts, spend


# --- who is behind each count --------------------------------------------------------------


def tables_of(
    config: RunConfig,
    studies: Iterable[StudyAccount],
    facts: CohortFacts,
    brightness: Mapping[tuple[str, str], float],
) -> dict[str, CountMembers]:
    """Return the patients behind every count that a run may be told of."""
    listed = tuple(studies)
    used = [study for study in listed if study.used]
    lost = [study for study in listed if not study.used]
    columns: dict[str, Callable[[StudyAccount], str]] = {
        "modality": lambda s: _modality(s.modality),
        "age (years)": lambda s: bin_of(s.age, AGES),
        "pixel spacing (mm)": lambda s: bin_of(s.spacing, SPACINGS),
        "slice distance (mm)": lambda s: bin_of(s.slice_distance, SPACINGS),
        "mean intensity": lambda s: bin_of(brightness.get((s.patient, s.key)), INTENSITIES),
    }
    for place, axis in enumerate(AXES):
        columns[spacing_table(axis)] = functools.partial(_spacing_row, place)
        columns[extent_table(axis)] = functools.partial(_extent_row, place)
    found: dict[str, CountMembers] = {}
    for name, rows in layout_of(config).items():
        if name == "studies":
            people = {"used": _people(used), "left out": _people(lost), "found": _people(listed)}
            if config.cohort.in_dicom:
                found[name] = CountMembers(unit="studies", rows={row: people[row] for row in rows})
        elif name == "patients":
            lines = not config.cohort.in_dicom
            found[name] = CountMembers(
                unit="patients", rows=_patients(rows, (used, lost), facts, lines=lines)
            )
        elif name == LEFT_OUT:
            found[name] = _left_out(lost, facts, images=config.cohort.in_dicom)
        elif name in columns:
            found[name] = CountMembers(unit="studies", rows=_by_row(rows, used, columns[name]))
        else:
            held = facts.parts if name == "split" else facts.outcomes.get(name, {})
            held = (
                facts.fared.get(name.removeprefix(SERIES), {}) if name.startswith(SERIES) else held
            )
            members = {row: tuple(held.get(row, ())) for row in rows}
            found[name] = CountMembers(unit="patients", rows=members)
    return found


def _spacing_row(axis: int, study: StudyAccount) -> str:
    return bin_of(None if study.grid is None else study.grid.spacing[axis], AXIS_SPACINGS)


def _extent_row(axis: int, study: StudyAccount) -> str:
    return bin_of(None if study.grid is None else study.grid.extent[axis], AXIS_EXTENTS)


def _people(studies: Iterable[StudyAccount]) -> tuple[str, ...]:
    return tuple(study.patient for study in studies)


def _by_row(
    rows: tuple[str, ...], studies: Iterable[StudyAccount], row_of: Callable[[StudyAccount], str]
) -> Rows:
    found: dict[str, list[str]] = {row: [] for row in rows}
    for study in studies:
        found[row_of(study)].append(study.patient)
    return {row: tuple(people) for row, people in found.items()}


def _patients(
    rows: tuple[str, ...],
    studies: tuple[Iterable[StudyAccount], Iterable[StudyAccount]],
    facts: CohortFacts,
    *,
    lines: bool,
) -> Rows:
    """Return who is used and left out; a line of a table stands for a patient without images."""
    used, lost = studies
    kept = {*facts.patients, *_people(used)}
    gone = {*_people(lost), *_without_images(facts, lines=lines)} - kept
    sets = {"used": kept, "left out": gone, "found": kept | gone}
    return {row: tuple(sorted(sets[row])) for row in rows}


def _without_images(facts: CohortFacts, *, lines: bool) -> dict[str, Reason]:
    """Return the PatientIDs that the table leaves out, each once, by the last of their reasons.

    A line that names none is nobody's: one patient may have many. `lines` takes single lines of a
    patient's, too, as where a row is all that there is of them.
    """
    silent = {Reason.VALUE_UNUSABLE, Reason.WITHDRAWN, *NOTICES}
    wanted = ("patient ", "line ") if lines else ("patient ",)
    return {
        p.patient: p.reason
        for p in facts.unusable
        if p.patient and p.reason not in silent and (facts.by_patient or p.what.startswith(wanted))
    }


def _left_out(lost: Iterable[StudyAccount], facts: CohortFacts, *, images: bool) -> CountMembers:
    found: dict[str, list[str]] = {reason.name: [] for reason in Reason}
    if not images:
        for patient, reason in _without_images(facts, lines=True).items():
            found[reason.name].append(patient)
        return CountMembers(unit="patients", rows=found)
    for study in lost:
        if study.reason is not None:
            found[study.reason.name].append(study.patient)
    return CountMembers(unit="studies", rows=found)


def _modality(text: str) -> str:
    if not text:
        return UNKNOWN
    return text if text in MODALITIES else OTHER


# --- what is kept of a cohort --------------------------------------------------------------


def facts_of(cohort: SiteCohort, site: Site, config: RunConfig) -> CohortFacts:
    """Return what describes a cohort, without its images."""
    by_patient, items = config.privacy != "none", cohort.items
    owners = [items.pseudonyms[n] if by_patient else "" for n in items.patient.tolist()]
    sources = frozenset(zip(owners, cohort.sources, strict=True) if cohort.sources else ())
    return CohortFacts(
        unusable=cohort.unusable,
        sources=sources,
        by_patient=by_patient,
        patients=cohort.items.pseudonyms,
        parts={
            "train": site.train.pseudonyms,
            "validation": site.validation.pseudonyms,
            "test": site.test.pseudonyms,
        },
        outcomes=outcomes_of(cohort, config) | foreground_of(cohort, config),
        fared=cohort.fared,
    )
