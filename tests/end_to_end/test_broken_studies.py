"""Two per cent of a hospital's studies are broken: training goes on, and both sides say why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from server.rounds.cohort_survey import read_survey
from tests.client.dicom_files import save, slices, write_labels
from tests.end_to_end.aftermath import sound
from tests.end_to_end.federation import OPEN, Federation, RunAt, federation, read_json
from tests.end_to_end.processes import kill_if_there, until

pytestmark = pytest.mark.slow

STUDIES, BROKEN, ROUNDS = 300, 6, 4
#: What is done to the first studies: the reasons under which they must be counted.
REASONS = {"TRUNCATED_PIXELS": 2, "MISSING_SLICES": 2, "INCOMPLETE_SERIES": 1, "WRONG_MODALITY": 1}
#: No count of fewer patients leaves.
SMALLEST = 2
TOLD = {reason: float(n) if n >= SMALLEST else None for reason, n in REASONS.items()}
CONFIG = f"""
name: per-cent
task: {{kind: diagnosis, target: ill}}
cohort:
  images: {{size: [8, 16, 16], fit: stretch, modalities: [CT]}}
  split: {{test_fraction: 0.2, validation_fraction: 0.1}}
model: {{network: small_cnn, width: 2}}
training: {{rounds: {ROUNDS}, local_steps: 4, batch_patients: 8}}
aggregation: {{smallest_quorum: 2}}
selection: {{rule: last}}
exchange: {{round_minutes: 2}}
evaluation: {{bootstrap: 5, smallest_cell: {SMALLEST}}}
privacy: none
"""


def hospital(site: Path, patients: int) -> Path:
    """Write a CT of four slices for each patient, with a bright half where they are ill."""
    rng = np.random.default_rng(patients)
    rows = []
    for number in range(patients):
        patient, ill = f"{site.name}-{number:03d}", number % 2
        volume = rng.integers(0, 200, (4, 16, 16)).astype("uint16")
        volume[:, :8] += 800 * ill
        for place, dataset in enumerate(slices(volume, patient)):
            dataset.PatientAge = f"{30 + number % 50:03d}Y"
            save(site / patient / f"{place}.dcm", dataset)
        rows.append({"PatientID": patient, "ill": ill})
    write_labels(site, rows)
    return site


def damage(site: Path) -> None:
    """Break six studies: two cut off, two without a slice, one with an empty file, one an MR."""
    names = [f"{site.name}-{number:03d}" for number in range(BROKEN)]
    for name in names[:2]:
        path = site / name / "2.dcm"
        path.write_bytes(path.read_bytes()[:-200])
    for name in names[2:4]:
        (site / name / "1.dcm").unlink()
    (site / names[4] / "1.dcm").write_bytes(b"")
    for path in (site / names[5]).iterdir():
        path.write_bytes(path.read_bytes().replace(b"CS\x02\x00CT", b"CS\x02\x00MR"))


@dataclass(frozen=True)
class Ran:
    """A run that was killed after its sites had described their cohorts, and went on."""

    federation: Federation
    run: RunAt


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    path = tmp_path_factory.mktemp("broken")
    data = {
        "north": hospital(path / "data" / "north", STUDIES),
        "south": hospital(path / "data" / "south", 24),
    }
    damage(data["north"])
    config = path / "broken.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    with federation(path, data, rules={**OPEN, "smallest_cell": SMALLEST}) as made:
        run = made.coordinator.run(config)
        until(run.place.cohort.exists, "cohorts described", 120, pause=0.001)
        assert kill_if_there(run.pid)  # the service starts it again
        run.end(120)
        yield Ran(made, run)


def test_all_rounds_are_trained_by_both_hospitals(ran: Ran) -> None:
    state = sound(ran.federation, ran.run, ROUNDS)
    assert [sorted(record.updates) for record in state.history] == [["north", "south"]] * ROUNDS
    assert read_json(ran.run.place.results)["metrics"]["auroc"]["patients"] > 50


def test_the_coordinator_is_told_how_many_and_why(ran: Ran) -> None:
    found = read_survey(ran.run.place.cohort)
    assert found is not None
    north = found.sites["north"].tables
    assert north["studies"].rows == {"found": STUDIES, "used": STUDIES - BROKEN, "left out": BROKEN}
    assert north["patients"].rows == north["studies"].rows
    assert north["left out"].rows == TOLD
    assert found.sites["south"].tables["studies"].rows == {"found": 24, "used": 24, "left out": 0}
    assert found.merged()["studies"].rows["used"].told == STUDIES - BROKEN + 24
    said = ran.federation.coordinator.type("report", "per-cent")
    assert "north: studies found 300, used 294, left out 6" in said
    for reason, number in TOLD.items():
        name = f"{reason.lower().replace('_', ' ')} ({reason})"
        held = f"{name}: held back (may be fewer than 2)"
        assert (held if number is None else f"{number:.0f} x {name}") in said
    page = ran.run.place.report.read_text(encoding="utf-8")
    assert "missing slices (MISSING_SLICES)" in page
    assert "2 of 2 sites described their cohorts: studies found 324, used 318, left out 6" in (
        ran.federation.coordinator.type("status", "per-cent").replace("\n", " ")
    )


def test_the_hospitals_own_report_names_each_of_them_and_the_way_to_mend_it(ran: Ran) -> None:
    site = ran.federation.sites["north"]
    said = site.type("report", str(ran.run.place.config))
    assert "294 of 300 studies, of 294 of 300 patients, can be used for per-cent." in said
    assert "Slices are missing between the first and the last; send the series again." in said
    facts = json.loads((site.home.report / "report.json").read_bytes())
    assert {r["code"]: r["studies"] for r in facts["reasons"] if r["studies"]} == REASONS
    assert facts["left_out"]["studies"] == BROKEN
    page = (site.home.report / "report.html").read_text(encoding="utf-8")
    assert "north-000/2.dcm" in page
    log = "".join(path.read_text() for path in site.home.log.iterdir())
    assert "294 of 300 studies are used" in log
    assert "2 x MISSING_SLICES" in log


def test_nothing_that_names_a_study_left_and_the_description_left_once(ran: Ran) -> None:
    for site in ran.federation.sites.values():
        assert len({line.disclosure.sha256 for line in site.sent("cohort")}) == 1
    told = ran.run.place.cohort.read_text(encoding="utf-8")
    assert "north-0" not in told
    assert "1.2.826" not in told


def test_the_same_is_told_without_a_run_when_the_coordinator_asks(ran: Ran, tmp_path: Path) -> None:
    coordinator, page = ran.federation.coordinator, tmp_path / "cohorts.html"
    said = coordinator.type("cohorts", str(ran.run.place.config), "--out", str(page))
    assert "north: studies found 300, used 294, left out 6" in said
    assert "south: studies found 24, used 24, left out 0" in said
    assert "missing slices (MISSING_SLICES)" in page.read_text(encoding="utf-8")
    assert coordinator.folder.run_names() == ("per-cent",)
