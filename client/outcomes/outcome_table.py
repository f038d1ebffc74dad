"""Building of the table of outcomes: one row a patient or study, known by its origin."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from client.labels.schema import date_in, number_in
from client.labels.units import factor
from client.outcomes.outcomes_yaml import Column, OutcomesPlan
from client.outcomes.records import (
    ConfirmedDiagnosis,
    Observation,
    OutcomeRecords,
    Person,
    StudyRecord,
    Unread,
)

_YEAR = 365.25  # days


@dataclass(frozen=True, kw_only=True)
class OutcomeTable:
    """The table, and everything that did not become part of it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: tuple[Unread, ...]

    def csv(self) -> bytes:
        """Return the table as CSV in UTF-8."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows((self.columns, *self.rows))
        return text.getvalue().encode()


class _Unusable(Exception):
    """A row that cannot be made; says why."""


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One row to be."""

    person: Person
    study: StudyRecord | None
    diagnoses: Sequence[ConfirmedDiagnosis]
    observations: Sequence[Observation]
    last_contact: date | None


def build(plan: OutcomesPlan, records: OutcomeRecords) -> OutcomeTable:
    """Return the table that a plan makes of records."""
    left_out = list(records.unread)
    rows: dict[tuple[str, ...], None] = {}
    for name, case in _cases(plan, records, left_out):
        try:
            origin = _origin(plan, case)
            event, time = _outcome(plan, case, origin)
        except _Unusable as problem:
            left_out.append(Unread(what=name, why=str(problem)))
            continue
        values = [
            _value(column, case, origin, f"{name}, {title}", left_out)
            for title, column in plan.columns.items()
        ]
        rows[(*_key(plan, case), *values, event, time)] = None
    key = () if plan.key == "PatientID" else (plan.key,)
    columns = ("PatientID", *key, *plan.columns, plan.outcome.event, plan.outcome.time)
    return OutcomeTable(columns=columns, rows=tuple(rows), left_out=tuple(left_out))


def _cases(
    plan: OutcomesPlan, records: OutcomeRecords, left_out: list[Unread]
) -> list[tuple[str, _Case]]:
    """Return every row to be, with its name in messages, patients in their order."""
    diagnoses: dict[str, list[ConfirmedDiagnosis]] = defaultdict(list)
    observations: dict[str, list[Observation]] = defaultdict(list)
    studies: dict[str, list[StudyRecord]] = defaultdict(list)
    for diagnosis in records.diagnoses:
        diagnoses[diagnosis.person].append(diagnosis)
    for observation in records.observations:
        observations[observation.person].append(observation)
    for study in records.studies:
        studies[study.person].append(study)
    found: list[tuple[str, _Case]] = []
    for person in sorted(records.persons, key=lambda one: one.patient):
        own = sorted(studies[person.key], key=lambda one: (one.day or date.max, one.uid))
        chosen: list[StudyRecord | None] = [*own[:1]] or [None]
        if plan.key != "PatientID":
            named = [s for s in own if (s.uid if plan.key == "StudyInstanceUID" else s.accession)]
            left_out += [
                Unread(what=f"a study of patient {person.patient}", why=f"it has no {plan.key}")
            ] * (len(own) - len(named))
            chosen = [*named]
        for one in chosen:
            case = _Case(
                person=person,
                study=one,
                diagnoses=diagnoses[person.key],
                observations=observations[person.key],
                last_contact=records.last_contact.get(person.key),
            )
            found.append((" ".join(("patient", *_key(plan, case))), case))
    return found


def _key(plan: OutcomesPlan, case: _Case) -> tuple[str, ...]:
    patient, study = case.person.patient, case.study
    if plan.key == "PatientID" or study is None:
        return (patient,)
    return patient, study.uid if plan.key == "StudyInstanceUID" else study.accession


