"""Competing risks: the loss, the curves, and what is measured and told by cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sksurv.nonparametric import cumulative_incidence_competing_risks
from torch import Tensor, nn

from client.inference.calibration.platt_scaling import fit_lines
from client.inference.explain import aim_of
from common.config.run_config import PrognosisTask, RunConfig, parse_config
from common.metrics.times.competing import (
    aalen_johansen,
    auc_by_cause,
    brier_by_patient,
    cause_table,
    incidence_of,
)
from common.metrics.times.survival import auc_at
from common.metrics.times.survival import brier_by_patient as brier_of_survival
from common.platform.errors import ConfigurationError
from common.tasks import Scores, UnusableLabel, task_of
from common.tasks.competing import CauseHazards, CompetingRisks
from tests.common.every_task import config_of, made, rules, scored

TASK = (
    "{kind: prognosis, outcome: competing, event: end, causes: [relapse, death], time: t,"
    " intervals: [1, 2, 3, 4]}"
)


def run(task: str = TASK, extra: str = "") -> RunConfig:
    return parse_config(
        f"{{name: try, task: {task}, cohort: {{table: {{numbers: [{{column: x}}]}}}},"
        f"model: {{network: table}}, training: {{rounds: 1 {extra}}}, privacy: none}}"
    )


def task_with(**update: object) -> CompetingRisks:
    config = config_of("competing")
    assert isinstance(config, PrognosisTask)
    return CompetingRisks(config=PrognosisTask.model_validate(config.model_dump() | update))


def drawn(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ends = np.stack([rng.exponential(s, patients) for s in (30.0, 20.0, 35.0)])
    return np.round(ends.min(axis=0), 1), ends.argmin(axis=0).astype(float)


# --- loss and prediction -----------------------------------------------------------------------


def test_the_loss_is_the_likelihood_of_what_was_seen() -> None:
    task = task_with()
    output = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    rows = [("relapse", "5"), ("0", "10"), ("death", "2")]
    target = torch.from_numpy(np.stack([task.encode({"event": e, "months": m}) for e, m in rows]))
    odds = output.double().reshape(3, 2, 4).exp()
    on = 1 / (1 + odds.sum(1))  # going on, by interval
    hazard = odds * on[:, None]
    # A relapse in the second interval; lost past the middle of the third; death in the first.
    likelihood = torch.stack([on[0, 0] * hazard[0, 0, 1], on[1, :3].prod(), hazard[2, 1, 0]])
    torch.testing.assert_close(task.item_loss(output, target), -likelihood.log().float())


@given(seed=st.integers(0, 500), spread=st.sampled_from([0.1, 3.0, 60.0]))
def test_incidences_rise_and_leave_room_for_who_had_nothing(seed: int, spread: float) -> None:
    output = spread * torch.randn(6, 8, generator=torch.Generator().manual_seed(seed))
    curves = task_with().predict(output).reshape(6, 2, 4)
    assert (curves.diff(dim=2) >= -1e-6).all()
    assert (curves >= 0).all()
    assert (curves.sum(1) <= 1 + 1e-5).all()


def test_the_incidence_is_the_sum_of_survival_times_hazard() -> None:
    output = torch.randn(2, 8, generator=torch.Generator().manual_seed(1)).double()
    odds = output.reshape(2, 2, 4).exp()
    on = 1 / (1 + odds.sum(1))
    expected = torch.zeros(2, 2, 4, dtype=torch.float64)
    for interval in range(4):
        before = on[:, :interval].prod(1)
        now = before[:, None] * odds[:, :, interval] * on[:, None, interval]
        expected[:, :, interval] = now + (expected[:, :, interval - 1] if interval else 0)
    torch.testing.assert_close(task_with().predict(output).reshape(2, 2, 4), expected)


def test_with_one_cause_it_is_survival() -> None:
    output = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    survival = made("free")
    none = torch.full((4, 4), -60.0)
    both = torch.cat([output, none], dim=1)
    incidence = task_with().predict(both)[:, :4]
    torch.testing.assert_close(incidence, 1 - survival.predict(output), atol=1e-6, rtol=0)
    target = torch.from_numpy(survival.encode({"event": "1", "months": "5"}))[None].expand(4, -1)
    torch.testing.assert_close(
        task_with().item_loss(both, target), survival.item_loss(output, target)
    )


def test_proportional_hazards_have_one_risk_a_cause() -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor, table: Tensor) -> Tensor:
            return torch.cat([image, 2 * image], dim=1) + 0 * table

    model = CauseHazards(Two(), 2, 3)
    logits = model(torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1)).reshape(2, 2, 3)
    torch.testing.assert_close(logits[1] - logits[0], torch.tensor([[1.0] * 3, [2.0] * 3]))
    assert task_with(hazards="free").outputs == 8
    assert task_with().outputs == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"event": "1", "months": "3"}, "holds '1', expected one of 0, relapse, death"),
        ({"event": "", "months": "3"}, "column event is empty"),
        ({"event": "death", "months": "-3"}, "expected a time of 0 or more"),
    ],
)
def test_what_is_no_cause_or_time_is_unusable(row: dict[str, str], said: str) -> None:
    with pytest.raises(UnusableLabel, match=said):
        task_with().encode(row)


# --- metrics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_incidence_is_scikit_survivals(seed: int) -> None:
    time, cause = drawn(200, seed)
    at, curves = cumulative_incidence_competing_risks(cause.astype(int), time)
    for horizon in (5.0, 12.0, 25.0):
        place = np.searchsorted(at, horizon, side="right") - 1
        for of in (1, 2):
            found = aalen_johansen(time, cause, of, horizon, np.ones((1, 200)))
            assert found[0] == pytest.approx(curves[of][place], abs=1e-9)


def test_a_patient_who_is_drawn_twice_counts_twice() -> None:
    time, cause = drawn(40, 0)
    weights = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=3).astype(float)
    for row in weights:
        again = np.repeat(np.arange(40), row.astype(int))
        expected = aalen_johansen(time[again], cause[again], 1, 12.0, np.ones((1, 40)))
        assert aalen_johansen(time, cause, 1, 12.0, row[None])[0] == pytest.approx(expected[0])


def test_brier_and_auc_of_one_cause_are_those_of_survival() -> None:
    time, cause = drawn(150, 1)
    only = (cause > 0).astype(float)
    edges = np.array([3.0, 6.0, 12.0])
    curve = np.random.default_rng(0).random((150, 3)).cumsum(axis=1) / 4
    ours = brier_by_patient(time, only, 1, curve, edges)
    np.testing.assert_allclose(ours, brier_of_survival(time, only, 1 - curve, edges))
    whole = np.ones((1, 150))
    found = auc_by_cause(6.0, time, only, 1, curve[:, 1], whole)
    np.testing.assert_allclose(found, auc_at(6.0, time, only, curve[:, 1], whole))


def test_brier_by_hand_without_censoring() -> None:
    time, cause = np.array([1.0, 2.0, 9.0]), np.array([1.0, 2.0, 1.0])
    curve = np.array([[0.5, 0.6], [0.1, 0.2], [0.3, 0.4]])
    edges = np.array([3.0, 5.0])
    by_hand = [(0.5**2 + 0.4**2) / 2, (0.1**2 + 0.2**2) / 2, (0.3**2 + 0.4**2) / 2]
    np.testing.assert_allclose(brier_by_patient(time, cause, 1, curve, edges), by_hand)


def test_the_table_gives_nearly_the_same_incidence() -> None:
    time, cause = drawn(2000, 4)
    edges = np.arange(1.0, 31.0)
    table = cause_table(time, cause, 2, edges)
    for of in (1, 2):
        exact = aalen_johansen(time, cause, of, 12.0, np.ones((1, 2000)))[0]
        assert incidence_of(table.reshape(1, -1), 2, of, 12)[0] == pytest.approx(exact, abs=0.005)


# --- what may leave ----------------------------------------------------------------------------


@given(seed=st.integers(0, 300), patients=st.integers(5, 60), smallest=st.integers(2, 6))
def test_no_cause_is_told_whose_few_patients_the_table_or_ranges_would_count(
    seed: int, patients: int, smallest: int
) -> None:
    task = task_with()
    held = task.statistics(scored("competing", patients, seed), rules(smallest_cell=smallest))
    table = held.cells["causes"]
    if not table.any():
        assert not held.cells["case"].any()
        assert not held.cells["control"].any()
        return
    assert table.sum() == patients
    boundary = task._scores.grid.boundary
    for cause in (1, 2):
        cases = held.cells["case"][cause - 1, 0].sum()
        controls = held.cells["control"][cause - 1, 0].sum()
        assert cases in {0, table[cause, :boundary].sum()}
        assert controls in {0, table[:, boundary:].sum()}
    for count in (table[:, :boundary].sum(axis=1), table[:, boundary:].sum(axis=1)):
        assert ((count == 0) | (count >= smallest)).all()


def test_a_rare_cause_holds_back_everything() -> None:
    scores = scored("competing", 60)
    scores.target[:, -1] = torch.where(scores.target[:, -1] == 2, 1.0, scores.target[:, -1])
    scores.target[:2, -1], scores.target[:2, -2] = 2.0, 2.0
    held = task_with().statistics(scores, rules())
    assert not any(value.any() for value in held.cells.values())
    found = task_with().summarise(held, rules())
    assert all(np.isnan(found[n].value) for n in ("cause_auc", "auc_relapse", "observed_death"))


def test_noised_counts_tell_incidence_with_its_noise() -> None:
    task, noisy = task_with(), rules(count_noise=2.0)
    scores = scored("competing", 500)
    held = task.statistics(scores, noisy)
    exact = task.exact(scores, np.ones((1, 500)), noisy)
    inside = {"observed_relapse": 0, "observed_death": 0, "auc_relapse": 0}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        moved = {n: v + 2.0 * rng.normal(size=v.shape) for n, v in held.cells.items()}
        found = task.summarise(replace(held, cells=moved, noise=4.0), noisy)
        for name in inside:
            inside[name] += found[name].low <= exact[name].value <= found[name].high
    assert min(inside.values()) >= 27, inside
    assert "counts are noised" in found["brier_death"].reason


# --- the rest of the way -----------------------------------------------------------------------


def test_what_is_explained_is_the_risk_of_the_first_cause() -> None:
    output = torch.arange(8.0)
    aim = aim_of(run(), output)
    assert aim.label == "risk of relapse"
    assert aim.of(output[None]).tolist() == [0 + 1 + 2 + 3]


def test_a_site_moves_the_hazard_of_each_cause() -> None:
    """A site with twice the deaths, and the relapses that the network says."""
    config = run()
    task, rng = task_of(config.task), np.random.default_rng(0)
    hazards = np.array([0.8, 0.1, 0.1])
    output = torch.tensor(np.log(hazards[1:] / hazards[0])).repeat_interleave(4)
    rows = []
    for _ in range(1500):
        ends = [rng.choice(3, p=[0.7, 0.1, 0.2]) for _ in range(4)]
        end = next((k for k, e in enumerate(ends) if e), None)
        name = "0" if end is None else ("relapse", "death")[ends[end] - 1]
        rows.append(task.encode({"end": name, "t": f"{4.0 if end is None else end + 0.5}"}))
    line, _ = fit_lines(
        output.float().expand(1500, -1), torch.from_numpy(np.stack(rows)), config, seed=0
    )
    assert len(line) == 9
    moved = output + torch.from_numpy(line[1:])
    chance = moved.exp()[[0, 4]] / (1 + moved.exp()[[0, 4]].sum())
    assert chance.tolist() == pytest.approx([0.1, 0.2], abs=0.03)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[relapse, death]", "[relapse]", "with one take outcome: survival"),
        ("[relapse, death]", "[relapse, '0']", "causes and censored names 0 twice"),
        (" time: t,", "", "competing needs time"),
        ("outcome: competing", "outcome: survival", "go with outcome: competing"),
        ("intervals", "horizon: 9, intervals", "horizon=9 lies beyond the last"),
    ],
)
def test_what_competing_risks_cannot_be_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        run(TASK.replace(old, new))


def test_losses_of_labels_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="goes with labels"):
        run(extra=", focal: 2")


def test_the_configuration_of_one_event_keeps_its_hash() -> None:
    text = run("{kind: prognosis, event: died, time: t, intervals: [1, 2]}").canonical_json()
    assert "causes" not in text
    assert "censored" not in text
    assert run().task.question == "prognosis: predicts end (relapse or death), by t"
    assert run().task.labels[4] == "death by 1 days"
    assert run().task.wordings[4] == "probability of death by 1 days"


def test_images_of_a_patient_are_one_life() -> None:
    scores = scored("competing", 40)
    twice = Scores(*(torch.cat([p, p]) for p in scores[:3]), owner=torch.arange(80) % 40)
    some = rules(smallest_cell=2)
    one, two = (task_with().statistics(s, some).cells["causes"] for s in (scores, twice))
    assert (one == two).all()
