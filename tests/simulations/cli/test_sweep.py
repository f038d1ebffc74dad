"""Sweeps: every combination once, chosen by validation patients, and gone on with."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from common.platform.errors import ConfigurationError, RunFailed, StateDamaged
from simulations.cli.app import app
from simulations.comparison.sweep import ArmFound, SweepRow, chosen, combinations, with_set
from tests.wardround.small_runs import SMALL


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "privacy": "none"}), encoding="utf-8")
    return path


def sweep(config: Path, *given: str) -> str:
    out = str(config.parent / "out")
    ended = CliRunner().invoke(app, ["sweep", str(config), "--out", out, *given])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    return ended.output


VARY = ("--vary", "training.learning_rate=0.001,0.1", "--vary", "aggregation.rule=[mean, median]")


def test_every_combination_is_a_row_and_validation_patients_choose(config: Path) -> None:
    told = sweep(config, *VARY, "--set", "training.rounds=2")
    with (config.parent / "out" / "sweep.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    values = [(row["training.learning_rate"], row["aggregation.rule"]) for row in rows]
    expected = [("0.001", "mean"), ("0.001", "median"), ("0.1", "mean"), ("0.1", "median")]
    assert values == expected
    assert _read(told) == 4  # four hospitals, once, for all combinations
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    (line,) = [line for line in told.splitlines() if "<- chosen" in line]
    assert line.split()[:2] == [best["training.learning_rate"], best["aggregation.rule"]]
    for row in rows:  # the run of a row is the one that `compare --set` makes
        folder = config.parent / "out" / row["folder"]
        made = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        assert str(made["training"]["learning_rate"]) == row["training.learning_rate"]
        assert made["training"]["rounds"] == 2
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        assert found["arms"]["federated"]["mean"] == pytest.approx(float(row["test"]))
    # Given again, it does nothing twice; with other values, only the new ones.
    again = sweep(config, *VARY, "--set", "training.rounds=2")
    assert again.count("done before") == 4
    assert (config.parent / "out" / "sweep.csv").read_text(encoding="utf-8") == _csv(rows)
    path = config.parent / "out" / rows[0]["folder"] / "row.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(StateDamaged, match="Remove it to do that combination again"):
        sweep(config, *VARY, "--set", "training.rounds=2")


def test_what_reads_otherwise_is_read_again(config: Path) -> None:
    told = sweep(
        config, "--vary", "cohort.images.size=[[32, 32], [24, 24]]", "--set", "training.rounds=1",
        "--arms", "pooled",
    )  # fmt: skip
    assert _read(told) == 8


def test_a_combination_that_fails_ends_no_sweep(config: Path) -> None:
    told = sweep(
        config, "--vary", "training.learning_rate=1e30,0.01", "--set", "training.rounds=2",
        "--arms", "pooled",
    )  # fmt: skip
    assert "failed: " in told
    with (config.parent / "out" / "sweep.csv").open(encoding="utf-8") as file:
        bad, good = csv.DictReader(file)
    assert bad["arm"] == "failed"
    assert bad["test"] == ""
    assert float(good["test"]) > 0
    (line,) = [line for line in told.splitlines() if "<- chosen" in line]
    assert line.split()[0] == "0.01"
    with pytest.raises(RunFailed, match="Every combination failed"):
        sweep(config, "--vary", "training.learning_rate=1e30,1e31", "--arms", "pooled")


def _read(told: str) -> int:
    return len(re.findall(r"^  \w+: \d+ patients, ", told, re.MULTILINE))


def _csv(rows: list[dict[str, str]]) -> str:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


def row(value: float | None, test: float, key: str = "training.rounds") -> SweepRow:
    found = ArmFound(validation_loss=value, test=test, test_std=0.0, epsilon=None)
    return SweepRow(values={key: test}, folder="", arms={"federated": found})


def test_test_patients_choose_nothing() -> None:
    rows = [row(0.7, 0.9), row(0.5, 0.1), row(None, 1.0)]
    best = chosen(rows)
    assert best is not None
    assert best[0] is rows[1]
    assert chosen([row(None, 0.9), row(None, 0.8)]) is None


@pytest.mark.parametrize("key", ["task.target", "cohort.images.size", "evaluation.unit"])
def test_losses_of_other_tasks_and_patients_are_not_compared(key: str) -> None:
    assert chosen([row(0.7, 0.9, key), row(0.5, 0.1, key)]) is None


@pytest.mark.parametrize(
    ("varied", "said"),
    [
        ([], "Nothing is varied"),
        (["training.rounds"], "is no KEY=VALUE"),
        (["training.rounds="], "names no values"),
        (["training.rounds=1,1"], "names a value twice"),
        (["a=1,2", "a=3"], "varied twice"),
        (["a={"], "is no YAML value"),
        ([f"a=[{', '.join(map(str, range(201)))}]"], "201 combinations, expected at most 200"),
    ],
)
def test_what_cannot_be_varied_is_refused_by_name(varied: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        combinations(varied)


def test_a_key_is_set_or_varied() -> None:
    assert with_set({"a": 1}, ["b.c=[1, 2]"]) == {"a": 1, "b.c": [1, 2]}
    with pytest.raises(ConfigurationError, match="a is both set and varied"):
        with_set({"a": 1}, ["a=2"])
    with pytest.raises(ConfigurationError, match="b is given twice"):
        with_set({"a": 1}, ["b=2", "b=3"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("training.ronds=3", "did you mean rounds"),
        ("privacy.epsilon=3", "privacy is 'none', which has no keys"),
        ("training.rounds=many", "training.rounds"),
    ],
)
def test_a_wrong_option_names_key_and_file(config: Path, given: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?i){said}"):
        sweep(config, "--vary", "training.local_steps=1,2", "--set", given)


#: Runs a sweep as the command does, and dies as by a cut of power: before or after the N-th row is
#: kept.
_DIES = """
import os, signal, sys
from simulations.cli import app, sweep

