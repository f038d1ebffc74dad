from __future__ import annotations

import shutil
from pathlib import Path

from client.privacy.ledger import Ledger, Limit
from client.training.training_site import Guard, Site
from common.config.run_config import RunConfig, parse_config
from common.privacy.noise import ChaChaNoise
from common.privacy.plan import LedgerHead
from server.aggregation.rules import aggregator_of
from server.rounds.non_admission_reasons import Fault
from server.rounds.round_record import RoundRecord, last_ledgers
from server.rounds.run_rounds import RunRecords, begin, run_rounds, train_round
from server.rounds.run_state import RunStore
from simulations.engines.in_process import InProcessSites
from tests.privacy.made_up import patients_of

NAMES = ("east", "north")


def config_of(more: str = "") -> RunConfig:
    return parse_config(f"""
name: charged
task: {{kind: diagnosis, target: ill}}
cohort: {{table: {{numbers: [{{column: age}}, {{column: crp}}]}}}}
model: {{network: table}}
training: {{rounds: 8, optimizer: sgd, learning_rate: 0.1}}
selection: {{rule: best, by: metric}}
privacy: {{unit: patient, epsilon: 2.0, default_patients: 20, delta: 0.001}}
{more}
""")


def sites_of(folder: Path) -> dict[str, Site]:
    patients = patients_of((1,) * 20, image=(0,))
    return {
        name: Site(
            name=name,
            train=patients,
            validation=patients,
            test=patients,
            guard=Guard(
                ledger=Ledger(folder / f"{name}.db"),
                limit=Limit(epsilon=500.0, delta=1e-4),
                cohort="patients",
                noise=ChaChaNoise(),
            ),
        )
        for name in NAMES
    }


def head(site: Site) -> LedgerHead:
    assert site.guard is not None
    return site.guard.ledger.head()


def test_a_site_that_restored_an_old_ledger_is_left_out_and_the_run_goes_on(tmp_path: Path) -> None:
    config, sites = config_of(), sites_of(tmp_path)
    members, aggregator = InProcessSites(sites, config, 0), aggregator_of(config.aggregation, 2)
    state = train_round(config, members, aggregator, begin(config, "r", 0, aggregator))
    shutil.copytree(tmp_path, tmp_path / "old")
    for _ in range(2):
        state = train_round(config, members, aggregator, state)
    assert state.history[-1].left_out == {}
    for left in tmp_path.glob("east.db*"):
        left.unlink()
    for old in (tmp_path / "old").glob("east.db*"):
        shutil.copy(old, tmp_path)
    record = train_round(config, members, aggregator, state).history[-1]
    assert record.updates == ("north",)
    assert record.left_out == {"east": Fault.OLD_LEDGER.value}
    assert "ledger.charges=2, expected more than 3" in record.faults[0]


def test_a_run_remembers_where_each_ledger_stood_also_over_a_crash(tmp_path: Path) -> None:
    config, sites = config_of("evaluation: {count_noise: 3.0}"), sites_of(tmp_path)
    members, aggregator = InProcessSites(sites, config, 0), aggregator_of(config.aggregation, 2)
    store = RunStore(tmp_path / "state")
    run_rounds(
        config, members, aggregator, begin(config, "r", 0, aggregator), RunRecords(store=store)
    )
    saved = RunStore(tmp_path / "state").load()
    assert saved is not None
    # Updates and noised counts are both charged, and both are told of.
    assert last_ledgers(saved.history) == {name: head(sites[name]) for name in NAMES}
    assert head(sites["east"]).charges == 16


def test_a_round_tells_the_epsilon_of_its_training_with_the_delta_that_it_holds_at(
    tmp_path: Path,
) -> None:
    config, sites = config_of(), sites_of(tmp_path)
    members, aggregator = InProcessSites(sites, config, 0), aggregator_of(config.aggregation, 2)
    record = train_round(config, members, aggregator, begin(config, "r", 0, aggregator)).history[-1]
    assert record.epsilon.keys() == record.delta.keys() == set(NAMES)
    # The run's delta, not that of the limit on the cohort.
    assert set(record.delta.values()) == {0.001}


def test_of_a_site_that_was_left_out_the_last_it_told_of_is_remembered() -> None:
    first = {"east": LedgerHead(charges=1, hash="a"), "north": LedgerHead(charges=4, hash="b")}
    second = {"north": LedgerHead(charges=5, hash="c")}
    history = [
        RoundRecord(round=1, updates=NAMES, ledgers=first),
        RoundRecord(round=2, updates=("north",), ledgers=second),
        RoundRecord(round=3, updates=()),
    ]
    assert last_ledgers(history) == {**first, **second}
