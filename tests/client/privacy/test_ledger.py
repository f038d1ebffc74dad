from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.charge_text import BoundTo, Charge, chained
from client.privacy.ledger import Ledger, Limit
from common.platform.errors import BudgetExceeded, LedgerDamaged, LedgerTooNew, PrivacyError
from common.privacy.accounting import epsilon_of
from common.privacy.plan import LedgerHead, Mechanism
from tests.privacy.made_up import charged, mechanism_of

DELTA = 1e-4
WIDE = Limit(epsilon=100.0, delta=DELTA)
ROUND = mechanism_of(20.0, steps=1)
HERE = Path(__file__).parents[1]


def filled(path: Path, charges: int = 3) -> Ledger:
    ledger = Ledger(path)
    for number in range(1, charges + 1):
        charged(ledger, "patients", "run", number, ROUND, WIDE, DELTA)
    return ledger


def outside(path: Path, *statements: str) -> None:
    """Change the file as somebody with an SQLite shell would."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute("DROP TRIGGER no_delete")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


# --- what a charge says and refuses ----------------------------------------------------------


def test_a_charge_returns_what_is_spent_by_the_run_and_by_all_runs(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    charged(ledger, "patients", "before", 1, mechanism_of(5.0, steps=3), WIDE, DELTA)
    charged(ledger, "others", "before", 1, mechanism_of(1.0, steps=3), WIDE, DELTA)
    spend = charged(ledger, "patients", "run", 1, ROUND, WIDE, 1e-6)
    assert spend.run_epsilon == epsilon_of([ROUND], 1e-6)
    assert spend.run_delta == 1e-6
    # The cohort's figure is at the delta of the site's limit, not at the run's.
    assert spend.cohort_epsilon == epsilon_of([mechanism_of(5.0, steps=3), ROUND], DELTA)
    assert spend.cohort_delta == DELTA
    assert spend.mechanism == ROUND


def test_rounds_interrupted_and_repeated_compose_to_exactly_what_was_charged(
    tmp_path: Path,
) -> None:
    ledger, made = Ledger(tmp_path / "ledger.db"), []
    for number in (1, 2, 2, 2, 3, 1):
        spend = charged(ledger, "patients", "run", number, ROUND, WIDE, DELTA)
        made.append(ROUND)
        assert spend.cohort_epsilon == spend.run_epsilon == epsilon_of(made, DELTA)
        assert Ledger(tmp_path / "ledger.db").history("patients") == tuple(made)


def test_every_attempt_at_a_round_is_a_charge_of_its_own(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    for _ in range(3):
        charged(ledger, "patients", "run", 7, ROUND, WIDE, DELTA)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        rows = connection.execute("SELECT round, attempt FROM charges ORDER BY number").fetchall()
    assert rows == [(7, 1), (7, 2), (7, 3)]


@settings(max_examples=20, deadline=None)
@given(noise=st.lists(st.floats(1.0, 50.0), min_size=1, max_size=6), limit=st.floats(0.1, 10.0))
def test_charges_never_pass_the_limit_and_a_refused_one_leaves_no_trace(
    tmp_path_factory: pytest.TempPathFactory, noise: list[float], limit: float
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.db")
    most = Limit(epsilon=limit, delta=DELTA)
    for number, sigma in enumerate(noise):
        before = ledger.history("patients")
        mechanism = mechanism_of(sigma, steps=2)
        fits = epsilon_of([*before, mechanism], DELTA) <= limit
        try:
            charged(ledger, "patients", "run", number, mechanism, most, DELTA)
        except BudgetExceeded:
            assert not fits
            assert ledger.history("patients") == before
        else:
            assert fits
        assert epsilon_of(ledger.history("patients"), DELTA) <= limit


def test_a_refusal_names_what_was_asked_what_is_spent_and_the_limit(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.db")
    small = Limit(epsilon=0.5, delta=DELTA)
    with pytest.raises(BudgetExceeded, match=r"Run next, round 4 .* patients .* 0\.5 .* 0\.0001"):
        charged(ledger, "patients", "next", 4, mechanism_of(0.5), small, DELTA)


@pytest.mark.parametrize("noise", [0.0, -1.0])
def test_a_release_without_noise_is_never_within_a_limit(tmp_path: Path, noise: float) -> None:
    with pytest.raises(PrivacyError):
        charged(Ledger(tmp_path / "l.db"), "p", "run", 1, mechanism_of(noise), WIDE, DELTA)


@pytest.mark.parametrize("field", ["noise_multiplier", "sampling_rate", "clip_norm", "divisor"])
@pytest.mark.parametrize("value", [float("nan"), -1.0, float("inf")])
def test_a_mechanism_that_cannot_be_is_refused(field: str, value: float) -> None:
    with pytest.raises(PrivacyError, match=field):
        replace(mechanism_of(1.0), **{field: value})  # type: ignore[arg-type]  # a field by name


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [
        (float("nan"), DELTA),
        (0.0, DELTA),
        (-1.0, DELTA),
        (1.0, float("nan")),
        (1.0, 0.0),
        (1.0, 1.0),
    ],
)
def test_a_limit_that_bounds_nothing_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(PrivacyError, match="limit"):
        Limit(epsilon=epsilon, delta=delta)


def test_charges_are_told_apart_by_cohort_and_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.accounts() == {}
    other = mechanism_of(9.0, steps=1)
    for cohort, run, mechanism in (
        ("patients", "one", ROUND),
        ("patients", "two", other),
        ("others", "one", other),
        ("patients", "one", other),
    ):
        charged(ledger, cohort, run, 1, mechanism, WIDE, DELTA)
    assert ledger.accounts() == {
        "patients": {"one": (ROUND, other), "two": (other,)},
        "others": {"one": (other,)},
    }


# --- what a ledger notices -------------------------------------------------------------------


def test_charges_cannot_be_changed_or_removed_by_accident(tmp_path: Path) -> None:
    filled(tmp_path / "ledger.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        for statement in ("DELETE FROM charges", "UPDATE charges SET round = 9"):
            with pytest.raises(sqlite3.IntegrityError, match="a charge is never"):
                connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE charges SET mechanism = replace(mechanism, '20.0', '90.0') WHERE number = 2",
        "UPDATE charges SET cohort = 'nobody' WHERE number = 1",
        "UPDATE charges SET run = 'other' WHERE number = 3",
        "UPDATE charges SET round = 9 WHERE number = 3",
        "UPDATE charges SET attempt = 9 WHERE number = 3",
        "UPDATE charges SET mechanism = 'nonsense' WHERE number = 3",
        "UPDATE charges SET mechanism = '[]' WHERE number = 3",
        "UPDATE charges SET text = replace(text, '20.0', '90.0') WHERE number = 2",
        "UPDATE charges SET text = NULL, round = 9 WHERE number = 3",
        "UPDATE charges SET text = 'nonsense' WHERE number = 3",
        "DELETE FROM charges WHERE number = 1",
        "DELETE FROM charges WHERE number = 2",
        "UPDATE charges SET number = number + 10",
    ],
)
def test_a_charge_that_was_changed_or_cut_out_stops_everything(
    tmp_path: Path, statement: str
) -> None:
    ledger = filled(tmp_path / "ledger.db")
    outside(tmp_path / "ledger.db", statement)
    with pytest.raises(LedgerDamaged, match=r"ledger\.db, charge \d"):
        charged(ledger, "patients", "run", 4, ROUND, WIDE, DELTA)
    with pytest.raises(LedgerDamaged):
        ledger.history("patients")


def test_a_cut_tail_shows_against_the_head_that_was_told(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.db")
    told = ledger.head()
    assert ledger.knows(told)
    outside(tmp_path / "ledger.db", "DELETE FROM charges WHERE number = 3")
    assert not ledger.knows(told)


def test_a_restored_old_copy_shows_even_after_it_was_charged_again(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    ledger = filled(place)
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(place, tmp_path / "old.db")
    charged(ledger, "patients", "run", 4, ROUND, WIDE, DELTA)
    told = ledger.head()
    for left in tmp_path.glob("ledger.db*"):
        left.unlink()
    shutil.copy(tmp_path / "old.db", place)
    charged(ledger, "patients", "other", 4, ROUND, WIDE, DELTA)
    assert not ledger.knows(told)


def test_an_empty_ledger_has_a_head_of_its_own(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.knows(ledger.head())
    assert len(ledger.head().hash) == 64
    assert ledger.head().charges == 0
    assert not ledger.knows(LedgerHead(charges=0, hash="f" * 64))


def test_a_charge_tells_where_the_ledger_stands_and_the_ledger_knows_it_for_ever(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    told = []
    for cohort, run in (("patients", "run"), ("others", "run"), ("patients", "other")):
        told.append(charged(ledger, cohort, run, 1, ROUND, WIDE, DELTA).ledger)
        assert ledger.head() == told[-1]
    assert [head.charges for head in told] == [1, 2, 3]
    for head in told:
        assert ledger.knows(head)
        assert not ledger.knows(replace(head, charges=head.charges + 1))


def test_a_head_tells_of_charges_and_of_no_patient(tmp_path: Path) -> None:
    # Same charges, other patients: the site's patients are in no ledger, so in no head.
    heads = {filled(tmp_path / f"{name}.db").head() for name in ("one", "two")}
    assert len(heads) == 1
    assert set(LedgerHead.__dataclass_fields__) == {"charges", "hash"}


def test_a_file_that_is_no_ledger_is_refused_by_name(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    place.write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerDamaged, match=r"ledger\.db"):
        Ledger(place)


# --- charges of other releases ----------------------------------------------------------------


def of_the_first_release(path: Path) -> Ledger:
    """Return a ledger of four charges as release 0.1.0 left it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((HERE / "ledger_of_0_1_0.sql").read_text(encoding="utf-8"))
    return Ledger(path)