def _origin(plan: OutcomesPlan, case: _Case) -> date:
    if plan.origin_day is not None:
        return plan.origin_day
    if plan.origin == "study":
        day = case.study.day if case.study is not None else None
        if day is None:
            message = "no study with a date, from which its outcome would count"
            raise _Unusable(message)
        return day
    wanted = frozenset(plan.origin_condition)
    found = [d for d in case.diagnoses if d.codes & wanted]
    days = [d.day for d in found if d.day is not None]
    if not days:
        what = "the diagnosis of origin_condition has no date" if found else "no such diagnosis"
        message = f"{what}, from which its outcome would count"
        raise _Unusable(message)
    return min(days)


def _outcome(plan: OutcomesPlan, case: _Case, origin: date) -> tuple[str, str]:
    """Return event and time; who had the event before the origin was never at risk of it."""
    outcome, person = plan.outcome, case.person
    if person.dead and person.died is None:
        message = "is dead, and nobody says since when"
        raise _Unusable(message)
    if person.died is not None and person.died < origin:
        message = f"died on {person.died}, before the origin {origin}"
        raise _Unusable(message)
    happened = person.died if outcome.death else _first_diagnosis(plan, case, origin)
    open_end, end = outcome.censored == "last_contact", _watched_until(plan, case)
    if happened is not None and (open_end or (end is not None and happened <= end)):
        return "1", outcome.in_unit((happened - origin).days)
    if end is None or end < origin:
        message = f"was not seen after the origin {origin}"
        raise _Unusable(message)
    return "0", outcome.in_unit((end - origin).days)


def _watched_until(plan: OutcomesPlan, case: _Case) -> date | None:
    """Return the last day on which an event would have been seen; nobody's is after their death."""
    died = case.person.died
    if plan.outcome.censored == "last_contact":
        return died or case.last_contact
    end = date_in(plan.outcome.censored)
    return end if died is None or end is None else min(end, died)


def _first_diagnosis(plan: OutcomesPlan, case: _Case, origin: date) -> date | None:
    wanted = frozenset(plan.outcome.condition)
    found = [d for d in case.diagnoses if d.codes & wanted]
    if any(d.day is None for d in found):
        message = "the diagnosis that is the outcome has no date"
        raise _Unusable(message)
    days = [d.day for d in found if d.day is not None]
    if days and min(days) < origin:
        message = f"had the outcome on {min(days)}, before the origin {origin}"
        raise _Unusable(message)
    return min(days, default=None)


def _value(column: Column, case: _Case, origin: date, what: str, left_out: list[Unread]) -> str:
    """Return a cell; nothing that was known only after the origin is part of it."""
    if column.patient == "sex":
        return case.person.sex
    if column.patient == "age":
        born = case.person.born
        return "" if born is None or born > origin else f"{(origin - born).days / _YEAR:.1f}"
    if column.condition:
        wanted = frozenset(column.condition)
        found = [d for d in case.diagnoses if d.codes & wanted]
        if any(d.day is not None and d.day <= origin for d in found):
            return "1"
        if any(d.day is None for d in found):
            left_out.append(Unread(what=what, why="the diagnosis has no date"))
            return ""
        return "0"
    return _measured(column, case, origin, what, left_out)


def _measured(column: Column, case: _Case, origin: date, what: str, left_out: list[Unread]) -> str:
    wanted = frozenset(column.observation)
    dated: list[tuple[date, Observation]] = []
    for one in case.observations:
        if one.codes & wanted:
            if one.day is None:
                left_out.append(Unread(what=what, why="the value has no date"))
            elif one.day <= origin and (
                column.within_days is None or (origin - one.day).days <= column.within_days
            ):
                dated.append((one.day, one))
    for _, one in sorted(dated, key=lambda pair: pair[0], reverse=column.take == "last"):
        if column.unit is None:
            return one.value
        times = factor(one.unit, column.unit) if one.unit else None
        number = number_in(one.value)
        if times is None or number is None:
            why = f"{one.value[:20]} {one.unit or 'without a unit'}, expected {column.unit}"
            left_out.append(Unread(what=what, why=why))
            continue
        return one.value if times == 1 else f"{number * times:.10g}"
    return ""
