from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from client.privacy.clipping import PEER_ERROR, clip_factor, patient_norms
from client.privacy.gradient_backend import backend_of
from client.privacy.patient_gradients import LOOP, Backend, gradients_by_patient
from client.privacy.patient_sampling import draw
from client.privacy.private_step import patient_optimizer, private_step
from common.privacy.noise import ChaChaNoise, SimulatedNoise
from tests.privacy.guarantees import check_noise, clipped_sum
from tests.privacy.made_up import (
    ImageNet,
    Silence,
    TableNet,
    mechanism_of,
    objective_of,
    patients_of,
    plan_of,
    seeded,
)

# --- who and what is in a step ---------------------------------------------------------------


@given(
    items=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    most=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_a_drawn_patient_brings_up_to_k_different_items_of_their_own(
    items: list[int], most: int, seed: int
) -> None:
    patients = patients_of(items, image=(0,))
    drawn = draw(patients, 1.0, most, SimulatedNoise(seed))
    assert len(drawn.items) == len(items)
    for patient, (places, count) in enumerate(zip(drawn.place, drawn.items.tolist(), strict=True)):
        chosen = places[:count].tolist()
        assert count == min(items[patient], most)
        assert len(set(chosen)) == count
        assert set(places.tolist()) == set(chosen), "the rest repeat one that counts"
        assert set(patients.patient[chosen].tolist()) == {patient}


def test_each_patient_is_drawn_independently_with_the_sampling_rate() -> None:
    patients, noise = patients_of((1,) * 400, image=(0,)), ChaChaNoise()
    times, rate = 200, 0.3
    seen = torch.stack(
        [
            torch.bincount(draw(patients, rate, 1, noise).place.flatten(), minlength=400)
            for _ in range(times)
        ]
    ).double()
    spread = (rate * (1 - rate) / seen.numel()) ** 0.5
    assert abs(float(seen.mean()) - rate) < 6 * spread
    # Binomial totals: neither fixed (without replacement) nor in blocks.
    assert float(seen.sum(1).var() / (400 * rate * (1 - rate))) == pytest.approx(1.0, abs=0.6)
    assert float(seen.sum(0).var() / (times * rate * (1 - rate))) == pytest.approx(1.0, abs=0.45)


def test_every_item_of_a_patient_is_drawn_equally_often() -> None:
    patients, noise = patients_of((6,), image=(0,)), ChaChaNoise()
    counts = torch.zeros(6)
    for _ in range(3000):
        counts += torch.bincount(draw(patients, 1.0, 2, noise).place[0], minlength=6)
    assert torch.all((counts / 1000 - 1).abs() < 0.17), counts


@pytest.mark.parametrize("backend", [LOOP, Backend("vmap", 4), Backend("linear", 4)])
def test_an_empty_draw_still_noises_and_steps(backend: Backend) -> None:
    width = 200_000
    model = seeded(lambda: TableNet(width // 5))
    nobody = plan_of(mechanism_of(2.0, sampling_rate=1e-12, divisor=4.0))
    noise = ChaChaNoise()
    objective = objective_of(model, patients_of())
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    optimizer = patient_optimizer(torch.optim.SGD(model.parameters(), lr=1.0), nobody, noise)
    private_step(objective, optimizer, noise, backend)
    moved = torch.cat([p.detach().flatten() for p in model.parameters()]) - before
    check_noise(moved, 2.0 / 4.0)


def test_an_empty_draw_passes_through_every_layer_in_every_backend() -> None:
    nobody = plan_of(mechanism_of(sampling_rate=1e-12))
    for backend in (LOOP, Backend("vmap", 3)):
        objective = objective_of(seeded(ImageNet), patients_of())
        trained = list(objective.model.parameters())
        before = [parameter.detach().clone() for parameter in trained]
        optimizer = patient_optimizer(torch.optim.SGD(trained, lr=1.0), nobody, Silence())
        private_step(objective, optimizer, Silence(), backend)
        # Without patients and without noise nothing moves.
        assert all(torch.equal(b, a) for b, a in zip(before, trained, strict=True))


# --- clipping --------------------------------------------------------------------------------


@given(
    norm=st.floats(0, 1e30),
    clip_norm=st.floats(1e-3, 1e3),
    clipping=st.sampled_from(["automatic", "flat"]),
)
def test_a_clipped_norm_is_at_most_the_clip_norm(
    norm: float, clip_norm: float, clipping: Literal["automatic", "flat"]
) -> None:
    factor = clip_factor(torch.tensor([norm], dtype=torch.float64), clip_norm, clipping)
    assert float(factor[0]) * norm <= clip_norm * (1 + 1e-12)
    if clipping == "flat" and norm <= clip_norm:
        assert float(factor[0]) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
@pytest.mark.parametrize("clipping", ["automatic", "flat"])
def test_a_norm_that_is_not_finite_is_multiplied_by_zero(
    norm: float, clipping: Literal["automatic", "flat"]
) -> None:
    assert clip_factor(torch.tensor([norm]), 1.0, clipping).item() == 0.0


def test_norms_are_right_to_five_digits_in_ten_million_coordinates() -> None:
    big = torch.full((1, 10_000_000), 1e-3)
    found = float(patient_norms([big, torch.ones(1, 3)])[0])
    assert found == pytest.approx((10_000_000 * 1e-6 + 3) ** 0.5, rel=1e-5)


# --- Opacus' optimiser -----------------------------------------------------------------------


def _moved_by_opacus(objective_seed: int, lr: float) -> Tensor:
    """Return how Opacus' own DPOptimizer moves a network on one batch, without noise."""
    from opacus.optimizers import DPOptimizer

    objective = objective_of(seeded(ImageNet, objective_seed), patients_of())
    trained = list(objective.model.parameters())
    theirs = DPOptimizer(
        torch.optim.SGD(trained, lr=lr),
        noise_multiplier=0.0,
        max_grad_norm=0.05,
        expected_batch_size=7,
    )
    drawn = draw(objective.patients, 1.0, 9, Silence())
    gradients = list(gradients_by_patient(objective, trained, drawn, LOOP))
    for place, parameter in enumerate(trained):
        parameter.grad_sample = torch.cat([g[place] for g in gradients])  # type: ignore[attr-defined]
    before = torch.cat([p.detach().flatten() for p in trained])
    theirs.step()
    return torch.cat([p.detach().flatten() for p in trained]) - before


def test_a_step_is_opacus_step_on_the_same_gradients() -> None:
    objective = objective_of(seeded(ImageNet), patients_of(), 9)
    trained = list(objective.model.parameters())
    plan = plan_of(mechanism_of(clip_norm=0.05, divisor=7.0))
    ours = patient_optimizer(torch.optim.SGD(trained, lr=0.5), plan, Silence())
    before = torch.cat([p.detach().flatten() for p in trained])
    private_step(objective, ours, Silence())
    moved = torch.cat([p.detach().flatten() for p in trained]) - before
    expected = _moved_by_opacus(0, 0.5)
    # Ours stays below the bound by what rounding to the grid, and of others, may add.
    expected = expected * (1 - PEER_ERROR)
    assert float((moved - expected).norm()) <= 1e-4 * float(expected.norm())


@pytest.mark.parametrize("patients", [1, 15, 16, 17, 33, 70])
@pytest.mark.parametrize("together", [1, 5, 16, 64])
def test_sums_are_exact_however_patients_are_taken_together(patients: int, together: int) -> None:
    plan = plan_of()
    objective = objective_of(seeded(TableNet), patients_of((1,) * patients))
    trained = list(objective.model.parameters())
    optimizer = patient_optimizer(torch.optim.SGD(trained, lr=1.0), plan, Silence())
    drawn = draw(objective.patients, 1.0, 1, Silence())
    rows = list(gradients_by_patient(objective, trained, drawn, LOOP))
    for start in range(0, patients, together):
        part = rows[start : start + together]
        optimizer.accumulate([torch.cat([row[i] for row in part]) for i in range(len(trained))])
    found = torch.cat([p.flatten() for p in optimizer.clipped_sum()])
    assert torch.equal(found.float(), clipped_sum(objective, plan).float())


# --- the choice of a backend -----------------------------------------------------------------


@pytest.mark.parametrize("build", [ImageNet, TableNet])
def test_the_backend_of_a_simulation_agrees_with_the_loop(build: type[nn.Module]) -> None:
    objective = objective_of(seeded(build), patients_of((2,) * 30))
    backend = backend_of(objective, list(objective.model.parameters()), simulated=True)
    assert backend.kind != "loop"
    expected = clipped_sum(objective, plan_of())
    found = clipped_sum(objective, plan_of(), backend)
    assert float((found - expected).norm()) <= 1e-3 * float(expected.norm())


@pytest.mark.parametrize(
    ("build", "kind"),
    [(TableNet, "linear"), (ImageNet, "vmap"), (lambda: TableNet(50_000), "loop")],
)
def test_only_a_simulation_takes_patients_side_by_side(
    build: Callable[[], nn.Module], kind: str
) -> None:
    objective = objective_of(seeded(build), patients_of())
    trained = list(objective.model.parameters())
    assert backend_of(objective, trained, simulated=True).kind == kind
    assert backend_of(objective, trained, simulated=False) == LOOP
