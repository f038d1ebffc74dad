"""Asking of sites to describe their cohorts, before a run's first round.

Nobody has to answer: a site that refuses, is silent or says what cannot be is noted with the
reason, and the run goes on. What was saved is not asked for again when the run is resumed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NoReturn, Protocol

from common.messages.cohort_statistics import (
    LEFT_OUT,
    REASON_PATTERN,
    CohortStatistics,
    StatisticsTable,
    layout_of,
)
from common.messages.wire import Refusal, SiteStatistics, StatisticsRequest
from common.platform.durable_files import replace_durably
from common.platform.hash_chain import Fact
from server.files.folder import RunFolder
from server.rounds.cohort_report import cohort_line, write_report
from server.rounds.cohort_survey import Survey
from server.rounds.journal import Journal
from server.rounds.non_admission_reasons import Fault
from server.rounds.update_admission import FaultyAnswer, NotAdmitted

_MOST_REASONS = 200
_SILENT = "it did not answer in time"


class DescribingSites(Protocol):
    """The hospitals, as far as they are asked here."""

    def available(self) -> tuple[str, ...]:
        """Return the names of the sites that can be asked now."""
        ...

    def describe(
        self, request: StatisticsRequest, sites: Sequence[str]
    ) -> Iterator[SiteStatistics | Refusal | NotAdmitted]:
        """Yield the sites' answers."""
        ...


def survey(
    sites: DescribingSites, request: StatisticsRequest, place: RunFolder, journal: Journal
) -> None:
    """Ask the sites and keep what they say, durably and in the journal."""
    asked = tuple(sorted(set(sites.available())))
    found = gathered(sites.describe(request, asked), request, asked)
    write_report(place.report, found)
    facts = {"line": cohort_line(found), **found.to_json()}
    content = json.dumps(facts, indent=1, allow_nan=False).encode()
    replace_durably(place.cohort, content)  # last: with it, nobody is asked again
    journal.write(
        "described",
        {
            "sites": list[Fact](sorted(found.sites)),
            "not_told": dict[str, Fact](found.not_told),
            "sha256": hashlib.sha256(content).hexdigest(),
        },
    )


def gathered(
    answers: Iterable[SiteStatistics | Refusal | NotAdmitted],
    request: StatisticsRequest,
    asked: Sequence[str],
) -> Survey:
    """Return the answers that can be, and for every other site why it has none."""
    told: dict[str, CohortStatistics] = {}
    epsilon: dict[str, float] = {}
    missing = dict.fromkeys(asked, _SILENT)
    for answer in answers:
        site = answer.site
        if site in told or site not in asked:
            continue  # the first answer of a site counts
        try:
            match answer:
                case SiteStatistics():
                    check_statistics(answer, request)
                case Refusal():
                    missing[site] = answer.reason.value
                    continue
                case NotAdmitted():
                    raise FaultyAnswer(answer.fault, answer.detail)
        except FaultyAnswer as error:
            missing[site] = str(error)
            continue
        told[site] = answer.statistics
        missing.pop(site, None)
        if answer.spend is not None:
            epsilon[site] = answer.spend.run_epsilon
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Survey(
        run=request.run,
        asked_at=now,
        sites=dict(sorted(told.items())),
        not_told=missing,
        epsilon=epsilon,
    )


def check_statistics(answer: SiteStatistics, request: StatisticsRequest) -> None:
    """Raise FaultyAnswer for what is no description of a cohort of this run.

    Its tables and rows are those of the configuration, so a site can put no text of its own in.
    """
    if answer.run != request.run:
        raise FaultyAnswer(Fault.WRONG_RUN, f"run={answer.run!r}, expected {request.run!r}")
    if answer.round != request.round:
        raise FaultyAnswer(Fault.WRONG_ROUND, f"round={answer.round}, expected {request.round}")
    found, rules = answer.statistics, request.config.evaluation
    if found.smallest < rules.smallest_cell:
        _refuse(f"smallest={found.smallest}, expected at least {rules.smallest_cell}")
    if not (math.isfinite(found.noise) and found.noise >= rules.count_noise):
        _refuse(f"noise={found.noise:g}, expected at least {rules.count_noise:g}")
    if found.noise > 0 and answer.spend is None:
        raise FaultyAnswer(Fault.NO_SPEND, "spend is missing, and the counts are noised")
    if answer.spend is not None and not math.isfinite(answer.spend.run_epsilon):
        raise FaultyAnswer(Fault.WRONG_SPEND, f"epsilon={answer.spend.run_epsilon}")
    layout = layout_of(request.config)
    for name, table in found.tables.items():
        if name not in layout:
            _refuse(f"{name[:40]!r} is no table of this run")
        _check_rows(name, table, layout[name])
        _check_counts(name, table, found)


def _check_rows(name: str, table: StatisticsTable, expected: Sequence[str]) -> None:
    if name == LEFT_OUT:
        odd = [row for row in table.rows if not re.fullmatch(REASON_PATTERN, row)]
        if odd or len(table.rows) > _MOST_REASONS:
            _refuse(f"{len(table.rows)} reasons, {len(odd)} of them no codes")
    elif set(table.rows) != set(expected):
        _refuse(f"the rows of {name} are not those of this run")


def _check_counts(name: str, table: StatisticsTable, found: CohortStatistics) -> None:
    for row, count in table.rows.items():
        if count is None:
            continue
        if not math.isfinite(count):
            _refuse(f"{name}, {row} is {count}")
        exact = count.is_integer() and (count == 0 or count >= found.smallest)
        if found.noise == 0 and not exact:
            _refuse(f"{name}, {row} is {count:g}, below its own smallest cell or no count")


def _refuse(detail: str) -> NoReturn:
    raise FaultyAnswer(Fault.WRONG_STATISTICS, detail)
