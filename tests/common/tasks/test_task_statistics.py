from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.metrics.small_cells import withhold_small_cells
from common.metrics.statistics import Statistics, count_sensitivity, merge
from common.tasks import Scores, paired_difference, patient_weights, task_of
from common.tasks.prognosis import Survival
from common.tasks.segmentation import Segmentation
from tests.common.every_task import CONFIGS, made, rules, scored

EVERY = pytest.mark.parametrize("kind", CONFIGS)


def first(scores: Scores, rows: int) -> Scores:
    return Scores(*(None if part is None else part[:rows] for part in scores))


def joined(parts: list[Scores]) -> Scores:
    columns = list(zip(*parts, strict=True))[:3]
    return Scores(*(torch.cat(column) for column in columns))


@EVERY
@given(seed=st.integers(0, 1000), patients=st.integers(0, 40), smallest=st.integers(2, 7))
def test_statistics_hold_no_small_cell_without_being_withheld(
    kind: str, seed: int, patients: int, smallest: int
) -> None:
    some = rules(smallest_cell=smallest)
    made_here = made(kind).statistics(scored(kind, patients, seed), some)
    left = withhold_small_cells(made_here, smallest)
    assert made_here.to_json() == left.to_json()
    if patients < smallest:
        assert not any(v.any() for v in (*made_here.cells.values(), *made_here.sums.values()))
        found = made(kind).summarise(made_here, some)
        assert all(np.isnan(e.value) and e.reason for e in found.values())


@EVERY
def test_many_images_of_few_patients_tell_nothing(kind: str) -> None:
    scores = scored(kind, 60, owner=torch.arange(60) % 4)
    found = made(kind).statistics(scores, rules())
    assert float(found.patients) == 0
    assert not any(value.any() for value in (*found.cells.values(), *found.sums.values()))


def test_a_structure_that_few_patients_have_tells_nothing_of_them() -> None:
    scores = scored("outline", 40)
    scores.target[:] = 0
    scores.target[:3, 2:6, 3:7] = 1
    found = made("outline").statistics(scores, rules())
    names = ("dice_lesion", "dice")
    summary = made("outline").summarise(found, rules())
    assert all(np.isnan(summary[name].value) for name in names)
    assert not found.sums["value"][:2].any()
    # 37 without a lesion of 40 would tell of 3 with one; two more are left out.
    assert found.cells["present"][2] == 35


@pytest.mark.parametrize("few", [0.0, 1.0])
def test_a_rare_outcome_holds_back_the_other_too(few: float) -> None:
    scores = scored("binary", 40)
    scores.target[:], scores.target[:3] = 1 - few, few
    found = made("binary").statistics(scores, rules())
    assert not any(value.any() for value in found.cells.values())
    area = made("binary").summarise(found, rules())["auroc"]
    assert np.isnan(area.value)
    assert "smallest cell" in area.reason


def test_one_rare_class_is_not_told_by_the_others() -> None:
    scores = scored("multiclass", 60)
    scores.target[:] = torch.eye(3)[torch.tensor([0] * 30 + [1] * 27 + [2] * 3)]
    found = made("multiclass").statistics(scores, rules())
    told = found.cells["positive"].sum(axis=(1, 2)) > 0
    assert told.tolist() == [True, False, False]


def test_few_events_tell_no_ranks() -> None:
    scores = scored("proportional", 40)
    scores.target[:, -1] = 0
    scores.target[:4, -1] = 1
    found = made("proportional").statistics(scores, rules())
    assert not found.sums["concordance"].any()
    assert not found.cells["case"].any()
    assert not found.cells["control"].any()


@EVERY
def test_merged_metrics_are_near_the_exact_ones(kind: str) -> None:
    task, some = made(kind), rules()
    sites = [scored(kind, 150, seed) for seed in range(3)]
    merged = task.summarise(merge(task.statistics(s, some) for s in sites), some)
    together = joined(sites)
    exact = task.exact(together, patient_weights(together, 50, 0), some)
    assert set(merged) == set(exact)
    for name, found in merged.items():
        assert found.value == pytest.approx(exact[name].value, abs=max(found.bound, 0.03)), name
        assert found.low <= found.value <= found.high
    assert merged["loss"].value == pytest.approx(float(together.loss.mean()), rel=1e-6)


