from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.privacy.ledger import Ledger, Limit
from client.training.training_site import Guard, Site
from common.config.run_config import RunConfig, parse_config
from common.messages.wire import Refusal, SiteUpdate, TrainRequest
from common.models.run_network import initial_weights
from common.platform.errors import ConfigurationError, RunFailed, WardroundError
from common.privacy.noise import ChaChaNoise, SimulatedNoise
from server.aggregation.rules import aggregator_of
from server.rounds.run_rounds import RunRecords, Sites, begin, run_rounds
from server.rounds.run_state import RunState
from simulations.engines.in_process import InProcessSites
from simulations.engines.workers import WorkerSites
from tests.privacy.made_up import on_disk, patients_of
from tests.server.hospitals import same_bits

pytestmark = pytest.mark.processes

NAMES = ("east", "north", "south", "west", "mid")
TABLE = """
cohort: {table: {numbers: [{column: age}, {column: crp}]}}
model: {network: table}
"""
IMAGES = """
cohort: {images: {size: [16, 16]}, table: {numbers: [{column: age}, {column: crp}]}}
model: {network: small_cnn, width: 8}
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


PRIVATE = "{unit: patient, epsilon: 2.0, default_patients: 20, delta: 0.001}"


def config_of(network: str = IMAGES, privacy: str = "none", more: str = "") -> RunConfig:
    return parse_config(f"""
name: workers
task: {{kind: diagnosis, target: ill}}
{network}
training: {{rounds: 3, local_steps: 2, batch_patients: 4, optimizer: sgd, learning_rate: 0.1}}
selection: {{rule: last, every: 1}}
evaluation: {{smallest_cell: 1, bootstrap: 10}}
privacy: {privacy}
{more}
""")


def sites_of(image: tuple[int, ...] = (1, 16, 16), ledgers: Path | None = None) -> dict[str, Site]:
    sites = {}
    for place, name in enumerate(NAMES):
        train, validation = (patients_of((1, 2) * 10, image, seed) for seed in (place, place + 9))
        sites[name] = Site(name=name, train=train, validation=validation, test=validation)
        if ledgers is not None:
            sites[name] = replace(
                sites[name],
                guard=Guard(
                    ledger=Ledger(ledgers / f"{name}.db"),
                    limit=Limit(epsilon=50, delta=0.001),
                    cohort=name,
                    noise=SimulatedNoise("workers", name),
                ),
            )
    return sites


def run(config: RunConfig, sites: Sites) -> RunState:
    aggregator = aggregator_of(config.aggregation, len(NAMES))
    return run_rounds(config, sites, aggregator, begin(config, "r", 0, aggregator), RunRecords())


def told(state: RunState) -> list[dict[str, object]]:
    """Return the rounds' records without their times."""
    return [{**record.to_json(), "seconds": 0} for record in state.history]


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_workers_end_in_the_bits_of_one_process(workers: int) -> None:
    config = config_of()
    expected = run(config, InProcessSites(sites_of(), config, 0))
    with WorkerSites(sites_of(), config, 0, workers) as sites:
        found = run(config, sites)
    assert same_bits(found.weights, expected.weights)
    assert told(found) == told(expected)


def filed(sites: dict[str, Site], folder: Path) -> dict[str, Site]:
    """Return the sites with their images in files."""
    return {
        name: replace(
            site,
            train=on_disk(site.train, folder / name),
            validation=on_disk(site.validation, folder / name / "more"),
            test=on_disk(site.test, folder / name / "more"),
        )
        for name, site in sites.items()
    }


@pytest.mark.parametrize("privacy", ["none", PRIVATE])
def test_images_in_files_end_in_the_bits_of_images_in_memory(privacy: str, tmp_path: Path) -> None:
    config = config_of(privacy=privacy)
    memory = sites_of(ledgers=tmp_path / "one") if privacy != "none" else sites_of()
    expected = run(config, InProcessSites(memory, config, 0))
    files = filed(sites_of(ledgers=tmp_path / "two"), tmp_path)
    found = run(config, InProcessSites(files, config, 0))
    assert same_bits(found.weights, expected.weights)
    assert told(found) == told(expected)
    files = filed(sites_of(ledgers=tmp_path / "three"), tmp_path)
    with WorkerSites(files, config, 0, 2) as sites:
        found = run(config, sites)
    assert same_bits(found.weights, expected.weights)


