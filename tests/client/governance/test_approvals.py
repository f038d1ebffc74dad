from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.governance.approvals import Approvals
from common.config.run_config import RunConfig
from common.platform.errors import ConfigurationError, StateDamaged
from tests.client.policies import run_of

ROOT = Path(__file__).parents[3]
#: One value changed in every way a coordinator might try: sections, lists, privacy's own part.
CHANGES: list[dict[str, object]] = [
    {"name": "other"},
    {"description": "another text"},
    {"task": {"target": "benign"}},
    {"cohort": {"smallest_cohort": 11}},
    {"cohort": {"confounder": None}},
    {"model": {"width": 17}},
    {"training": {"rounds": 3}},
    {"training": {"learning_rate": 0.0011}},
    {"aggregation": {"weights": {"a": 2.0}}},
    {"evaluation": {"smallest_cell": 6}},
    {"exchange": {"encoding": "float16"}},
    {"privacy": {"epsilon": 2.5}},
    {"privacy": {"clip_norm": 0.5}},
    {"privacy": {"training": {"rounds": 9}}},
    {"privacy": {"model": {"network": "resnet18"}}},
]
#: Notes and decides on the same configuration as fast as it can.
BESIDE = """
import sys
from pathlib import Path
from client.governance.approvals import Approvals
from tests.client.policies import run_of
approvals, config = Approvals(Path(sys.argv[1])), run_of()
for number in range(20):
    approvals.note(f"run-{sys.argv[2]}-{number}", config)
    approvals.decide(config.in_force().fingerprint(), "approved")
"""


def opened(folder: Path) -> Approvals:
    times = iter(f"2026-01-01T00:00:{number:02}+00:00" for number in range(60))
    return Approvals(folder / "approvals.db", clock=lambda: next(times))


def hash_of(config: RunConfig) -> str:
    return config.in_force().fingerprint()


def test_what_nobody_decided_on_waits(tmp_path: Path) -> None:
    approvals, config = opened(tmp_path), run_of()
    assert approvals.decision(hash_of(config)) == "waiting"
    approvals.note("breast-1", config)
    assert approvals.decision(hash_of(config)) == "waiting"
    (seen,) = approvals.listed()
    assert (seen.run, seen.name, seen.decision) == ("breast-1", "breast", "waiting")
    assert (seen.fingerprint, seen.config) == (hash_of(config), config.in_force())


def test_the_last_decision_counts_and_all_are_kept(tmp_path: Path) -> None:
    approvals, config = opened(tmp_path), run_of()
    approvals.note("breast-1", config)
    for decision in ("approved", "declined", "approved"):
        approvals.decide(hash_of(config), decision)  # type: ignore[arg-type]  # of a tuple
        assert Approvals(tmp_path / "approvals.db").decision(hash_of(config)) == decision
    with closing(sqlite3.connect(tmp_path / "approvals.db")) as connection:
        rows = connection.execute("SELECT decision, by FROM decisions ORDER BY number").fetchall()
        assert [row[0] for row in rows] == ["approved", "declined", "approved"]
        assert all(row[1] for row in rows)
        for statement in ("DELETE FROM decisions", "UPDATE decisions SET decision = 'approved'"):
            with pytest.raises(sqlite3.IntegrityError, match="a decision is never"):
                connection.execute(statement)


def test_another_seeds_approval_stands_beside_the_first_and_a_refusal_is_of_all(
    tmp_path: Path,
) -> None:
    approvals, name = opened(tmp_path), hash_of(run_of())
    approvals.note("breast-1", run_of(), 1)
    approvals.decide(name, "approved", 1)
    approvals.note("breast-2", run_of(), 2)
    assert approvals.decision(name, 2) == "waiting"
    approvals.decide(name, "approved", 2)
    assert [approvals.decision(name, seed) for seed in (1, 2, 3)] == [
        "approved",
        "approved",
        "waiting",
    ]
    assert [seen.decision for seen in approvals.listed()] == ["approved", "approved"]
    approvals.decide(name, "declined")
    assert {approvals.decision(name, seed) for seed in (1, 2, 3)} == {"declined"}


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_any_change_to_an_approved_run_asks_again_and_shows_what_changed(
    tmp_path: Path, change: dict[str, object]
) -> None:
    approvals, before, after = opened(tmp_path), run_of(), run_of(**change)
    approvals.decide_ahead(before, "approved")
    approvals.note("breast-2", after)
    assert approvals.decision(hash_of(after)) == "waiting"
    assert approvals.decision(hash_of(before)) == "approved"
    if "name" not in change:
        assert approvals.difference(after)


def test_a_difference_names_each_place_with_both_values(tmp_path: Path) -> None:
    approvals = opened(tmp_path)
    approvals.decide_ahead(run_of(), "approved")
    changed = run_of(
        training={"rounds": 3},
        privacy={"epsilon": 2.5},
        cohort={"confounder": None},
        aggregation={"weights": {"a": 2.0}},
    )
    assert sorted(approvals.difference(changed)) == [
        "aggregation.weights.a: not given -> 2.0",
        "aggregation.weights: {} -> not given",
        'cohort.confounder: "scanner" -> none',
        "privacy.epsilon: 2.0 -> 2.5",
        "training.rounds: 2 -> 3",
    ]


def test_the_difference_is_against_what_was_approved_last_and_never_against_what_was_declined(
    tmp_path: Path,
) -> None:
    approvals = opened(tmp_path)
    approvals.decide_ahead(run_of(training={"rounds": 3}), "approved")
    approvals.decide_ahead(run_of(training={"rounds": 4}), "approved")
    approvals.decide_ahead(run_of(training={"rounds": 5}), "declined")
    assert approvals.difference(run_of(training={"rounds": 9})) == ["training.rounds: 4 -> 9"]
    assert approvals.difference(run_of(name="other")) == []


