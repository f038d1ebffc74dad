from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import yaml

import wardround as wr
from simulations.cli.compare import Request, run_comparison
from simulations.report.results import results
from tests.wardround.small_runs import SMALL

ARMS = ["local", "federated", "federated_dp"]


@pytest.fixture(scope="module")
def found(run: wr.RunConfig, sites: wr.Cohorts) -> wr.Results:
    return wr.compare(run, sites, arms=ARMS, seeds=2, progress=False)  # type: ignore[arg-type]


def told(folder: Path) -> dict[str, object]:
    """Return results.json without what the clock decides."""
    content: dict[str, object] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    content.pop("timing")
    return content


@pytest.mark.slow
def test_the_same_call_gives_the_numbers_of_the_command(
    found: wr.Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(dict(SMALL)), encoding="utf-8")
    command, ours = tmp_path / "command", tmp_path / "ours"
    run_comparison(
        Request(
            config=config,
            data=None,
            out=command,
            seeds=2,
            arms=",".join(ARMS),
            epsilon=None,
            threads=None,
        )
    )
    capsys.readouterr()
    page = found.report(ours)
    assert page.is_file()
    assert told(ours) == told(command)
    written = {p.relative_to(command) for p in command.rglob("*") if p.is_file()}
    kept = {"cache", "hospitals", "ledgers"}  # in the sites' own folder
    wanted = {path for path in written if path.parts[0] not in kept}
    assert {p.relative_to(ours) for p in ours.rglob("*") if p.is_file()} == wanted
    for name in ("config.yaml", "not-used.csv", "bundle/model.safetensors"):
        assert (ours / name).read_bytes() == (command / name).read_bytes()


def test_the_frame_holds_the_numbers_of_results_json(found: wr.Results) -> None:
    content = json.loads(json.dumps(results(found.comparison)))
    frame = found.frame()
    assert len(frame) == len(ARMS) * 2 * 5
    for arm in ARMS:
        whole = frame[(frame.arm == arm) & (frame.site == "all")]
        assert whole.value.tolist() == pytest.approx(
            [math.nan if v is None else v for v in content["arms"][arm]["per_seed"]], nan_ok=True
        )
        assert whole.epsilon.notna().all() == (arm == "federated_dp")
    metrics = found.metrics()
    first = content["arms"]["federated"]["metrics_first_seed"]
    chosen = metrics[(metrics.arm == "federated") & (metrics.seed == 0) & (metrics.site == "all")]
    assert chosen.metric.tolist() == list(first)
    for name, value in zip(chosen.metric, chosen.value, strict=True):
        expected = first[name]["value"]
        assert value == pytest.approx(math.nan if expected is None else expected, nan_ok=True)
    assert set(found.gains().model) == {"federated", "federated_dp", "chosen"}
    rounds = found.rounds()
    assert rounds.groupby(["arm", "seed"]).size().to_dict() == {
        (arm, seed): 3 for arm in ARMS[1:] for seed in (0, 1)
    }


def test_results_show_themselves_as_the_command_does(found: wr.Results) -> None:
    assert "no privacy claim" in repr(found)
    assert "federated_dp" in repr(found)
    page = found._repr_html_()
    assert page.count("<tr>") == 1 + 1 + 4 + 2  # head, all, four hospitals, epsilon at two deltas
    assert "no privacy claim" in page


def test_training_gives_the_weights_of_the_comparison(
    run: wr.RunConfig, sites: wr.Cohorts, found: wr.Results
) -> None:
    trained = wr.train(run, sites, arm="federated", seed=1, progress=False)
    theirs = found.comparison.outcomes["federated", 1][0]
    assert trained.chosen_round == theirs.chosen_round
    assert set(trained.weights) == set(theirs.weights)
    assert all(torch.equal(trained.weights[n], theirs.weights[n]) for n in theirs.weights)
    assert "seed 1" in repr(trained)
    assert "seed 1" in trained._repr_html_()
    assert set(trained.frame().seed) == {1}
    assert len(trained.rounds()) == 3
    assert set(trained.metrics().site) == {*sites.names, "all"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arms": ["federted"]}, "federted"),
        ({"arms": []}, "nothing"),
        ({"seeds": 0}, "seeds=0"),
        ({"seeds": [1, 1]}, "different"),
        ({"seeds": [-1]}, "from 0 on"),
        ({"workers": 0}, "workers=0"),
        ({"engine": "rayy"}, "rayy"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(
    run: wr.RunConfig, sites: wr.Cohorts, options: dict[str, object], said: str
) -> None:
    with pytest.raises(wr.ConfigurationError, match=said):
        wr.compare(run, sites, progress=False, **options)  # type: ignore[arg-type]


def test_an_arm_without_a_shared_model_is_not_trained(run: wr.RunConfig, sites: wr.Cohorts) -> None:
    with pytest.raises(wr.ConfigurationError, match="'local' has no model for all"):
        wr.train(run, sites, arm="local", progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"cohort.images.size": [16, 16]}, "cohort"),
        ({"cohort.split.test_fraction": 0.2}, "cohort"),
        ({"task.target": "large"}, "task"),
        ({"privacy": "none"}, "privacy"),
        ({"evaluation.unit": "image"}, r"evaluation\.unit"),
        ({"model.network": "frozen_features"}, "model"),
    ],
)
def test_hospitals_that_were_read_for_another_run_are_refused(
    run: wr.RunConfig, sites: wr.Cohorts, changes: dict[str, object], what: str
) -> None:
    with pytest.raises(wr.ConfigurationError, match=f"reads otherwise than small: {what}"):
        wr.compare(wr.load(run, changes), sites, progress=False)


def test_other_rounds_and_another_epsilon_take_the_same_hospitals(
    run: wr.RunConfig, sites: wr.Cohorts
) -> None:
    other = wr.load(run, {"training.rounds": 1}, epsilon=2.0)
    frame = wr.compare(other, sites, arms="federated_dp", progress=False).frame()
    assert frame.epsilon.max() == pytest.approx(2.0, rel=1e-3)
