"""Faults drawn at random over runs with and without privacy: all runs end as if nothing had been.

FAULTS=200 FAULTS_SEED=1 .venv/bin/python -m pytest tests/end_to_end/test_fault_matrix.py
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.config.run_config import load_config
from server.files.coordinator_yaml import host_and_port
from tests.end_to_end.aftermath import bits, sound
from tests.end_to_end.cohorts import PRIVATE, Size, table_config, write_tables
from tests.end_to_end.faults import FAULTS, Scene, small_disks
from tests.end_to_end.federation import Federation, federation
from tests.end_to_end.link import Link
from tests.end_to_end.simulation import simulated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NAMES = ("east", "west")
#: A run that is killed four times without a round saved between is given up.
ROUNDS, FAULTS_A_RUN = 4, 3
SIZE = Size(hidden=(300, 300), steps=40, minutes=10.0)
LONG = 600.0
MOST = int(os.environ.get("FAULTS", "3"))
SEED = int(os.environ.get("FAULTS_SEED", "0"))


@dataclass(frozen=True)
class Setting:
    """Two sites, each behind a line of its own."""

    federation: Federation
    links: dict[str, Link]
    disks: dict[str, Path]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    path = tmp_path_factory.mktemp("matrix")
    places = {name: path / name for name in ("coordinator", *NAMES)}
    with ExitStack() as stack:
        disks = stack.enter_context(small_disks(places, "256m"))
        data = write_tables(path / "data", NAMES)
        found = stack.enter_context(federation(path, data))
        links = {}
        for name, site in found.sites.items():
            links[name] = Link(host_and_port(found.coordinator.address))
            stack.callback(links[name].close)
            site.program.stop()
            site.call_at(links[name].address)
        found.start()
        yield Setting(found, links, disks)


@pytest.fixture(scope="module")
def undisturbed(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the weights that a run ends in where nothing fails: those of a simulation."""
    path = tmp_path_factory.mktemp("plain")
    config = load_config(table_config(path, "undisturbed", rounds=ROUNDS, size=SIZE))
    return bits(simulated(config, setting.federation.sites, path / "cache"))


@pytest.mark.parametrize("number", range(-(-MOST // FAULTS_A_RUN)))
def test_no_fault_that_passes_changes_weights_skips_a_charge_or_needs_a_person(
    setting: Setting, undisturbed: str, tmp_path: Path, number: int
) -> None:
    draw = random.Random(f"{SEED} {number}")
    private = number % 2 == 1
    sites, coordinator = setting.federation.sites, setting.federation.coordinator
    more = {"privacy": PRIVATE} if private else {}
    run = coordinator.run(table_config(tmp_path, f"m{number}", rounds=ROUNDS, size=SIZE, more=more))
    scene = Scene(setting.federation, setting.links, setting.disks, tmp_path / "copies", run)
    run.reach("training", 1, LONG)
    for name, site in sites.items():
        shutil.copytree(site.home.folder, scene.copies / name)
    shutil.copytree(coordinator.folder.path, scene.copies / "coordinator")
    told = []
    for _ in range(FAULTS_A_RUN):
        time.sleep(draw.uniform(0, 4))
        name = draw.choice(sorted(FAULTS))
        told.append(f"{name} in round {run.board.get('round')}, {run.board.get('phase')}")
        FAULTS[name](scene, draw)
    try:
        assert run.end(LONG) == "done", run.message
        state = sound(setting.federation, run, ROUNDS)
        assert [sorted(record.updates) for record in state.history] == [list(NAMES)] * ROUNDS
        if not private:
            assert bits(state) == undisturbed
    except AssertionError as error:
        error.add_note("; ".join(told))
        raise
    shutil.rmtree(scene.copies)
