"""Grades: one score and ordered thresholds, and what is told of true and predicted grades."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, roc_auc_score
from torch import Tensor, nn

from client.inference.answer import Answered
from client.inference.explain import aim_of, strength_of
from common.config.run_config import DiagnosisTask, parse_config
from common.metrics.decisions import confusion, grades
from common.metrics.decisions.confusion import Decisions, Matrices, decided, matrices_of, told
from common.metrics.statistics import merge
from common.models.local_layers import local_names
from common.models.run_network import network_of
from common.platform.errors import ConfigurationError
from common.tasks import Scores, UnusableLabel
from common.tasks.ordinal import CumulativeLink, Grades
from tests.client.small_models import model_of
from tests.common.every_task import config_of, made, outputs_and_targets, rules, scored

RUN = """
name: try
task: {kind: diagnosis, type: ordinal, target: grade, classes: [none, mild, severe]}
cohort: {table: {numbers: [{column: age}]}}
model: {network: table}
training: {rounds: 1}
privacy: none
"""


class Same(nn.Module):
    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        return image + 0 * table


def grades_task() -> Grades:
    config = config_of("grades")
    assert isinstance(config, DiagnosisTask)
    return Grades(config=config)


# --- network, loss, prediction ---------------------------------------------------------------


@given(seed=st.integers(0, 1000), spread=st.sampled_from([0.1, 3.0, 100.0]))
def test_probabilities_fall_from_cut_to_cut_whatever_the_weights_are(
    seed: int, spread: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    network = CumulativeLink(Same(), 5)
    for value in network.parameters():
        value.data += spread * torch.randn(value.shape, generator=generator)
    output = network(spread * torch.randn(8, 1, generator=generator), torch.zeros(8, 1))
    assert (output.diff(dim=1) <= 0).all()
    chance = grades_task().predict(output)
    assert (chance >= 0).all()
    torch.testing.assert_close(chance.sum(1), torch.ones(8))


def test_at_the_start_every_grade_is_as_probable() -> None:
    output = CumulativeLink(Same(), 4)(torch.zeros(1, 1), torch.zeros(1, 1))
    torch.testing.assert_close(grades_task().predict(output), torch.full((1, 4), 0.25))


def test_the_loss_is_that_of_lying_above_each_cut() -> None:
    output, target = outputs_and_targets("grades", 20)
    above = output.double().sigmoid()
    expected = []
    for chance, grade in zip(above, target.argmax(1).tolist(), strict=True):
        each = [p.log() if grade > cut else (1 - p).log() for cut, p in enumerate(chance)]
        expected.append(-sum(each, torch.zeros(())))
    torch.testing.assert_close(
        made("grades").item_loss(output, target), torch.stack(expected).float()
    )


def test_cuts_that_a_calibration_crossed_give_no_probability_below_zero() -> None:
    chance = grades_task().predict(torch.tensor([[-1.0, 2.0, 0.0]]))
    assert (chance >= 0).all()
    assert float(chance.sum()) == pytest.approx(1.0)


def test_a_private_head_keeps_its_thresholds() -> None:
    text = RUN.replace("{table: {numbers: [{column: age}]}}", "{images: {size: [16, 16]}}")
    config = parse_config(
        text.replace("table}", "small_cnn, width: 8}") + "personalisation: {method: personal_head}"
    )
    kept = local_names(config, network_of(config, 0))
    assert {"baseline", "gaps"} < kept


def test_a_cell_that_is_no_grade_is_unusable() -> None:
    assert grades_task().encode({"grade": " moderate "}).tolist() == [0, 0, 1, 0]
    with pytest.raises(UnusableLabel, match="holds '5', expected one of none"):
        grades_task().encode({"grade": "5"})


def test_what_is_explained_is_a_higher_grade() -> None:
    config = parse_config(RUN)
    output = torch.tensor([2.0, -1.0])
    assert aim_of(config, output).label == "a higher grade"
    answered = Answered(
        model=model_of(config, Same()).name,
        config=config,
        items=(),
        output=output[None],
        sources=(),
        measured=(),
        together=output,
    )
    assert strength_of(answered) == pytest.approx(float(output[0].sigmoid()))


# --- metrics ---------------------------------------------------------------------------------


def test_metrics_are_those_of_scikit_learn() -> None:
    scores = scored("grades", 120)
    truth = scores.target.argmax(1).numpy()
    found = made("grades").exact(scores, np.ones((1, 120)), rules())
    guess = decided(scores.prediction.double().numpy(), ordered=True)
    assert set(guess) > {1, 2}
    told_of = {
        "quadratic_kappa": cohen_kappa_score(truth, guess, weights="quadratic"),
        "accuracy": accuracy_score(truth, guess),
        "macro_f1": f1_score(truth, guess, average="macro"),
        "grade_error": np.abs(truth - guess).mean(),
    }
    for cut, name in enumerate(("none", "mild", "moderate")):
        above = scores.prediction[:, cut + 1 :].sum(1).numpy()
        told_of[f"auroc_above_{name}"] = roc_auc_score(truth > cut, above)
    for name, value in told_of.items():
        assert found[name].value == pytest.approx(value, abs=1e-6), name


def test_the_predicted_grade_is_the_one_in_the_middle() -> None:
    chance = np.array([[0.4, 0.2, 0.1, 0.3], [0.5, 0.0, 0.0, 0.5], [0.1, 0.1, 0.1, 0.7]])
    assert decided(chance, ordered=True).tolist() == [1, 0, 3]
    assert decided(chance, ordered=False).tolist() == [0, 0, 3]


# --- what may leave --------------------------------------------------------------------------

rows = st.integers(2, 5).flatmap(
    lambda classes: st.lists(
        st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1), st.integers(0, 12)),
        min_size=1,
        max_size=60,
    ).map(lambda held: (classes, held))
)


@given(given_rows=rows, smallest=st.integers(2, 6))
def test_no_told_count_nor_any_difference_of_two_is_of_few_patients(
    given_rows: tuple[int, list[tuple[int, int, int]]], smallest: int
) -> None:
    """Groups are disjoint and large, and so is what no group holds: all that is told adds them."""
    check_groups(*given_rows, smallest)


def check_groups(classes: int, held: list[tuple[int, int, int]], smallest: int) -> None:
    truth, predicted, owner = (np.array(column) for column in zip(*held, strict=True))
    found = told(Decisions(truth, predicted, owner), classes, smallest)
    everybody = len(np.unique(owner))
    sizes = {int(g): len(np.unique(owner[found.group == g])) for g in np.unique(found.group)}
    assert all(size >= smallest for group, size in sizes.items() if group >= 0), "a small group"
    if sizes.get(-1, 0) < everybody:
        assert sizes.get(-1, smallest) >= smallest, "few are left out, whom the total tells"
    for group in sizes.keys() - {-1}:
        assert len(np.unique(truth[found.group == group])) == 1


def test_which_cells_of_a_group_hold_somebody_is_not_told() -> None:
    """Five patients told together, each predicted otherwise, would be one in each of five cells."""
    truth = np.zeros(5, np.int64)

    def told_of(*predicted: int) -> Matrices:
        rows = Decisions(truth, np.array(predicted), np.arange(5))
        return matrices_of(rows, told(rows, 6, 5), 6)

    one, other = told_of(0, 1, 2, 3, 4), told_of(0, 0, 1, 1, 2)
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a, b)
    assert one.least.sum() == 0
    assert one.middle[0] == pytest.approx([5 / 6] * 6)


def test_all_that_is_told_of_a_site_is_made_of_the_same_groups() -> None:
    scores = scored("grades", 90)
    held = grades_task().statistics(scores, rules())
    middle, most, least = held.sums["middle"], held.cells["most"], held.cells["least"]
    by_grade = middle.sum(axis=1)
    assert (held.cells["ranges"].sum(axis=2) == by_grade[:, None]).all()
    assert (held.cells["reliability"].sum(axis=(1, 2)) == by_grade.sum()).all()
    assert (least <= middle).all()
    assert (middle <= most + 1e-9).all()
    assert (least == 0).sum() > 3, "some cells are small"


def test_a_rare_grade_is_left_out_with_the_next_smallest() -> None:
    scores = scored("grades", 60)
    scores.target[:] = torch.eye(4)[torch.tensor([0] * 30 + [1] * 20 + [2] * 7 + [3] * 3)]
    held = made("grades").statistics(scores, rules())
    assert held.sums["middle"].sum(axis=1).tolist() == [30, 20, 0, 0]
    found = made("grades").summarise(held, rules())
    assert np.isnan(found["auroc_above_moderate"].value)
    assert "smallest cell" in found["auroc_above_moderate"].reason
    assert found["quadratic_kappa"].patients == 50


def test_noised_matrices_give_kappa_near_the_exact_one() -> None:
    task, noisy = made("grades"), rules(count_noise=2.0)
    scores = scored("grades", 600)
    exact = task.exact(scores, np.ones((1, 600)), noisy)
    off = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        held = task.statistics(scores, noisy)
        moved = {n: v + 2.0 * generator.normal(size=v.shape) for n, v in held.cells.items()}
        noised = type(held)(patients=held.patients, cells=moved, sums={}, noise=4.0)
        found = task.summarise(noised, noisy)
        off.append(found["quadratic_kappa"].value - exact["quadratic_kappa"].value)
        inside = found["quadratic_kappa"]
        assert inside.low < inside.value < inside.high
    assert abs(np.mean(off)) < 0.03


def test_three_small_sites_are_within_the_bound_of_their_patients() -> None:
    task = made("grades")
    sites = [scored("grades", 25, seed) for seed in range(3)]
    together = Scores(*(torch.cat(part) for part in list(zip(*sites, strict=True))[:3]))
    merged = task.summarise(
        merge(task.statistics(s, rules(smallest_cell=3)) for s in sites), rules()
    )
    exact = task.exact(together, np.ones((1, 75)), rules())
    for name in ("accuracy", "macro_f1", "grade_error", "quadratic_kappa"):
        assert merged[name].bound > 0
        assert abs(merged[name].value - exact[name].value) <= merged[name].bound + 0.05, name


# --- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[none, mild, severe]", "[none, mild]", "take type: binary"),
        ("[none, mild, severe]", "[none, mild, mild]", "mild twice"),
        ("target: grade", "target: [grade]", "target is a list"),
        ("{rounds: 1}", "{rounds: 1, focal: 2}", "focal is a loss of classes without an order"),
        ("{rounds: 1}", "{rounds: 1, class_weights: {mild: 2.0}}", "class_weights is a loss of"),
    ],
)
def test_what_grades_cannot_be_is_refused_in_words(old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_config(RUN.replace(old, new))


def test_the_approval_says_their_order() -> None:
    config = parse_config(RUN)
    assert config.task.question == "diagnosis: predicts grade (none < mild < severe)"
    assert config.task.calibrated == ("above none", "above mild")
    assert grades.names_of(config.task.labels) == ("auroc_above_none", "auroc_above_mild")
    assert confusion.of_matrix(ordered=False).keys() == {"accuracy", "macro_f1"}
