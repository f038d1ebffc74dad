"""OMOP Common Data Model (5.3, 5.4) as records; the database is only read.

Guarantee: only SELECT is sent (whatever else would be refused before it reaches the database), and
every value travels beside its statement, never in it. The connection's URL, which holds a
password, is read from a file for this user alone and stands in no message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from client.outcomes.outcomes_yaml import OutcomesPlan, Resource, SqlSource
from client.outcomes.records import (
    ConfirmedDiagnosis,
    Observation,
    OutcomeRecords,
    Person,
    Sex,
    StudyRecord,
    Unread,
)
from client.site.private_file import read_secret
from common.platform.errors import CohortError, ConfigurationError, Unreachable

if TYPE_CHECKING:
    from sqlalchemy import ColumnClause, Connection, Engine, TableClause

#: Values of one statement; SQLite and SQL Server take no more than about a thousand.
_AT_ONCE = 500
#: gender_concept_id of the standard vocabulary.
_SEXES: dict[int, Sex] = {8507: "M", 8532: "F", 8521: "O"}
_UCUM = "UCUM"
_TABLES = {
    "person": (
        "person_id",
        "person_source_value",
        "gender_concept_id",
        "birth_datetime",
        "year_of_birth",
        "month_of_birth",
        "day_of_birth",
    ),
    "death": ("person_id", "death_date"),
    "observation_period": ("person_id", "observation_period_end_date"),
    "condition_occurrence": ("person_id", "condition_concept_id", "condition_start_date"),
    "measurement": (
        "measurement_id",
        "person_id",
        "measurement_concept_id",
        "measurement_date",
        "value_as_number",
        "operator_concept_id",
        "unit_concept_id",
        "unit_source_value",
    ),
    "concept": ("concept_id", "concept_code", "vocabulary_id"),
    "image_occurrence": ("person_id", "image_study_uid", "image_occurrence_date"),
}
#: operator_concept_id of "=": 4172703; 0 says that there is none.
_EQUAL = frozenset({None, 0, 4172703})

_Row = Sequence[object]


class Omop:
    """An OMOP database as a source of records; use it as a context."""

    def __init__(self, plan: OutcomesPlan, source: SqlSource) -> None:
        self._plan, self._source = plan, source
        self._engine = _engine(source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.dispose()

    def records(self, patients: frozenset[str] | None) -> OutcomeRecords:
        """Return what there is of these PatientIDs; None: of everybody."""
        from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError

        found = OutcomeRecords()
        try:
            with self._engine.connect() as connection:
                self._read(connection, patients, found)
        except OperationalError as error:
            if _lacks_table(error):
                raise _no_omop(error) from error
            message = (
                f"The database of {self._source.url_file} does not answer "
                f"({type(error.orig).__name__}). Look whether it runs and takes this user."
            )
            raise Unreachable(message) from error
        except (DatabaseError, InterfaceError) as error:
            raise _no_omop(error) from error
        return found

    def _read(
        self, connection: Connection, patients: frozenset[str] | None, found: OutcomeRecords
    ) -> None:
        self._persons(connection, patients, found)
        known = sorted({int(person.key) for person in found.persons})
        for row in self._rows(connection, "observation_period", "person_id", known):
            found.seen(str(row[0]), _day(row[1]))
        if self._plan.key == "StudyInstanceUID" or self._plan.origin == "study":
            for row in self._rows(connection, "image_occurrence", "person_id", known):
                day = _day(row[2])
                found.seen(str(row[0]), day)
                found.studies.append(
                    StudyRecord(person=str(row[0]), uid=_text(row[1]), accession="", day=day)
                )
        persons = set(known)
        wanted = _numbers(self._plan.conditions())
        for row in self._rows(connection, "condition_occurrence", "condition_concept_id", wanted):
            if row[0] in persons:
                found.seen(str(row[0]), _day(row[2]))
                found.diagnoses.append(
                    ConfirmedDiagnosis(
                        person=str(row[0]), codes=frozenset({_text(row[1])}), day=_day(row[2])
                    )
                )
        if wanted and persons and not found.diagnoses:
            self._ask_about("Condition", "condition_occurrence", wanted)
        self._measurements(connection, persons, found)

    def _ask_about(self, kind: Resource, table: str, concepts: Sequence[int]) -> None:
        """Refuse what would make everybody healthy: nobody has a concept that was asked for."""
        if kind in self._plan.none_expected:
            return
        asked = ", ".join(map(str, concepts))[:200]
        message = (
            f"{table} has no row of {asked} for any patient. Compare the concepts with those that "
            "the database holds (standard ones, not of the source). If it is right that nobody has "
            f"one, write none_expected: [{kind}] into OUTCOMES.yaml."
        )
        raise CohortError(message)

    def _persons(
        self, connection: Connection, patients: frozenset[str] | None, found: OutcomeRecords
    ) -> None:
        names = None if patients is None else sorted(patients)
        rows = list(self._rows(connection, "person", "person_source_value", names))
        deaths = dict[object, date | None]()
        for row in self._rows(connection, "death", "person_id", [row[0] for row in rows]):
            day = _day(row[1])
            before = deaths.get(row[0])
            deaths[row[0]] = day if before is None or day is None else min(day, before)
        seen: set[str] = set()
        for row in rows:
            name = _text(row[1])
            if not name or name in seen:
                why = "has the person_source_value of another" if name else "has no source value"
                found.unread.append(Unread(what=f"person {row[0]}", why=why))
                continue
            seen.add(name)
            found.persons.append(
                Person(
                    key=str(row[0]),
                    patient=name,
                    sex=_sex(row[2]),
                    born=_birth(row),
                    dead=row[0] in deaths,
                    died=deaths.get(row[0]),
                )
            )

    def _measurements(
        self, connection: Connection, persons: set[int], found: OutcomeRecords
    ) -> None:
        wanted = _numbers(self._plan.observations())
        rows = [
            row
            for row in self._rows(connection, "measurement", "measurement_concept_id", wanted)
            if row[1] in persons
        ]
        if wanted and persons and not rows:
            self._ask_about("Observation", "measurement", wanted)
        concepts = sorted({int(str(row[6])) for row in rows if row[6]})
        units = {
            row[0]: _text(row[1])
            for row in self._rows(connection, "concept", "concept_id", concepts)
            if row[2] == _UCUM
        }
        for row in rows:
            if row[4] is None or row[5] not in _EQUAL:
                why = "has no exact number" if row[4] is not None else "has no number"
                found.unread.append(Unread(what=f"measurement {row[0]}", why=why))
                continue
            day = _day(row[3])
            found.seen(str(row[1]), day)
            found.observations.append(
                Observation(
                    person=str(row[1]),
                    codes=frozenset({_text(row[2])}),
                    day=day,
                    value=f"{float(str(row[4])):.10g}",
                    unit=units.get(row[6]) or _text(row[7]),
                )
            )

    def _rows(
        self, connection: Connection, table: str, column: str, values: Sequence[object] | None
    ) -> Iterator[_Row]:
        """Yield the rows of a table whose column is one of these values; None: all rows."""
        from sqlalchemy import select

        source = self._table(table)
        columns = [source.c[name] for name in _TABLES[table]]
        if values is None:
            yield from connection.execute(select(*columns))
            return
        for start in range(0, len(values), _AT_ONCE):
            some = source.c[column].in_(values[start : start + _AT_ONCE])
            yield from connection.execute(select(*columns).where(some))

    def _table(self, name: str) -> TableClause:
        from sqlalchemy import column, table

        columns: list[ColumnClause[object]] = [column(one) for one in _TABLES[name]]
        schema = self._source.database_schema
        return table(name, *columns, schema=schema) if schema else table(name, *columns)


def _engine(source: SqlSource) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    url = read_secret(source.url_file, "the connection's URL")
    try:
        engine = create_engine(url, pool_pre_ping=False)
    except ImportError as error:
        message = (
            f"The driver {error.name or 'of the database'} that the URL in {source.url_file} asks "
            "for is not installed. For PostgreSQL: pip install 'wardround[omop]', and begin the "
            "URL with postgresql+psycopg://. For another database install its own driver."
        )
        raise ConfigurationError(message) from None
    except (ArgumentError, NoSuchModuleError) as error:
        # The error would show the URL, and with it the password.
        message = (
            f"{source.url_file} holds no URL that SQLAlchemy can use ({type(error).__name__}); "
            "expected such as postgresql+psycopg://user:password@host/database."
        )
        raise ConfigurationError(message) from None
    event.listen(engine, "before_cursor_execute", _only_select)
    return engine


def _only_select(  # SQLAlchemy's own signature
    _connection: object,
    _cursor: object,
    statement: str,
    _parameters: object,
    _context: object,
    _many: object,
) -> None:
    """Let nothing but a SELECT reach the database."""
    if not statement.lstrip().upper().startswith("SELECT") or ";" in statement:
        message = f"Only SELECT is sent to the hospital's database, not {statement[:40]!r}."
        raise ConfigurationError(message)


def _lacks_table(error: Exception) -> bool:
    return "no such" in str(getattr(error, "orig", "")).lower()


def _no_omop(error: Exception) -> CohortError:
    said = str(getattr(error, "orig", error)).splitlines()[0][:200]
    if "image_occurrence" in said:
        return CohortError(
            "The database lacks image_occurrence, a table of OMOP's imaging extension (MI-CDM), by "
            f"which studies are known: {said}. Install the extension, or use key: PatientID with "
            "origin: condition or a date."
        )
    return CohortError(
        f"The database is not in OMOP's Common Data Model as it is read here: {said}. Look at "
        "sql.database_schema, and whether this user may read the tables."
    )


def _numbers(codes: frozenset[str]) -> list[int]:
    wrong = [code for code in codes if not code.isdigit()]
    if wrong:
        message = f"{min(wrong)!r} is no OMOP concept; expected its number, such as 201826."
        raise ConfigurationError(message)
    return sorted(map(int, codes))


def _sex(concept: object) -> Sex:
    return _SEXES.get(concept, "") if isinstance(concept, int) else ""


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _day(value: object) -> date | None:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return None if value is None else datetime.fromisoformat(str(value)).date()
    except ValueError:
        return None


def _birth(row: _Row) -> date | None:
    """Return the birthday; a year or month alone is taken at its middle, as OMOP's age is."""
    exact = _day(row[3])
    if exact is not None or row[4] is None:
        return exact
    year, month, day = (int(str(part)) if part is not None else None for part in row[4:7])
    if year is None:
        return None
    try:
        return date(year, month or 7, day or (15 if month else 1))
    except ValueError:
        return None
