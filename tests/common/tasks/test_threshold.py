"""Accuracy, F1 and the confusion matrix at a threshold that the configuration names."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
)

from common.bundle.evidence import confusion_from_json, confusion_json, confusion_of
from common.config.privacy import Evaluation
from common.config.run_config import RunConfig, parse_config
from common.metrics.decisions.threshold import share_above
from common.metrics.small_cells import withhold_small_cells
from common.metrics.statistics import count_sensitivity, merge
from common.platform.errors import ConfigurationError
from common.tasks import Scores, patient_weights
from simulations.report.confusion import matrices
from tests.common.every_task import config_of, made, rules, scored

KINDS: dict[str, float | str] = {
    "binary": 0.3,
    "multilabel": 0.62,
    "fixed_horizon": 0.5,
    "multiclass": "most_probable",
}
EVERY = pytest.mark.parametrize("kind", KINDS)
NEW = {
    "binary": {"accuracy", "f1", "precision", "recall", "specificity"},
    "multiclass": {"accuracy", "macro_f1"},
}
RUN = """
name: try
task: {task}
cohort: {{table: {{numbers: [{{column: age}}]}}}}
model: {{network: table}}
training: {{rounds: 1}}
evaluation: {{threshold: {threshold}}}
privacy: none
"""
LABEL = "{kind: diagnosis, target: ill}"
CLASSES = "{kind: diagnosis, type: multiclass, target: kind, classes: [a, b, c]}"


def rules_of(kind: str, *, count_noise: float = 0.0, smallest_cell: int = 5) -> Evaluation:
    content = rules(count_noise=count_noise, smallest_cell=smallest_cell).model_dump()
    return Evaluation.model_validate(content | {"threshold": KINDS[kind]})


def run_of(kind: str, some: Evaluation) -> RunConfig:
    config = parse_config(RUN.format(task=LABEL, threshold=0.5))
    return config.model_copy(update={"task": config_of(kind), "evaluation": some})


@EVERY
def test_metrics_and_matrices_are_those_of_scikit_learn(kind: str) -> None:
    scores, some = scored(kind, 200), rules_of(kind)
    found = made(kind).exact(scores, np.ones((1, 200)), some)
    held = matrices(run_of(kind, some), scores)
    if kind == "multiclass":
        truth, guess = (p.argmax(1).numpy() for p in (scores.target, scores.prediction))
        assert found["accuracy"].value == pytest.approx(accuracy_score(truth, guess))
        assert found["macro_f1"].value == pytest.approx(f1_score(truth, guess, average="macro"))
        assert held[0].counts.tolist() == confusion_matrix(truth, guess).tolist()
        return
    known = ~torch.isnan(scores.target)
    each = []
    for label, one in enumerate(held):
        here = known[:, label]
        truth = scores.target[here, label].numpy()
        guess = (scores.prediction[here, label].double() >= KINDS[kind]).numpy().astype(float)
        assert one.counts.tolist() == confusion_matrix(truth, guess).tolist()
        each.append(
            {
                "accuracy": accuracy_score(truth, guess),
                "f1": f1_score(truth, guess),
                "precision": precision_score(truth, guess),
                "recall": recall_score(truth, guess),
                "specificity": recall_score(1 - truth, 1 - guess),
            }
        )
    for name in NEW["binary"]:
        assert found[name].value == pytest.approx(np.mean([one[name] for one in each])), name


@EVERY
def test_merged_ones_lie_within_their_bound(kind: str) -> None:
    task, some = made(kind), rules_of(kind)
    sites = [scored(kind, 60, seed) for seed in range(3)]
    merged = merge(task.statistics(s, some) for s in sites)
    told = task.summarise(merged, some)
    together = Scores(*(torch.cat(part) for part in list(zip(*sites, strict=True))[:3]))
    exact = task.exact(together, patient_weights(together, 20, 0), some)
    assert set(told) == set(exact)
    for name in NEW["multiclass" if kind == "multiclass" else "binary"]:
        assert abs(told[name].value - exact[name].value) <= told[name].bound + 1e-9, name
        assert told[name].low <= told[name].value <= told[name].high
    counted = matrices(run_of(kind, some), together)
    for one, true in zip(confusion_of(merged, run_of(kind, some)), counted, strict=True):
        assert (np.array(one.least) <= true.counts + 1e-6).all()
        # Of labels by themselves a count that is unknown counts nowhere.
        assert (true.counts <= np.array(one.most) + 1e-6).all()
        assert one.classes == true.classes
    told_of = confusion_of(merged, run_of(kind, some))
    content = json.loads(json.dumps(confusion_json(told_of)))["confusion"]
    assert confusion_from_json(content) == told_of


@EVERY
@given(seed=st.integers(0, 500), patients=st.integers(0, 40), smallest=st.integers(2, 7))
def test_no_small_cell_is_told(kind: str, seed: int, patients: int, smallest: int) -> None:
    some = rules_of(kind, smallest_cell=smallest)
    held = made(kind).statistics(scored(kind, patients, seed), some)
    assert held.to_json() == withhold_small_cells(held, smallest).to_json()
    found = made(kind).summarise(held, some)
    assert all(e.reason or not np.isnan(e.value) for e in found.values())


def test_ranges_of_classes_are_made_inside_the_matrixs_groups() -> None:
    """Else a range that ends near the decision could be subtracted from a cell."""
    some = rules_of("multiclass")
    held = made("multiclass").statistics(scored("multiclass", 90), some)
    by_class = held.sums["middle"].sum(axis=1)
    positive, negative = (held.cells[n].sum(axis=2) for n in ("positive", "negative"))
    assert (positive == by_class[:, None]).all()
    assert (negative == (by_class.sum() - by_class)[:, None]).all()
    plain = made("multiclass").statistics(scored("multiclass", 90), rules())
    few = (held.cells["positive"] > 0).sum(), (plain.cells["positive"] > 0).sum()
    assert few[0] <= few[1], "groups can only make ranges longer"


@EVERY
@given(seed=st.integers(0, 300), patients=st.integers(1, 30))
def test_noised_counts_move_no_farther_than_charged(kind: str, seed: int, patients: int) -> None:
    noisy = rules_of(kind, count_noise=1.0)
    owner = torch.tensor([*range(patients), patients - 1, patients - 1])
    scores = scored(kind, patients + 2, seed, owner=owner)
    held = made(kind).statistics(scores, noisy)
    fewer = made(kind).statistics(
        Scores(*(None if part is None else part[: patients - 1] for part in scores)), noisy
    )
    moved = [(held.cells[n] - fewer.cells[n]).ravel() for n in held.cells]
    assert np.linalg.norm(np.concatenate(moved)) <= count_sensitivity(held) + 1e-9
    charged = run_of(kind, noisy).noised_rows
    assert charged**0.5 == pytest.approx(count_sensitivity(held))


@EVERY
def test_noised_counts_tell_metrics_or_why_not(kind: str) -> None:
    noisy = rules_of(kind, count_noise=2.0)
    scores = scored(kind, 500)
    exact = made(kind).exact(scores, np.ones((1, 500)), noisy)
    held = made(kind).statistics(scores, noisy)
    generator = np.random.default_rng(0)
    moved = {n: v + 2.0 * generator.normal(size=v.shape) for n, v in held.cells.items()}
    told = made(kind).summarise(replace(held, cells=moved, noise=4.0), noisy)
    for name in NEW["multiclass" if kind == "multiclass" else "binary"]:
        assert told[name].low <= exact[name].value <= told[name].high, name
    (one, *_) = confusion_of(replace(held, cells=moved, noise=4.0), run_of(kind, noisy))
    assert one.noise == 2.0
    assert min(map(min, one.counts)) >= 0


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.001])
def test_a_threshold_at_an_edge_splits_no_bin(threshold: float) -> None:
    share = share_above(np.array([0.0, 0.3, 0.5, 0.8, 1.0]), threshold)
    assert (share.least <= share.likely).all()
    assert (share.likely <= share.most).all()
    assert (share.least == share.most).all() == (threshold in {0.3, 0.5})


def test_without_a_threshold_nothing_else_is_told() -> None:
    for kind in KINDS:
        held = made(kind).statistics(scored(kind, 60), rules())
        assert not {"least", "most", "matrix"} & held.cells.keys()
        assert "accuracy" not in made(kind).summarise(held, rules())
        assert confusion_of(held, run_of(kind, rules())) == ()


@pytest.mark.parametrize(
    ("task", "threshold", "said"),
    [
        (LABEL, "most_probable", "write a probability, such as 0.5"),
        (LABEL, "1.0", "less than 1"),
        (CLASSES, "0.5", "write most_probable"),
        ("{kind: regression, target: ef, range: [0, 1]}", "0.5", "predicts no labels; remove it"),
        (CLASSES.replace("multiclass", "ordinal"), "0.5", "always measured so; remove it"),
        (
            CLASSES.replace("[a, b, c]", f"[{', '.join(f'c{n}' for n in range(21))}]"),
            "most_probable",
            "at most 20 classes, not 21",
        ),
    ],
)
def test_a_threshold_that_decides_nothing_is_refused(task: str, threshold: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_config(RUN.format(task=task, threshold=threshold))


def test_a_run_without_a_threshold_keeps_its_hash() -> None:
    without = RUN.replace("evaluation: {{threshold: {threshold}}}\n", "")
    config = parse_config(without.format(task=LABEL))
    assert "threshold" not in config.canonical_json()
    assert config.noised_rows == 1
