from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.cohort.site_cohort import SiteCohort
from common.config.run_config import RunConfig
from common.platform.errors import RunFailed
from common.tasks.task import Scores
from server.rounds.run_rounds import RoundRecord
from simulations.comparison.arms import ARMS, Arm, ArmOutcome
from simulations.comparison.compare import (
    Comparison,
    ComparisonPlan,
    ComparisonProgress,
    compare,
    exact_metrics,
    verdicts_of,
)
from simulations.comparison.unfinished import (
    SparingStore,
    Unfinished,
    digest_of_patients,
    key_of_comparison,
)
from simulations.comparison.verdicts import Verdict, choose, said_of
from simulations.engines.engine_choice import Engine
from simulations.report.results import results
from tests.simulations.comparisons import cohort_of, comparison, run_config


class Interrupted(Exception):
    """Someone pressed Ctrl-C here."""


def config_of(kind: str = "binary") -> RunConfig:
    return run_config(kind)


def cohorts_of(config: RunConfig, *patients: int) -> tuple[SiteCohort, ...]:
    return tuple(
        cohort_of(config, ("east", "north", "west")[place], place, count)
        for place, count in enumerate(patients)
    )


def run(
    folder: Path,
    config: RunConfig | None = None,
    arms: tuple[Arm, ...] = ARMS,
    progress: ComparisonProgress | None = None,
    engine: Engine | None = None,
    patients: tuple[int, ...] = (30, 24),
) -> Comparison:
    config = config or config_of()
    plan = ComparisonPlan(arms=arms, seeds=(0, 1), folder=folder, engine=engine or Engine())
    return compare(config, cohorts_of(config, *patients), plan, progress or ComparisonProgress())


def told(found: Comparison) -> object:
    """Return results.json without what the clock decides."""
    content = results(found)
    content.pop("timing")
    return content


def test_the_same_comparison_twice_gives_the_same_results(tmp_path: Path) -> None:
    assert told(run(tmp_path / "a")) == told(run(tmp_path / "b"))


def test_results_are_json_of_the_promised_form(tmp_path: Path) -> None:
    content = json.loads(json.dumps(results(run(tmp_path)), allow_nan=False))
    assert content["schema"] == 2
    assert list(content["arms"]) == list(ARMS)
    assert {"round_seconds", "bare_round_seconds", "peak_rss_mb"} <= set(content["timing"])
    for arm, figures in content["arms"].items():
        assert set(figures["per_site"]) == {"east", "north"}
        assert len(figures["per_seed"]) == 2
        assert (figures["epsilon"] is not None) == (arm == "federated_dp")
    assert [(s["name"], s["patients"], s["images"]) for s in content["sites"]] == [
        ("east", 30, 31),
        ("north", 24, 25),
    ]


def test_a_hospital_without_test_patients_takes_part_and_has_no_result(tmp_path: Path) -> None:
    config = config_of()
    north, east = cohorts_of(config, 30, 40)
    north = replace(north, given=dict.fromkeys(north.items.pseudonyms, "train"))
    plan = ComparisonPlan(arms=ARMS, seeds=(0,), folder=tmp_path)
    content = results(compare(config, (north, east), plan, ComparisonProgress()))
    figures = json.loads(json.dumps(content["arms"], allow_nan=False))
    for arm in ARMS:
        assert figures[arm]["per_site"][north.name] is None
        assert figures[arm]["mean"] == pytest.approx(figures[arm]["per_site"][east.name])


def test_a_hospital_without_training_patients_gets_the_shared_models(tmp_path: Path) -> None:
    config = config_of()
    north, east = cohorts_of(config, 30, 40)
    north = replace(north, given=dict.fromkeys(north.items.pseudonyms, "test"))
    plan = ComparisonPlan(arms=ARMS, seeds=(0,), folder=tmp_path)
    figures = json.loads(
        json.dumps(results(compare(config, (north, east), plan, ComparisonProgress())))
    )
    by_arm = {arm: found["per_site"][north.name] for arm, found in figures["arms"].items()}
    assert by_arm.pop("local") is None
    assert None not in by_arm.values()
    # With privacy it takes part with noise alone: whether it has patients is not told.
    assert figures["arms"]["federated_dp"]["delta"] == 1e-5