def test_a_ledger_of_the_first_release_verifies_and_goes_on(tmp_path: Path) -> None:
    ledger = of_the_first_release(tmp_path / "ledger.db")
    head = LedgerHead(
        charges=4, hash="bab0222e7ca1e5ee59008ad11e06455852b45f322819a4d869b30d415256f275"
    )
    assert ledger.head() == head
    assert len(ledger.history("patients")) == 3
    assert charged(ledger, "patients", "brücke", 2, ROUND, WIDE, DELTA).ledger.charges == 5
    assert Ledger(tmp_path / "ledger.db").knows(head)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        attempts = connection.execute("SELECT attempt FROM charges WHERE round = 2").fetchall()
    assert attempts == [(1,), (2,), (3,)]


def test_a_run_of_the_first_release_adds_up_with_whatever_comes_under_its_name(
    tmp_path: Path,
) -> None:
    ledger = of_the_first_release(tmp_path / "ledger.db")
    before = ledger.history("patients")
    bound = BoundTo(configuration="c", seed=2**70, split="")
    spend = charged(ledger, "patients", "brücke/test", 2, ROUND, WIDE, DELTA, bound=bound)
    assert spend.cohort_epsilon == epsilon_of([*before, ROUND], DELTA)
    assert Ledger(tmp_path / "ledger.db").charges("patients")[-1].bound == bound


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE charges SET mechanism = replace(mechanism, '3.1', '9.0') WHERE number = 4",
        "UPDATE charges SET run = 'bru' WHERE number = 2",
        "DELETE FROM charges WHERE number = 2",
    ],
)
def test_a_changed_charge_of_the_first_release_is_damage(tmp_path: Path, statement: str) -> None:
    ledger = of_the_first_release(tmp_path / "ledger.db")
    outside(tmp_path / "ledger.db", statement)
    with pytest.raises(LedgerDamaged):
        ledger.head()