def dying(name, when, number):
    real, calls = getattr(sweep, name), []
    def call(*given):
        calls.append(1)
        last = len(calls) == number
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(*given)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(sweep, name, call)

name, when, number, *given = sys.argv[1:]
dying(name, when, int(number))
sys.argv = ["wardround-simulate", *given]
app.main()
"""


@pytest.mark.slow
def test_a_kill_between_combinations_loses_none_and_repeats_none(
    config: Path, tmp_path: Path
) -> None:
    values = "training.learning_rate=0.001,0.01,0.1"
    given = ["--vary", values, "--set", "training.rounds=1", "--arms", "federated"]
    whole = _swept(config, tmp_path / "whole", given)
    out, done = tmp_path / "killed", []
    for made in ("hospitals", "cache"):
        shutil.copytree(tmp_path / "whole" / made, out / made)
    for when, number, kept in (
        ("before", 2, 1),  # the second was trained and is not kept
        ("after", 1, 2),  # the second is kept and in no table
    ):
        command = [sys.executable, "-c", _DIES, "keep_row", when, str(number)]
        command += ["sweep", str(config), "--out", str(out), *given]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        done.append(ended.stdout.count("done before") + ended.stderr.count("done before"))
        assert len(list(out.glob("*/row.json"))) == kept
    assert done == [0, 1]
    assert _swept(config, out, given) == whole
    assert len(list(out.glob("*/row.json"))) == 3


def _swept(config: Path, out: Path, given: list[str]) -> tuple[str, str, str]:
    """Return the tables that a sweep leaves, and what it shows of them."""
    told = CliRunner().invoke(app, ["sweep", str(config), "--out", str(out), *given]).output
    shown = told[told.index("loss on validation") : told.index("Table:")]
    csv_, json_ = ((out / name).read_text(encoding="utf-8") for name in ("sweep.csv", "sweep.json"))
    return shown, csv_, json_
