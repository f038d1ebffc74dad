"""Algorithms side by side: what each changes, and one table by hospital."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from common.config.run_config import RunConfig
from common.platform.errors import ConfigurationError
from simulations.cli.app import app
from simulations.comparison.algorithms import algorithms_of
from tests.wardround.small_runs import SMALL

HOSPITALS = ("north", "south", "east", "west")


def config_of(**sections: object) -> RunConfig:
    return RunConfig.model_validate({**SMALL, "privacy": "none", **sections})


def test_an_algorithm_keeps_what_the_run_says_of_it() -> None:
    plain = {one.name: one for one in algorithms_of("fedavg, fedprox,ditto", config_of())}
    assert plain["fedavg"].changes["training.proximal"] == 0.0
    assert plain["fedprox"].changes["training.proximal"] == 0.01
    assert plain["ditto"].changes["personalisation"] == {"method": "ditto"}
    assert [one.arm for one in plain.values()] == ["federated", "federated", "personalised"]
    said = config_of(
        training={"rounds": 1, "proximal": 0.3}, personalisation={"method": "ditto", "pull": 2.0}
    )
    _, prox, own = algorithms_of("fedavg,fedprox,ditto", said)
    assert prox.changes["training.proximal"] == 0.3
    assert own.changes["personalisation"] == {"method": "ditto", "pull": 2.0}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("fedavg,fedpox", "hold fedpox; expected some of fedavg,fedprox"),
        (" , ", "hold nothing"),
        ("ditto,fedavg,ditto", "name one twice"),
    ],
)
def test_what_is_no_algorithm_is_refused_by_name(names: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        algorithms_of(names, config_of())


@pytest.mark.slow
def test_one_table_has_each_algorithm_at_each_hospital(tmp_path: Path) -> None:
    path, out = tmp_path / "small.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")

    def told(*given: str) -> str:
        command = ["compare", str(path), "--out", str(out), *given]
        command += ["--set", "training.optimizer=sgd", "--set", "cohort.smallest_cohort=2"]
        ended = CliRunner().invoke(app, command)
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return ended.output

    shown = told("--algorithms", "fedavg,scaffold,ditto")
    with (out / "algorithms.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["algorithm"] for row in rows] == ["fedavg", "scaffold", "ditto"]
    assert [row["arm"] for row in rows] == ["federated", "federated", "personalised"]
    for row in rows:
        each = [float(row[name]) for name in HOSPITALS if row[name]]
        assert float(row["test"]) == pytest.approx(sum(each) / len(each))
    assert rows[0]["validation_loss"] != rows[2]["validation_loss"]
    assert "<- chosen" in shown
    assert told("--algorithms", "fedavg,scaffold,ditto").count("done before") == 3
    workers = tmp_path / "workers"
    out = workers
    told("--algorithms", "ditto", "--workers", "2")
    with (workers / "algorithms.csv").open(encoding="utf-8") as file:
        (again,) = csv.DictReader(file)
    assert again["validation_loss"] == rows[2]["validation_loss"]
    with pytest.raises(ConfigurationError, match=r"remove --arms"):
        told("--algorithms", "ditto", "--arms", "local")