@pytest.mark.parametrize("place", range(10))
def test_a_comparison_that_was_stopped_after_any_arm_goes_on_to_the_same_results(
    place: int, tmp_path: Path, expected: object
) -> None:
    ended: list[tuple[Arm, int]] = []

    def done(arm: Arm, seed: int, _fold: int, _outcome: ArmOutcome) -> None:
        ended.append((arm, seed))

    def arm(_arm: Arm, _seed: int, _fold: int) -> None:
        if len(ended) == place:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(tmp_path, progress=ComparisonProgress(arm=arm, done=done))
    kept: list[tuple[Arm, int]] = []
    found = run(
        tmp_path, progress=ComparisonProgress(kept=lambda arm, seed, _: kept.append((arm, seed)))
    )
    assert kept == ended
    assert told(found) == expected


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> object:
    return told(run(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_that_was_stopped_between_rounds_goes_on_from_the_last_saved(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.comparison.unfinished._WORTH_SECONDS", 0.0)
    arms: tuple[Arm, ...] = ("federated",)
    expected = told(run(tmp_path / "whole", arms=arms))
    seen: list[int] = []

    def stopping(_label: str, record: RoundRecord) -> None:
        seen.append(record.round)
        if record.round == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(tmp_path / "cut", arms=arms, progress=ComparisonProgress(round=stopping))
    again: list[int] = []
    observe = ComparisonProgress(round=lambda _label, record: again.append(record.round))
    assert told(run(tmp_path / "cut", arms=arms, progress=observe)) == expected
    assert again[: 3 - stop] == list(range(stop + 1, 4))
    assert len(again) == 3 - stop + 3  # the rest of seed 0, all of seed 1


def _killed(folder: Path) -> None:
    torch.set_num_threads(1)

    def die(label: str, record: RoundRecord) -> None:
        if label == "pooled" and record.round == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    run(folder, progress=ComparisonProgress(round=die))


@pytest.mark.processes
def test_a_comparison_that_was_killed_goes_on_to_the_same_results(
    tmp_path: Path, expected: object
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_killed, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    kept: list[Arm] = []
    found = run(tmp_path, progress=ComparisonProgress(kept=lambda arm, *_: kept.append(arm)))
    assert kept == ["local"]
    assert told(found) == expected


def test_what_is_kept_goes_when_the_comparison_ends(tmp_path: Path) -> None:
    run(tmp_path, arms=("pooled",))
    assert not (tmp_path / "unfinished").exists()


def test_nothing_is_gone_on_with_after_a_change_of_configuration_or_data() -> None:
    config = config_of()
    cohorts = cohorts_of(config, 30, 24)
    key = key_of_comparison(config, digest_of_patients(cohorts))
    assert key == key_of_comparison(config, digest_of_patients(cohorts_of(config, 30, 24)))
    other = config.model_copy(update={"name": "other"})
    assert key != key_of_comparison(other, digest_of_patients(cohorts))
    items = cohorts[0].items
    changed = items.image.clone()
    changed[0, 0, 0, 0] += 1
    first = replace(cohorts[0], items=replace(items, image=changed))
    assert key != key_of_comparison(config, digest_of_patients((first, cohorts[1])))
    assert key != key_of_comparison(config, digest_of_patients(cohorts[::-1]))


def test_a_damaged_file_of_an_arm_is_trained_again(tmp_path: Path) -> None:
    found = comparison(config_of())
    kept = Unfinished(tmp_path, "key")
    outcome = found.outcomes["federated", 0][0]
    kept.keep("federated", 0, 0, outcome)
    path = next(tmp_path.rglob("federated*.safetensors"))
    path.write_bytes(path.read_bytes()[:-9])
    assert kept.outcome("federated", 0, 0) is None


@pytest.mark.parametrize("kind", ["binary", "survival", "segmentation", "multiclass"])
def test_an_outcome_is_read_back_as_it_was_kept(kind: str, tmp_path: Path) -> None:
    found = comparison(config_of(kind))
    kept = Unfinished(tmp_path, "key")
    for (arm, seed), (outcome,) in found.outcomes.items():
        timed = replace(
            outcome,
            weights=dict(sorted(outcome.weights.items())),
            rounds=tuple(replace(r, seconds=0.25, training_seconds=0.125) for r in outcome.rounds),
        )
        kept.keep(arm, seed, 0, timed)
        found_again = kept.outcome(arm, seed, 0)
        assert found_again is not None
        ordered = replace(found_again, weights=dict(sorted(found_again.weights.items())))
        assert repr(ordered) == repr(timed)


def test_quick_rounds_are_not_saved_but_the_best_is(tmp_path: Path) -> None:
    from tests.server.hospitals import config_of as run_of
    from tests.server.hospitals import start

    _, state = start(run_of())
    store = SparingStore(tmp_path / "state")
    trained = replace(state, round=1, settled=False)
    store.save(trained)
    assert store.load() is None
    store.save(replace(trained, settled=True, best_round=1, best=trained.weights, best_score=1.0))
    loaded = store.load()
    assert loaded is not None
    assert loaded.round == 1


@pytest.mark.processes
def test_two_workers_give_the_same_results(tmp_path: Path, expected: object) -> None:
    assert told(run(tmp_path, engine=Engine(workers=2))) == expected


def test_a_hospital_too_small_to_train_alone_still_gets_the_shared_model(tmp_path: Path) -> None:
    found = run(tmp_path, patients=(30, 24, 4))
    for seed in found.seeds:
        assert len(found.site_scores("local", seed, "west").loss) == 0
        assert len(found.site_scores("federated", seed, "west").loss) > 0
    content = results(found)
    json.dumps(content, allow_nan=False)
    west = found.verdicts["west"]
    assert {said_of(gain) for gain in west.gains.values()} == {"cannot be said: too few patients"}
    assert all("local" not in folds for folds in west.chosen)


def test_nobody_large_enough_to_train_alone_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="smallest_cohort"):
        run(tmp_path, patients=(5, 4), arms=("local",))


def outcomes_with(losses: dict[Arm, list[float]]) -> dict[Arm, ArmOutcome]:
    """Return outcomes whose validation patients at north lose this much."""
    found = comparison(config_of())
    return {
        arm: replace(
            found.outcomes[arm, 0][0],
            validation={
                "north": torch.tensor(losses[arm], dtype=torch.float64),
                "south": torch.zeros(0),
            },
        )
        for arm in losses
    }


@pytest.mark.parametrize("best", ["federated", "personalised", "local"])
def test_a_hospital_chooses_what_its_validation_patients_clearly_prefer(best: Arm) -> None:
    losses: dict[Arm, list[float]] = {
        "federated": [0.5, 0.6],
        "personalised": [0.5, 0.6],
        "local": [0.5, 0.6],
        "pooled": [0.1, 0.1],
    }
    assert choose(outcomes_with(losses | {best: [0.4, 0.51]}), "north") == best


def test_a_difference_within_chance_leaves_the_personalised_model() -> None:
    losses: dict[Arm, list[float]] = {
        "federated": [0.1, 0.9, 0.5],
        "personalised": [0.5, 0.6, 0.5],
        "local": [0.9, 0.1, 0.4],
    }
    assert choose(outcomes_with(losses), "north") == "personalised"


def test_a_model_that_fails_on_a_validation_patient_is_not_chosen() -> None:
    losses: dict[Arm, list[float]] = {
        "federated": [0.5, 0.6],
        "personalised": [0.1, math.nan],
        "local": [0.7, 0.8],
    }
    assert choose(outcomes_with(losses), "north") == "federated"


def test_without_validation_patients_the_personalised_model_stands() -> None:
    assert choose(outcomes_with({"personalised": [], "federated": [], "local": []}), "north") == (
        "personalised"
    )


def verdict_where(right: set[Arm]) -> Verdict:
    """Return north's verdict where these arms predict the truth and the others its opposite."""
    found = comparison(config_of())
    given = {
        (arm, seed): tuple(
            replace(
                outcome,
                test={
                    site: scores._replace(
                        prediction=scores.target if arm in right else 1 - scores.target
                    )
                    for site, scores in outcome.test.items()
                },
            )
            for outcome in outcomes
        )
        for (arm, seed), outcomes in found.outcomes.items()
    }
    return verdicts_of(found.config, found.cohorts, found.arms, given, found.seeds)["north"]


def test_a_shared_model_that_harms_is_called_harm_where_the_hospital_would_keep_its_own() -> None:
    found = comparison(config_of())
    own_is_better = {
        key: tuple(
            replace(
                o,
                validation=dict.fromkeys(
                    o.validation, torch.full((9,), 0.1 if key[0] == "local" else 0.9)
                ),
            )
            for o in outcomes
        )
        for key, outcomes in found.outcomes.items()
    }
    given = {
        (arm, seed): tuple(
            replace(
                o,
                test={
                    site: s._replace(prediction=s.target if arm == "local" else 1 - s.target)
                    for site, s in o.test.items()
                },
            )
            for o in outcomes
        )
        for (arm, seed), outcomes in own_is_better.items()
    }
    north = verdicts_of(found.config, found.cohorts, found.arms, given, found.seeds)["north"]
    assert {arm for folds in north.chosen for arm in folds} == {"local"}
    assert north.gains["chosen"].value == north.gains["chosen"].low == 0.0
    assert said_of(north.gains["chosen"]) == "no difference beyond chance"
    for name in ("federated", "personalised", "federated_dp"):
        assert said_of(north.gains[name]) == "harmed"


def test_each_model_is_held_against_the_hospitals_own() -> None:
    north = verdict_where({"personalised"})
    assert said_of(north.gains["personalised"]) == "helped"
    assert said_of(north.gains["chosen"]) == "helped"
    assert said_of(north.gains["federated"]) == "no difference beyond chance"
    assert set(north.gains) == {"federated", "personalised", "federated_dp", "chosen"}


def test_the_interval_is_of_the_mean_over_seeds_with_a_patient_drawn_in_every_seed() -> None:
    found = comparison(config_of())
    # The same seed twice adds no patients, so the interval must not shrink.
    one, two = (
        verdicts_of(found.config, found.cohorts, found.arms, found.outcomes, seeds)["north"]
        for seeds in [(0,), (0, 0)]
    )
    assert two.gains["federated"] == one.gains["federated"]


def test_a_hospital_that_is_left_out_trains_nothing_of_its_model(tmp_path: Path) -> None:
    config = config_of()
    north, east = cohorts_of(config, 30, 40)
    plan = ComparisonPlan(arms=("leave_one_out",), seeds=(0,), folder=tmp_path / "both")
    both = compare(config, (north, east), plan, ComparisonProgress())
    (found,) = both.outcomes["leave_one_out", 0]
    assert set(found.own) == {north.name, east.name}
    # Its model is that of the other alone, and does not move with its own patients.
    image = north.items.image
    changed = replace(north, items=replace(north.items, image=image + 1))
    plan = replace(plan, folder=tmp_path / "changed")
    again = compare(config, (changed, east), plan, ComparisonProgress())
    (other,) = again.outcomes["leave_one_out", 0]
    for name, value in found.own[north.name].items():
        assert torch.equal(value, other.own[north.name][name])
    assert any(
        not torch.equal(value, other.own[east.name][name])
        for name, value in found.own[east.name].items()
    )
    assert both.is_mean_of_sites("leave_one_out")
    figures = results(both)["arms"]
    assert isinstance(figures, dict)
    assert list(figures) == ["leave_one_out"]


def test_one_hospital_alone_cannot_be_left_out(tmp_path: Path) -> None:
    config = config_of()
    (north, _) = cohorts_of(config, 30, 40)
    plan = ComparisonPlan(arms=("leave_one_out",), seeds=(0,), folder=tmp_path)
    with pytest.raises(RunFailed, match="none is left to train"):
        compare(config, (north,), plan, ComparisonProgress())


def test_intervals_draw_all_images_of_a_patient_together() -> None:
    """Ten copies of each picture tell no more than one: the interval stays as wide."""
    config = run_config("binary")
    config = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"unit": "image"})}
    )
    drawn = torch.Generator().manual_seed(2)
    truth = (torch.arange(40) % 2).float()[:, None]
    told = (0.2 * truth + 0.7 * torch.rand((40, 1), generator=drawn)).clamp(0, 1)
    loss = torch.zeros(40, dtype=torch.float64)
    once = Scores(prediction=told, target=truth, loss=loss, owner=torch.arange(40))
    copied = Scores(*(part.repeat_interleave(10, dim=0) for part in once if part is not None))
    alone, together = (exact_metrics(config, s, 0)["auroc"] for s in (once, copied))
    assert alone.low < alone.value < alone.high < 1
    assert together.value == pytest.approx(alone.value)
    assert together.low == pytest.approx(alone.low)
    assert together.high == pytest.approx(alone.high)