@EVERY
def test_each_site_alone_or_merged_in_any_order_is_the_same(kind: str) -> None:
    task, some = made(kind), rules()
    parts = [task.statistics(scored(kind, 40, seed), some) for seed in range(3)]
    one, other = merge(parts), merge(parts[::-1])
    again = merge([Statistics.from_json(p.to_json()) for p in parts])
    for mixed in (other, again):
        for name, value in {**one.cells, **one.sums}.items():
            np.testing.assert_allclose({**mixed.cells, **mixed.sums}[name], value, atol=1e-9)


@EVERY
@given(seed=st.integers(0, 1000), patients=st.integers(1, 30))
def test_counts_for_noise_move_no_farther_than_stated_with_one_patient(
    kind: str, seed: int, patients: int
) -> None:
    noisy = rules(count_noise=1.0)
    # The last patient has three images.
    owner = torch.tensor([*range(patients), patients - 1, patients - 1])
    scores = scored(kind, patients + 2, seed, owner=owner)
    task = made(kind)
    with_them = task.statistics(scores, noisy)
    without = task.statistics(first(scores, patients - 1), noisy)
    assert not with_them.sums
    moved = [(with_them.cells[name] - without.cells[name]).ravel() for name in with_them.cells]
    moved.append(np.atleast_1d(with_them.patients - without.patients))
    assert np.linalg.norm(np.concatenate(moved)) <= count_sensitivity(with_them) + 1e-9


@EVERY
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_scores_that_are_no_numbers_are_counted_like_others(kind: str, odd: float) -> None:
    """Crafted weights give them; each patient stays in one cell of each row."""
    scores = scored(kind, 12)
    if scores.prediction.is_floating_point():
        scores.prediction[::3] = odd
    noisy = rules(count_noise=1.0)
    found, task = made(kind).statistics(scores, noisy), made(kind)
    for cells in found.cells.values():
        assert (cells.sum(axis=-1) == 12).all()
    for left_out in range(12):
        stay = np.flatnonzero(np.arange(12) != left_out)
        fewer = task.statistics(Scores(*(None if v is None else v[stay] for v in scores)), noisy)
        moved = [(found.cells[n] - fewer.cells[n]).ravel() for n in found.cells]
        assert np.linalg.norm(np.concatenate(moved)) <= count_sensitivity(found) + 1e-9


@EVERY
def test_noised_counts_give_the_tasks_metric_or_say_why_not(kind: str) -> None:
    task, noisy = made(kind), rules(count_noise=1.0)
    scores = scored(kind, 300)
    found = task.summarise(task.statistics(scores, noisy), noisy)
    exact = task.draws(scores, np.ones((1, 300)), noisy)[0]
    main = found[task.metric]
    assert main.value == pytest.approx(exact, abs=max(main.bound, 0.06))
    assert all(e.reason or not np.isnan(e.value) for e in found.values())


# --- exact metrics and comparisons ---------------------------------------------------------


@EVERY
def test_a_site_without_patients_has_no_values_and_no_fault(kind: str) -> None:
    nobody = scored(kind, 0)
    found = made(kind).exact(nobody, patient_weights(nobody, 10, 0), rules())
    assert found
    assert all(np.isnan(e.value) for e in found.values())


@EVERY
def test_the_headline_is_the_metric_of_the_exact_path(kind: str) -> None:
    task, scores = made(kind), scored(kind, 50)
    found = task.exact(scores, patient_weights(scores, 20, 0), rules())
    assert found[task.metric].value == task.draws(scores, np.ones((1, 50)), rules())[0]


