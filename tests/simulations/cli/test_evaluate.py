"""A bundle on other hospitals: the comparison's own figures on its test part, and all of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from common.platform.errors import CohortError, ConfigurationError
from simulations.cli.app import app
from simulations.cli.compare import Request, run_comparison
from tests.wardround.small_runs import SMALL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a comparison, with its bundle and its hospitals."""
    folder = tmp_path_factory.mktemp("evaluated")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "privacy": "none"}), encoding="utf-8")
    out = folder / "out"
    run_comparison(
        Request(
            config=path, data=None, out=out, seeds=1, arms="federated", epsilon=None, threads=None
        )
    )
    return out


def evaluated(done: Path, data: Path, part: str) -> dict[str, dict[str, dict[str, float]]]:
    words = ["evaluate", str(done / "bundle"), "--data", str(data), "--part", part]
    ended = CliRunner().invoke(app, [*words, "--out", str(done.parent / part)])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    told = json.loads((done.parent / part / "evaluation.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, dict[str, float]]] = told["sites"]
    return found


def test_the_test_part_has_the_figures_of_the_comparison(done: Path) -> None:
    (hospitals,) = (done / "hospitals").iterdir()
    found = evaluated(done, hospitals, "test")
    told = json.loads((done / "results.json").read_text(encoding="utf-8"))["arms"]["federated"]
    assert found["all"]["auroc"]["value"] == pytest.approx(told["mean"], abs=1e-6)
    of_sites = {name: values["auroc"]["value"] for name, values in found.items() if name != "all"}
    assert of_sites == pytest.approx(told["per_site"], abs=1e-6)


def test_one_hospitals_folder_is_measured_by_itself(done: Path) -> None:
    (hospitals,) = (done / "hospitals").iterdir()
    one = min(hospitals.iterdir())
    found = evaluated(done, one, "all")
    assert list(found) == [one.name]
    assert found[one.name]["auroc"]["patients"] > 5


def test_what_is_not_there_is_named(done: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no bundle in"):
        evaluated(tmp_path, done, "all")
    with pytest.raises(CohortError, match="There is no folder"):
        evaluated(done, tmp_path / "nowhere", "all")
