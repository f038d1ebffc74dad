"""Clinical questions of every form of input: hospitals end where their simulation does."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from client.privacy.ledger import Ledger
from common.config.changes import Changes
from common.config.run_config import RunConfig, load_config, parse_config
from common.privacy.noise_calibration import epsilon_of
from tests.end_to_end.federation import OPEN, Federation, RunAt, federation
from tests.end_to_end.simulation import simulated

pytestmark = [pytest.mark.slow, pytest.mark.needs_shared_data]

CONFIGS = Path(__file__).parents[2] / "configs" / "simulations"
SHARED = Path(__file__).parents[3] / "shared" / "data"
#: The folders of each hospital, by cohort: as in a hospital, all kinds of patients lie together.
HOSPITALS = {
    "east": {"cardiac-cine": "cine-a", "glioma-mr": "jefferson", "slides-invented": "slides-a"},
    "west": {"cardiac-cine": "cine-c", "glioma-mr": "henry-ford", "slides-invented": "slides-b"},
}
PATIENTS = 5  # of each cohort


def hospital(folder: Path, cohorts: Mapping[str, str]) -> Path:
    """Return a folder with the first patients of several cohorts, and one table of them all."""
    rows: list[dict[str, str]] = []
    for cohort, name in cohorts.items():
        source = SHARED / cohort / name
        with (source / "labels.csv").open(newline="") as file:
            rows += list(csv.DictReader(file))[:PATIENTS]
        for path in source.iterdir():
            if path.name in {row["PatientID"] for row in rows}:
                shutil.copytree(path, folder / path.name)
    rows += [pictured(folder, number) for number in range(2 * PATIENTS)]
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        table.writeheader()
        table.writerows(rows)
    return folder


def pictured(folder: Path, number: int) -> dict[str, str]:
    """Write a picture without a DICOM header; return the row that names it."""
    draw = np.random.default_rng([number, *folder.name.encode()])
    values = draw.integers(0, 255, (24, 20), np.uint8)
    Image.fromarray(values).save(folder / f"picture-{number}.png")
    return {"PatientID": f"F{number}", "image": f"picture-{number}.png", "odd": str(number % 2)}


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    path = tmp_path_factory.mktemp("questions")
    data = {name: hospital(path / "data" / name, of) for name, of in HOSPITALS.items()}
    with federation(path, data, rules={**OPEN, "smallest_cohort": 2, "allow_files": True}) as made:
        yield made


#: By question: a shipped configuration, and what makes its run short.
QUESTIONS: Mapping[str, tuple[str, Changes]] = {
    "a number from two phases of the heart": ("cardiac-ef", {}),
    "an outline on three sequences": (
        "glioma-mr",
        {"cohort.images.size": [16, 16], "cohort.smallest_cohort": 2},
    ),
    "a whole slide": ("slides", {"cohort.images.slide.most_tiles": 20}),
}
ON_FILES = """
name: on-files
task: {kind: diagnosis, target: odd}
cohort: {images: {format: files, size: [16, 16]}, smallest_cohort: 2}
model: {network: small_cnn, width: 4}
training: {rounds: 2, local_steps: 2}
privacy: none
"""
SHORT: Changes = {"training.rounds": 2, "training.local_steps": 2, "cohort.smallest_cohort": 2}


@pytest.mark.parametrize("question", QUESTIONS)
def test_hospitals_end_where_their_simulation_does(
    hospitals: Federation, tmp_path: Path, question: str
) -> None:
    name, less = QUESTIONS[question]
    check_same(hospitals, load_config(CONFIGS / f"{name}.yaml", {**SHORT, **less}), tmp_path)


def test_hospitals_end_where_their_simulation_does_on_files(
    hospitals: Federation, tmp_path: Path
) -> None:
    check_same(hospitals, parse_config(ON_FILES), tmp_path)


def check_same(hospitals: Federation, config: RunConfig, tmp_path: Path) -> None:
    """Run a configuration between the hospitals; its simulation ends in the same weights."""
    run = started(hospitals, config, tmp_path)
    expected, found = simulated(config, hospitals.sites, tmp_path / "cache"), run.result()
    assert [sorted(record.updates) for record in found.history] == [list(HOSPITALS)] * 2
    for key, value in expected.weights.items():
        torch.testing.assert_close(found.weights[key], value, rtol=0, atol=1e-6)
        assert value.abs().max() > 1e-4  # there was something to learn


def started(made: Federation, config: RunConfig, path: Path) -> RunAt:
    file = path / "config.yaml"
    file.write_text(config.to_yaml())
    run = made.coordinator.run(file)
    assert run.end(180) == "done", run.message
    return run


def test_a_private_run_of_numbers_costs_what_it_says(hospitals: Federation, tmp_path: Path) -> None:
    config = load_config(
        CONFIGS / "cardiac-ef.yaml",
        {
            **SHORT,
            "cohort.split": {"test_fraction": 0.2},
            "privacy": {"unit": "patient", "epsilon": 3.0, "default_patients": 4},
        },
    )
    run = started(hospitals, config, tmp_path)
    record = run.result().history[-1]
    for site in hospitals.sites.values():
        spent = Ledger(site.home.ledger).accounts()["patients"][run.place.path.name]
        epsilon = epsilon_of(spent, record.delta[site.name])
        assert 0 < epsilon <= 3.0 + 1e-6
        assert record.epsilon[site.name] == pytest.approx(epsilon, rel=1e-9)