@pytest.mark.parametrize("workers", [2, 3])
def test_a_private_run_with_simulated_noise_ends_in_the_same_bits(
    workers: int, tmp_path: Path
) -> None:
    config = config_of(TABLE, PRIVATE)
    one = sites_of((0,), tmp_path / "one")
    expected = run(config, InProcessSites(one, config, 0))
    several = sites_of((0,), tmp_path / "several")
    with WorkerSites(several, config, 0, workers) as sites:
        found = run(config, sites)
    assert same_bits(found.weights, expected.weights)
    assert told(found) == told(expected)
    for name in NAMES:
        first, second = one[name].guard, several[name].guard
        assert first is not None
        assert second is not None
        assert second.ledger.history(name) == first.ledger.history(name) != ()


@pytest.mark.parametrize(
    "more", ["aggregation: {rule: scaffold}", "personalisation: {method: personal_head}"]
)
def test_what_sites_keep_stays_with_its_worker_and_can_be_brought_home(more: str) -> None:
    config = config_of(more=more)
    one, several = sites_of(), sites_of()
    expected = run(config, InProcessSites(one, config, 0))
    with WorkerSites(several, config, 0, 2) as sites:
        found = run(config, sites)
        assert several["east"].memory.recall("r", 3) == {}
        sites.bring_memory("r", 3)
    assert same_bits(found.weights, expected.weights)
    for name in NAMES:
        kept = several[name].memory.recall("r", 3)
        assert kept
        assert same_bits(kept, one[name].memory.recall("r", 3))


def request_of(config: RunConfig, round_number: int = 1) -> TrainRequest:
    weights = initial_weights(config, 0)
    return TrainRequest(run="r", round=round_number, seed=0, config=config, weights=weights)


def test_a_worker_that_dies_ends_the_run_and_is_named() -> None:
    config = config_of()
    with WorkerSites(sites_of(), config, 0, 2) as sites:
        victim = sites._processes[1].pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(RunFailed, match=rf"Worker 1 \(process {victim}, sites .*code -9"):
            list(sites.train(request_of(config), sites.available()))


def test_workers_end_on_close() -> None:
    config = config_of()
    sites = WorkerSites(sites_of(), config, 0, 2)
    processes = list(sites._processes)
    assert all(process.is_alive() and process.daemon for process in processes)
    sites.close()
    assert [process.exitcode for process in processes] == [0, 0]


def test_answers_that_nobody_took_are_not_mistaken_for_the_next_rounds() -> None:
    config = config_of()
    with WorkerSites(sites_of(), config, 0, 2) as sites:
        abandoned = sites.train(request_of(config), sites.available())
        next(abandoned)
        second = list(sites.train(request_of(config, 2), sites.available()))
    assert [(answer.site, answer.round) for answer in second] == [(n, 2) for n in sorted(NAMES)]


def test_a_refusal_comes_through() -> None:
    config = config_of(TABLE.replace("cohort: {", "cohort: {smallest_cohort: 21, "))
    with WorkerSites(sites_of((0,)), config, 0, 2) as sites:
        answers = list(sites.train(request_of(config), sites.available()))
    assert all(isinstance(answer, Refusal) for answer in answers)
    assert len(answers) == len(NAMES)


def test_a_sites_error_is_raised_as_in_one_process(tmp_path: Path) -> None:
    config = config_of(TABLE, PRIVATE)
    guarded = sites_of((0,), tmp_path)
    guarded["north"] = replace(guarded["north"], guard=None)
    with (
        WorkerSites(guarded, config, 0, 2) as sites,
        pytest.raises(WardroundError, match="north has no ledger"),
    ):
        list(sites.train(request_of(config), sites.available()))


def test_real_noise_is_never_copied_into_a_worker(tmp_path: Path) -> None:
    config = config_of(TABLE, PRIVATE)
    guarded = sites_of((0,), tmp_path)
    guard = guarded["west"].guard
    assert guard is not None
    guarded["west"] = replace(guarded["west"], guard=replace(guard, noise=ChaChaNoise()))
    with pytest.raises(ConfigurationError, match="west has the noise of a real run"):
        WorkerSites(guarded, config, 0, 2)


def test_another_configuration_than_the_forked_one_is_refused() -> None:
    config = config_of()
    other = config.model_copy(update={"name": "other"})
    with (
        WorkerSites(sites_of(), config, 0, 2) as sites,
        pytest.raises(ConfigurationError, match="another configuration"),
    ):
        list(sites.train(request_of(other), sites.available()))


def test_updates_are_views_of_shared_memory() -> None:
    config = config_of()
    with WorkerSites(sites_of(), config, 0, 2) as sites:
        update = next(sites.train(request_of(config), ("east",)))
        assert isinstance(update, SiteUpdate)
        own = sites._deltas["east"]
        assert all(v.data_ptr() == own[n].data_ptr() for n, v in update.delta.items())
