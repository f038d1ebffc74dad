"""Release of a cohort's counts: from exact counts to those that may leave.

Guarantee without noise: a count is told when it is 0 or when at least `smallest` patients are
behind it, and what is held back cannot be had by subtracting told counts of the same answer:

    rows of a table held back            at least `smallest` patients are behind them together,
                                         or the smallest told row is held back, too
    few studies or patients left out     `found` is held back, as found - used would tell them
    a file that names no patient         the files of one folder count as one patient
    a line that names no patient         counts for nobody
    a patient with many studies          counts once for `smallest`, and with each study in a row

Guarantee with noise: every patient is in at most one row of each table, so one patient more or
less moves all counts together by at most sqrt(tables) (L2); the caller leaves out what names no
patient, of which one may have much, and charges the mechanism before it is drawn. Not covered: a
patient whose files make the site leave out somebody else's (one image under two PatientIDs,
outliers where the site leaves them out).

Not guaranteed: that two answers, before and after a patient came, cannot be subtracted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from common.messages.cohort_statistics import LEFT_OUT, CohortStatistics, StatisticsTable, Unit
from common.metrics.statistics import Normal, on_grid

#: Tables whose rows are not apart: `found` is `used` and `left out` together.
_TOTALS = ("studies", "patients")


@dataclass(frozen=True, kw_only=True)
class CountMembers:
    """Who is behind each count of a table; never leaves the site."""

    unit: Unit
    rows: Mapping[str, Sequence[str]]  # the patient behind each thing that is counted in a row

    def by_patient(self) -> CountMembers:
        """Return the table with each patient once, in the row that most of theirs are in."""
        votes: dict[str, Counter[str]] = {}
        for row, people in self.rows.items():
            for person in people:
                votes.setdefault(person, Counter())[row] += 1
        rows: dict[str, list[str]] = {row: [] for row in self.rows}
        for person, counted in votes.items():
            rows[max(counted, key=lambda row: (counted[row], row))].append(person)
        return CountMembers(unit="patients", rows=rows)


def released(tables: Mapping[str, CountMembers], smallest: int) -> CohortStatistics:
    """Return exact counts without those that tell of few patients."""
    told = {
        name: StatisticsTable(
            unit=members.unit,
            rows=_totals(members, smallest) if name in _TOTALS else _rows(members, smallest),
        )
        for name, members in tables.items()
    }
    if LEFT_OUT in told:  # there are many reasons, and most never come up
        rows = {row: n for row, n in told[LEFT_OUT].rows.items() if n != 0}
        told[LEFT_OUT] = replace(told[LEFT_OUT], rows=rows)
    return CohortStatistics(smallest=smallest, noise=0.0, tables=told)


def sensitivity(tables: Mapping[str, CountMembers]) -> float:
    """Return how far (L2) one patient more or less can move all noised counts together."""
    return math.sqrt(len(by_patient_apart(tables)))


def noised(
    tables: Mapping[str, CountMembers], smallest: int, standard_deviation: float, noise: Normal
) -> CohortStatistics:
    """Return every count by patient, with Gaussian noise; charge it before."""
    told = {}
    for name, members in by_patient_apart(tables).items():
        counts = {row: len(people) for row, people in members.rows.items()}
        drawn = on_grid(noise.gaussian((len(counts),), standard_deviation).numpy()).tolist()
        told[name] = StatisticsTable(
            unit="patients",
            rows={row: n + z for (row, n), z in zip(counts.items(), drawn, strict=True)},
        )
    return CohortStatistics(smallest=smallest, noise=standard_deviation, tables=told)


def by_patient_apart(tables: Mapping[str, CountMembers]) -> dict[str, CountMembers]:
    """Return the tables with each patient in one row; `found` follows from the others.

    Reasons keep a row each, whether anybody is in it or not.
    """
    found = {}
    for name, members in tables.items():
        if name == "studies":
            continue
        rows = {row: p for row, p in members.rows.items() if (name, row) != ("patients", "found")}
        found[name] = CountMembers(unit=members.unit, rows=rows).by_patient()
    return found


def _totals(members: CountMembers, smallest: int) -> dict[str, float | None]:
    rows = {row: _told(people, smallest) for row, people in members.rows.items()}
    if rows["left out"] is None or rows["used"] is None:
        rows["found"] = None
    return rows


def _rows(members: CountMembers, smallest: int) -> dict[str, float | None]:
    """Return the counts, with complementary suppression over the patients behind them."""
    rows = {row: _told(people, smallest) for row, people in members.rows.items()}
    while True:
        held = {p for row, n in rows.items() if n is None for p in members.rows[row]}
        left = {row: n for row, n in rows.items() if n}
        if not held or len(held) >= smallest or not left:
            return rows
        rows[min(left, key=lambda row: left[row])] = None


def _told(people: Sequence[str], smallest: int) -> float | None:
    patients = len(set(people))
    return float(len(people)) if patients == 0 or patients >= smallest else None
