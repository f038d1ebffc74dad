from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from client.site import Site
from common.config import RunConfig
from common.sample import Patients
from common.weights import fingerprint
from server.aggregation import aggregator_of
from server.rounds import Records, begin, run_rounds
from server.run_state import RunState
from simulations.in_process import InProcessSites
from tests.client.local_runs import config_of, learnable
from tests.privacy.made_up import patients_of
from tests.server.coordinator import Running, made, running
from tests.server.loopback import Hospital, run_over

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, settings = made(tmp_path_factory.mktemp("coordinator"))
    with running(folder, settings) as found:
        yield found


def patients_at(seed: int) -> Patients:
    return learnable(patients_of((1, 2, 3, 1) * 4, (0,), seed))


@pytest.fixture
def hospitals(coordinator: Running, tmp_path: Path) -> Iterator[dict[str, Hospital]]:
    found = {}
    for seed, name in enumerate(("east", "north", "west")):
        site = coordinator.enrolled(name)
        found[name] = Hospital(coordinator, site, tmp_path / name, patients_at(seed))
    yield found
    for name, hospital in found.items():
        hospital.stop()
        coordinator.gateway.revoke(name)


def simulated(config: RunConfig) -> RunState:
    sites = {
        name: Site(name=name, train=p, validation=p, test=p)
        for name, p in ((n, patients_at(s)) for s, n in enumerate(("east", "north", "west")))
    }
    aggregator = aggregator_of(config.aggregation, 3)
    state = begin(config, "run", 0, aggregator)
    return run_rounds(config, InProcessSites(sites, config, 0), aggregator, state, Records())


def test_a_federation_ends_in_the_bits_of_its_simulation(
    coordinator: Running, hospitals: dict[str, Hospital], tmp_path: Path
) -> None:
    config = config_of("aggregation: {smallest_quorum: 3}").in_force()
    for hospital in hospitals.values():
        hospital.start()
    aggregator = aggregator_of(config.aggregation, 3)
    state = begin(config, "run", 0, aggregator)
    torch.set_num_threads(1)
    with run_over(coordinator, config, tmp_path / "run") as (sites, _):
        state = run_rounds(config, sites, aggregator, state, Records())
    expected = simulated(config)
    assert fingerprint(state.weights) == fingerprint(expected.weights)
    assert state.history[-1].score == expected.history[-1].score
    assert [sorted(r.updates) for r in state.history] == [["east", "north", "west"]] * 6