def test_a_fact_with_a_default_leaves_every_charge_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled(tmp_path / "ledger.db").head()

    @dataclass(frozen=True, kw_only=True)
    class LaterMechanism(Mechanism):
        sampler: str = "poisson"

    @dataclass(frozen=True, kw_only=True)
    class LaterCharge(Charge):
        purpose: str = "training"

    monkeypatch.setattr("client.privacy.charge_text.Mechanism", LaterMechanism)
    monkeypatch.setattr("client.privacy.charge_text.Charge", LaterCharge)
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.head() == before
    assert ledger.history("patients")[0] == LaterMechanism(**vars(ROUND))
    # What has its default is not written, so the release before reads it, too.
    charged(ledger, "patients", "run", 4, LaterMechanism(**vars(ROUND)), WIDE, DELTA)
    assert ledger.head().charges == 4
    monkeypatch.undo()
    assert Ledger(tmp_path / "ledger.db").head().charges == 4


@pytest.mark.parametrize("of", ["charge", "mechanism", "bound"])
def test_a_fact_of_a_newer_release_is_named_and_is_no_damage(tmp_path: Path, of: str) -> None:
    ledger, place = filled(tmp_path / "ledger.db", 1), tmp_path / "ledger.db"
    bound = BoundTo(configuration="c", seed=0, split="")
    facts = json.loads(
        Charge(cohort="p", run="r", round=1, attempt=1, mechanism=ROUND, bound=bound).text()
    )
    (facts if of == "charge" else facts[of])["sampler"] = "exact"
    text, mechanism = json.dumps(facts), json.dumps(facts["mechanism"])
    row = ("p", "r", 1, 1, mechanism, ledger.head().hash, chained(ledger.head().hash, text), text)
    with closing(sqlite3.connect(place)) as connection:
        connection.execute(
            "INSERT INTO charges (cohort, run, round, attempt, mechanism, previous, hash, text) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        connection.commit()
    with pytest.raises(LedgerTooNew, match=r"ledger\.db, charge 2 was made by a newer .* sampler"):
        charged(ledger, "patients", "run", 4, ROUND, WIDE, DELTA)


# --- several processes, and their deaths -----------------------------------------------------


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.mark.processes
def test_two_processes_at_once_stay_within_one_limit(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    Ledger(place)
    command = [sys.executable, str(HERE / "charging_site.py"), str(place)]
    running = [
        subprocess.Popen([*command, run], env=_environment(), stdout=subprocess.PIPE, text=True)
        for run in ("one", "two")
    ]
    made = {run: int(p.communicate(timeout=60)[0]) for run, p in zip("12", running, strict=True)}
    assert [p.returncode for p in running] == [0, 0]
    history = Ledger(place).history("patients")
    assert sum(made.values()) == len(history)
    assert epsilon_of(history, DELTA) <= 3.0 < epsilon_of([*history, history[0]], DELTA)


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked copies of a process")
def test_a_site_killed_between_any_two_statements_never_released_what_was_not_charged() -> None:
    # In memory where there is such a folder: a process dies here, not the machine.
    memory = Path("/dev/shm")  # noqa: S108 - the folder within is made by tempfile
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        done = subprocess.run(
            [sys.executable, str(HERE / "dying_site.py"), folder],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    deaths = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(d["signal"] == signal.SIGKILL for d in deaths[:-1])
    assert deaths[-1]["signal"] == 0, "the last one was left alone and ended by itself"
    assert all(d["released"] <= d["charged"] for d in deaths), deaths
    # Before the charge, after it, and after the release: all three were hit.
    kinds = Counter((d["charged"], d["released"]) for d in deaths)
    assert set(kinds) == {(0, 0), (1, 0), (1, 1)}
    assert len(deaths) > 20