def test_what_is_in_force_is_approved_however_it_is_written(tmp_path: Path) -> None:
    approvals = opened(tmp_path)
    by_section = run_of(privacy={"training": {"rounds": 9}})
    approvals.decide_ahead(by_section, "approved")
    assert approvals.decision(by_section.in_force().fingerprint()) == "approved"
    plain = run_of(training={"rounds": 9}).in_force()
    assert plain == by_section.in_force()
    assert approvals.decision(plain.fingerprint()) == "approved"


def test_an_approval_ahead_holds_for_the_run_that_asks_later(tmp_path: Path) -> None:
    approvals, config = opened(tmp_path), run_of()
    assert approvals.decide_ahead(config, "approved") == hash_of(config)
    assert [seen.run for seen in approvals.listed()] == [None]
    approvals.note("breast-1", config)
    approvals.note("breast-1", config)
    approvals.note("breast-2", config)
    assert [(s.run, s.decision) for s in approvals.listed()] == [
        ("breast-1", "approved"),
        ("breast-2", "approved"),
    ]


def test_one_run_with_two_configurations_is_two_questions(tmp_path: Path) -> None:
    approvals = opened(tmp_path)
    approvals.note("breast-1", run_of())
    approvals.decide(hash_of(run_of()), "approved")
    approvals.note("breast-1", run_of(training={"rounds": 9}))
    assert [seen.decision for seen in approvals.listed()] == ["approved", "waiting"]


def test_nothing_is_decided_on_what_was_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="wardround-site runs"):
        opened(tmp_path).decide("f" * 64, "approved")


def test_a_text_that_its_hash_is_not_of_is_not_shown_as_it(tmp_path: Path) -> None:
    approvals = opened(tmp_path)
    approvals.note("breast-1", run_of())
    with closing(sqlite3.connect(tmp_path / "approvals.db")) as connection:
        other = run_of(training={"rounds": 9}).in_force().canonical_json()
        connection.execute("UPDATE configurations SET content = ?", (other,))
        connection.commit()
    (seen,) = approvals.listed()
    assert seen.config is None


def test_a_file_that_holds_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "approvals.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StateDamaged, match=r"approvals\.db holds no approvals"):
        opened(tmp_path)


@pytest.mark.processes
def test_daemon_and_commands_use_one_file_at_once(tmp_path: Path) -> None:
    place = tmp_path / "approvals.db"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", BESIDE, str(place), name], env=environment)
        for name in "ab"
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert len(Approvals(place).listed()) == 40


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(CHANGES), st.sampled_from(["approved", "declined"]))))
def test_a_decision_is_the_last_one_of_its_own_configuration(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[dict[str, object], str]]
) -> None:
    approvals = Approvals(tmp_path_factory.mktemp("a") / "approvals.db")
    expected: dict[str, str] = {}
    for change, decision in said:
        config = run_of(**change)
        expected[hash_of(config)] = decision
        approvals.decide_ahead(config, decision)  # type: ignore[arg-type]  # of two texts
    for change in CHANGES:
        own = hash_of(run_of(**change))
        assert approvals.decision(own) == expected.get(own, "waiting")


# --- a coordinator that asks for ever something else -------------------------------------------


def test_ever_other_configurations_push_out_nothing_that_was_decided_or_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.governance.approvals._MOST_OPEN", 5)
    approvals = Approvals(tmp_path / "approvals.db")
    decided, taken = run_of(description="decided"), run_of(description="taken")
    approvals.note("decided", decided)
    approvals.decide(hash_of(decided), "declined")
    approvals.note("taken", taken)
    assert approvals.take(hash_of(taken))
    for number in range(20):
        approvals.note(f"run-{number}", run_of(description=str(number)))
    names = [seen.run for seen in approvals.listed()]
    assert names == ["decided", "taken", *(f"run-{number}" for number in range(15, 20))]
    assert approvals.decision(hash_of(decided)) == "declined"
    # What was pushed out is there again when it is asked for again.
    approvals.note("run-3", run_of(description="3"))
    assert approvals.listed()[-1].run == "run-3"


def test_ever_other_names_and_seeds_of_one_configuration_stay_few(tmp_path: Path) -> None:
    approvals, config = Approvals(tmp_path / "approvals.db"), run_of()
    approvals.note("first", config, 1)
    approvals.decide(hash_of(config), "approved", 1)
    for number in range(300):
        approvals.note(f"run-{number}", config, number)
        approvals.note("one", config, 1000 + number)
    with closing(sqlite3.connect(tmp_path / "approvals.db")) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("proposals", "seeds", "decisions", "approved_seeds")
        ]
    assert counts == [50, 50, 1, 1]
    assert approvals.decision(hash_of(config), 1) == "approved"
    assert approvals.decision(hash_of(config), 7) == "waiting"


def test_what_is_taken_without_a_decision_has_an_end_and_a_decision_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.governance.approvals._MOST_TAKEN", 3)
    approvals = Approvals(tmp_path / "approvals.db")
    configs = [run_of(description=str(number)) for number in range(4)]
    for config in configs:
        approvals.note("run", config)
    assert [approvals.take(hash_of(c)) for c in configs] == [True, True, True, False]
    assert approvals.take(hash_of(configs[0]))
    approvals.decide(hash_of(configs[3]), "approved")
    assert approvals.decision(hash_of(configs[3])) == "approved"
