"""FHIR R4 Patients as persons: linked records are of one person (Patient.link).

    replaced-by    the record must not be used; the other one is, in its place
    replaces       the other way round
    refer          the other one is the main record
    seealso        both are in use

https://hl7.org/fhir/R4/patient-definitions.html#Patient.link. Of linked records one person is made:
named and described by the one that is left in use, with everything that refers to any of them. A
death on any of them is a death. What they say of birth, sex and death and do not agree on is
listed, with what is used. A link may name the other by an identifier instead: it is followed where
one record has that. Links that go round in a circle, a record that is replaced by several, and one
that cannot be read leave the person out, with the reason.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from client.outcomes.fhir_patient import BY, NOBODY, PatientRecord, escaped, read_record
from client.outcomes.fhir_server import FhirServer
from client.outcomes.fhir_values import UnusableResource
from client.outcomes.outcomes_yaml import OutcomesPlan
from client.outcomes.records import OutcomeRecords, Person, Unread
from common.platform.errors import CohortError, ConfigurationError

#: https://hl7.org/fhir/R4/datatypes.html#id
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
#: Patients asked for at once: a search's address stays below what servers take.
AT_ONCE = 20


class FhirPersons:
    """Finds the persons of a server, each once."""

    def __init__(self, plan: OutcomesPlan, server: FhirServer) -> None:
        self._plan, self._server = plan, server
        self._root = plan.fhir.url if plan.fhir is not None else ""
        self._seen: dict[str, PatientRecord] = {}  # everything that was sent
        self._found = OutcomeRecords()

    def find(self, patients: frozenset[str] | None, found: OutcomeRecords) -> dict[str, str]:
        """Add the persons to the records; return the person's key by the key of each record.

        `patients` are the PatientIDs that are asked for; None: everybody.
        """
        self._found = found
        members = self._asked_for(patients)
        self._add_linked(members, everybody=patients is None)
        owner: dict[str, str] = {}
        people: dict[str, list[str]] = defaultdict(list)
        for group in _groups([self._seen[key] for key in sorted(members)]):
            try:
                person = self._person(group, patients)
            except UnusableResource as problem:
                found.unread.append(Unread(what=f"Patient/{group[0].key}", why=str(problem)))
                continue
            found.persons.append(person)
            people[person.patient].append(person.key)
            owner |= {record.key: person.key for record in group}
        self._leave_out_doubles(people, owner)
        return owner

    def _asked_for(self, patients: frozenset[str] | None) -> set[str]:
        """Search by identifier; return the keys of those who were asked for."""
        system = self._plan.patient_identifier or ""
        names = [""] if patients is None else sorted(map(escaped, patients))
        members: set[str] = set()
        for some in _batches([f"{system}|{name}" for name in names]):
            for record in self._records([("identifier", some)]):
                if patients is None or record.fault or (record.names | record.old_names) & patients:
                    members.add(record.key)
        return members

    def _records(self, search: Sequence[tuple[str, str]]) -> Iterator[PatientRecord]:
        for resource in self._server.search("Patient", search):
            record = read_record(resource, self._plan.patient_identifier, self._root)
            self._seen.setdefault(record.key, record)
            yield record

    def _add_linked(self, members: set[str], *, everybody: bool) -> None:
        """Add the records that are linked to these, in either direction, until there is no more."""
        asked: set[str] = set()
        backwards = self._ask_backwards([("link:missing", "false")]) if everybody else True
        by_identifier = True
        while True:
            before = len(members)
            self._resolve(asked)
            targets = {other for key in members for _, other in self._seen[key].links if other}
            unseen = targets - self._seen.keys() - asked
            for some in _batches(sorted(filter(_ID.fullmatch, unseen))):
                for _ in self._records([("_id", some)]):
                    pass  # they are noted
            new = [f"Patient/{key}" for key in sorted(members - asked)]
            tokens = sorted({token for key in members - asked for token in self._seen[key].tokens})
            if backwards and not everybody:
                backwards = self._ask_backwards([("link", some) for some in _batches(new)])
            if backwards and by_identifier and not everybody:
                by_identifier = self._ask_backwards(
                    [("link:identifier", some) for some in _batches(tokens)]
                )
            self._resolve(asked)
            asked |= targets | members
            members |= targets & self._seen.keys()
            members |= {
                key
                for key, record in self._seen.items()
                if {other for _, other in record.links} & members
            }
            if len(members) == before:
                return

    def _resolve(self, asked: set[str]) -> None:
        """Put the key of a record in the place of an identifier that it alone has."""
        while True:
            named = {o for r in self._seen.values() for _, o in r.links if o.startswith(BY)}
            if named <= asked:
                break
            for token in sorted(named - asked):
                for _ in self._records([("identifier", token.removeprefix(BY))]):
                    pass  # they are noted
            asked |= named
        for key, record in self._seen.items():
            links = tuple((kind, self._key_of(other)) for kind, other in record.links)
            self._seen[key] = replace(record, links=links)

    def _key_of(self, other: str) -> str:
        held = self._holders(other)
        return held[0] if len(held) == 1 else other

    def _holders(self, other: str) -> list[str]:
        """Return the keys of the records with an identifier that a link names."""
        if not other.startswith(BY):
            return []
        token = other.removeprefix(BY)
        return sorted(key for key, record in self._seen.items() if token in record.tokens)

    def _ask_backwards(self, searches: Iterable[tuple[str, str]]) -> bool:
        """Ask for records by their links; return False where the server knows no such search.

        A record that was replaced may say so while the one in its place says nothing.
        """
        try:
            for search in searches:
                for record in self._records([search]):
                    if not record.links:  # it passes the search over, and sends everybody
                        raise _no_such_search()
        except (CohortError, ConfigurationError) as problem:
            why = f"cannot be asked which records link to a patient: {problem}"[:200]
            self._found.unread.append(Unread(what="the server", why=why))
            return False
        return True

    def _person(self, group: Sequence[PatientRecord], patients: frozenset[str] | None) -> Person:
        """Return the person of linked records; Odd says why there is none."""
        for record in group:
            if record.fault:
                more = f" (linked with Patient/{group[0].key})" if len(group) > 1 else ""
                raise UnusableResource(record.fault + more)
        main = self._main(group)
        others = [record for record in group if record.key != main.key]
        name = self._name(main, others, patients)
        days = [record.died for record in others if record.died is not None]
        person = Person(
            key=main.key,
            patient=name,
            sex=main.sex or next((r.sex for r in others if r.sex), ""),
            born=main.born or next((r.born for r in others if r.born), None),
            dead=any(record.dead for record in group),
            died=main.died or min(days, default=None),
        )
        self._found.unread += [
            Unread(what=f"Patient/{main.key}", why=why) for why in _differences(person, group)
        ]
        return person

    def _main(self, group: Sequence[PatientRecord]) -> PatientRecord:
        """Return the record that stands for all."""
        keys = {record.key for record in group}
        replaced = {r.key for r in group for kind, _ in r.links if kind == "replaced-by"}
        replaced |= {o for r in group for kind, o in r.links if kind == "replaces"}
        left = [record for record in group if record.key not in replaced]
        if not left:
            said = (o for r in group for kind, o in r.links if kind == "replaced-by")
            lost = sorted(other for other in said if other not in keys)
            message = f"is replaced {self._lost(lost[0]) if lost else 'in a circle'}"
            raise UnusableResource(message)
        if len(_groups(left)) > 1:
            message = f"is replaced by several: {', '.join(f'Patient/{r.key}' for r in left)}"
            raise UnusableResource(message)
        referring = {r.key for r in left for kind, o in r.links if kind == "refer" and o in keys}
        return min(left, key=lambda r: (r.key in referring, not r.active, min(r.names, default="")))

    def _lost(self, other: str) -> str:
        """Return by what a record is replaced that is not found, or found several times."""
        if not other.startswith(BY):
            return f"by Patient/{other}, which is not there" if other else "by " + NOBODY
        held = ", ".join(f"Patient/{key}" for key in self._holders(other))
        return f"by the Patient {other}, which {f'{held} have' if held else 'is not there'}"

    def _name(
        self, main: PatientRecord, others: Sequence[PatientRecord], patients: frozenset[str] | None
    ) -> str:
        """Return the PatientID of a person: that of the main record, else one with images."""
        every = frozenset[str]().union(*(r.names | r.old_names for r in (main, *others)))
        names = main.names
        if patients is not None:
            names = (names & patients) or (every & patients)
        if not names or (len(names) > 1 and names <= main.names):
            system = self._plan.patient_identifier
            message = f"has {len(names)} identifiers of {system}, expected 1"
            raise UnusableResource(message)
        name = min(names)
        for other in sorted(every - {name}):
            if patients is None or other in patients:
                why = f"is the same person as {name}, who has the row of both"
                self._found.unread.append(Unread(what=f"patient {other}", why=why))
        return name

    def _leave_out_doubles(
        self, people: Mapping[str, Sequence[str]], owner: dict[str, str]
    ) -> None:
        """Leave out a PatientID that several records have, which no link makes one person."""
        found = self._found
        for name, keys in people.items():
            if len(keys) > 1:
                why = f"is in {len(keys)} records that are not linked; merge them"
                found.unread.append(Unread(what=f"patient {name}", why=why))
                for key in [record for record, person in owner.items() if person in keys]:
                    del owner[key]
        kept = set(owner.values())
        found.persons = [person for person in found.persons if person.key in kept]


def _groups(records: Iterable[PatientRecord]) -> list[list[PatientRecord]]:
    """Return records by person, as their links say, in the order of their keys."""
    listed = {record.key: record for record in records}
    beside: dict[str, set[str]] = {key: set() for key in listed}
    for record in listed.values():
        for _, other in record.links:
            if other in listed:
                beside[record.key].add(other)
                beside[other].add(record.key)
    groups: list[list[PatientRecord]] = []
    done: set[str] = set()
    for key in listed:
        reached, open_ends = {key}, [key]
        while open_ends:
            for other in beside[open_ends.pop()] - reached:
                reached.add(other)
                open_ends.append(other)
        if key not in done:
            groups.append([listed[one] for one in sorted(reached)])
        done |= reached
    return groups


def _differences(person: Person, group: Sequence[PatientRecord]) -> Iterator[str]:
    """Yield in what the records of a person do not agree, and what of it is used."""
    deaths = {str(r.died) if r.died else "a death without its day" for r in group if r.dead}
    days = {one for one in deaths if "death" not in one}
    life = {"alive"} if any(r.alive for r in group) else set()
    used = str(person.died) if person.died else "the death"
    for what, held, taken in (
        ("birth dates", _apart({r.birth for r in group if r.born}), str(person.born)),
        ("sexes", {r.sex for r in group if r.sex}, person.sex),
        ("deaths", (days or deaths) | life, used),
    ):
        if len(held) > 1:
            records = ", ".join(f"Patient/{record.key}" for record in group)
            said = " and ".join(sorted(held))
            yield f"has records that differ in {what} ({records}): {said}; {taken} is used"


def _apart(births: set[str]) -> set[str]:
    """Return the birth dates without those that another is only more exact than."""
    return {one for one in births if not any(o != one and o.startswith(one) for o in births)}


def _batches(names: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(names), AT_ONCE):
        yield ",".join(names[start : start + AT_ONCE])


def _no_such_search() -> CohortError:
    return CohortError("it sends records without links, too")
