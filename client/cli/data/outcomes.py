"""`outcomes`: the table of labels from a FHIR server or an OMOP database."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from client.labels.schema import schema_path
from client.outcomes.fhir_records import FhirRecords
from client.outcomes.fhir_server import FhirServer
from client.outcomes.omop import Omop
from client.outcomes.outcome_table import OutcomeTable, build
from client.outcomes.outcomes_yaml import OutcomesPlan
from client.outcomes.records import OutcomeRecords
from client.outcomes.table_schema import schema_text
from client.site.home import Home
from client.site.site_config import SiteConfig, load_site_config
from client.site.terminal import as_text, say, table
from client.site.withdrawals import withdrawn
from client.site.yaml_part import load_part
from common.platform.durable_files import replace_durably
from common.platform.errors import CohortError, ConfigurationError

_NAMED = 20


def fetch(home: Home, source: Path, out: Path | None) -> None:
    """Ask the source and write the table whole, or leave the one that is there as it is."""
    site = load_site_config(home.site_yaml)
    plan = load_part(source, OutcomesPlan)
    path = (out or home.folder / "labels.csv").absolute()
    if path.suffix.lower() != ".csv":
        message = f"--out {path} is no .csv; the table is written as CSV in UTF-8."
        raise ConfigurationError(message)
    wanted = _patients(home, site) if plan.who == "images" else None
    say(f"Asking for {len(wanted)} patients." if wanted is not None else "Asking for everybody.")
    records = _ask(plan, wanted)
    gone = withdrawn(home)
    records.persons = [person for person in records.persons if person.patient not in gone]
    found = build(plan, records)
    if not found.rows:
        _say_left_out(found)
        message = f"Nobody could be put into the table, so {path} was not written."
        raise CohortError(message)
    before = path.with_name(f"{path.name}.before")
    if path.exists():
        replace_durably(before, path.read_bytes(), mode=0o600)
    replace_durably(path, found.csv(), mode=0o600)
    declared = schema_path(path)
    if not declared.exists():  # one that is there is the admin's
        replace_durably(declared, schema_text(plan).encode(), mode=0o600)
    _say_left_out(found)
    patients = len({row[0] for row in found.rows})
    say(f"Wrote {path}: {len(found.rows)} rows of {patients} patients.")
    say(f"What its columns hold stands in {declared}.")
    if before.exists():
        say(f"The table before it is {before}.")
    if path != site.labels_csv:
        say(f"To use it, write `labels: {path}` in {home.site_yaml}.")


def _ask(plan: OutcomesPlan, patients: frozenset[str] | None) -> OutcomeRecords:
    if plan.fhir is not None:
        with FhirServer(plan.fhir, plan.fhir.page) as server:
            return FhirRecords(plan, server).records(patients)
    if plan.sql is None:
        message = "give one source: fhir or sql"
        raise ConfigurationError(message)
    with Omop(plan, plan.sql) as database:
        return database.records(patients)


def _patients(home: Home, site: SiteConfig) -> frozenset[str]:
    """Return whose images are here; nobody else is asked for."""
    from client.dicom.index.index import Index

    if not site.data.is_dir():
        message = f"There is no folder {site.data}. Mount it, or correct data in {home.site_yaml}."
        raise CohortError(message)
    with Index(home.index) as index:
        index.update(site.data)
        found = frozenset(series.patient for series in index.series()) - withdrawn(home) - {""}
    if not found:
        message = f"There are no images in {site.data} yet. Write `who: everybody`, or pull first."
        raise CohortError(message)
    return found


def _say_left_out(found: OutcomeTable) -> None:
    if not found.left_out:
        return
    say(f"Left out ({len(found.left_out)}):")
    for why, count in Counter(one.why for one in found.left_out).most_common(_NAMED):
        first = next(one.what for one in found.left_out if one.why == why)
        more = f" and {count - 1} more" if count > 1 else ""
        table([(f"  {as_text(first)}{more}", as_text(why))])