@EVERY
def test_a_model_is_no_better_than_itself_and_better_than_chance(kind: str) -> None:
    task, ours = made(kind), scored(kind, 60)
    same = paired_difference(task, ours, ours, rules(), seed=0)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    mixed = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    chance = ours._replace(prediction=ours.prediction[mixed])
    better = paired_difference(task, ours, chance, rules(), seed=0)
    assert 0 < better.low < better.value < better.high
    assert better == paired_difference(task, ours, chance, rules(), seed=0)


def test_images_of_a_patient_are_drawn_together() -> None:
    scores = scored("binary", 30, owner=torch.arange(30) // 3)
    weights = patient_weights(scores, 20, 0)
    assert weights.shape == (20, 30)
    assert (weights.reshape(20, 10, 3).std(axis=2) == 0).all()
    assert (weights.reshape(20, 10, 3)[:, :, 0].sum(axis=1) == 10).all()


def test_lesions_on_empty_images_are_told_apart_from_overlap() -> None:
    scores = scored("outline", 40)
    scores.target[:] = 0
    scores.target[20:, 2:6, 3:7] = 1
    scores.prediction[:20] = 0
    scores.prediction[:5, 0, 0] = 1
    found = made("outline").exact(scores, patient_weights(scores, 10, 0), rules())
    assert found["false_alarm"].value == 0.25
    alone = first(Scores(*(part[20:] for part in scores[:3])), 20)
    expected = made("outline").draws(alone, np.ones((1, 20)), rules())[0]
    assert found["dice"].value == pytest.approx(expected)


def test_distances_are_in_mm_where_spacing_is_public() -> None:
    scores, voxels = scored("volume", 20), made("volume")
    assert isinstance(voxels, Segmentation)
    mm = task_of(voxels.config, spacing=(2.0, 2.0, 2.0))
    weights = patient_weights(scores, 10, 0)
    found, scaled = (task.exact(scores, weights, rules()) for task in (voxels, mm))
    twice = 2 * found["surface_distance_front_voxels"].value
    assert scaled["surface_distance_front_mm"].value == pytest.approx(twice)
    assert scaled["hausdorff95_mm"].value == pytest.approx(2 * found["hausdorff95_voxels"].value)


def test_merged_survival_curves_need_no_patients_time() -> None:
    task, some = made("proportional"), rules()
    assert isinstance(task, Survival)
    parts = [task.statistics(scored("proportional", 200, seed), some) for seed in range(3)]
    merged = merge(parts)
    curve = task.observed(merged, some)
    assert list(curve) == [3.0, 6.0, 12.0, 24.0]
    values = [found.value for found in curve.values()]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] < values[0] < 1


def test_noised_survival_has_the_noise_in_its_intervals() -> None:
    task, noisy = made("proportional"), rules(count_noise=2.0)
    assert isinstance(task, Survival)
    scores = scored("proportional", 500)
    exact = task.observed(task.statistics(scores, rules()), rules())
    held, inside = task.statistics(scores, noisy), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        moved = {n: v + 2.0 * rng.normal(size=v.shape) for n, v in held.cells.items()}
        curve = task.observed(replace(held, cells=moved, noise=4.0), noisy)
        assert list(curve) == list(exact)
        inside += sum(found.low <= exact[time].value <= found.high for time, found in curve.items())
    assert inside >= 0.9 * 20 * len(exact)


def test_times_at_the_horizon_are_not_later_than_it() -> None:
    task = made("proportional")
    assert isinstance(task, Survival)
    times = {"horizon": 0.1, "intervals": (0.1, 5.0)}
    early = replace(task, config=task.config.model_copy(update=times))
    rows = [{"event": "1", "months": "0.1"}] * 10 + [{"event": "0", "months": "5"}] * 10
    target = torch.from_numpy(np.stack([early.encode(row) for row in rows]))
    curve = torch.linspace(0.1, 0.9, 20)[:, None].expand(20, 2)
    scores = Scores(prediction=curve, target=target, loss=torch.ones(20))
    found = early.summarise(early.statistics(scores, rules()), rules())
    assert found["auc_at_0.1"].value > 0.99
