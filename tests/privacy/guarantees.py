"""The guarantees as functions that raise: tests call them, and faults must turn them red."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from client.privacy.patient_gradients import LOOP, Backend, Objective
from client.privacy.patient_sampling import draw
from client.privacy.private_step import accumulate, patient_optimizer, private_step
from common.privacy.noise import ChaChaNoise, NoiseSource
from common.privacy.plan import PrivacyPlan
from tests.privacy.made_up import (
    Silence,
    TableNet,
    mechanism_of,
    objective_of,
    patients_of,
    plan_of,
    seeded,
)


def clipped_sum(objective: Objective, plan: PrivacyPlan, backend: Backend = LOOP) -> Tensor:
    """Return the sum over all patients before noise, flat, in float64."""
    objective.model.train()
    trained = [p for p in objective.model.parameters() if p.requires_grad]
    noise = Silence()
    optimizer = patient_optimizer(torch.optim.SGD(trained, lr=1.0), plan, noise)
    drawn = draw(objective.patients, 1.0, objective.images_per_patient, noise)
    accumulate(objective, optimizer, drawn, noise, backend)
    return torch.cat([part.flatten() for part in optimizer.clipped_sum()])


def check_bound(moved: float, clip_norm: float) -> None:
    """Raise unless one patient moved the sum by at most the clip norm."""
    if not moved <= clip_norm * (1 + 1e-6):
        message = f"one patient moved the sum by {moved}, clip_norm={clip_norm}"
        raise AssertionError(message)


def released(plan: PrivacyPlan, noise: NoiseSource, width: int = 200_000) -> Tensor:
    """Return what one step with nobody in it releases, (width,): noise alone."""
    parameter = nn.Parameter(torch.zeros(width))
    optimizer = patient_optimizer(torch.optim.SGD([parameter], lr=1.0), plan, noise)
    optimizer.release()
    return -parameter.detach()


def check_noise(found: Tensor, expected: float) -> None:
    """Raise unless the standard deviation is within 1 % of the expected and the mean is zero."""
    spread, count = float(found.double().std()), found.numel()
    if count < 100_000 or not abs(spread / expected - 1) < 0.01:
        message = f"noise of {count} coordinates has std {spread}, expected {expected}"
        raise AssertionError(message)
    mean = float(found.double().mean())
    if not abs(mean) < 6 * expected / math.sqrt(count):
        message = f"noise has mean {mean}, expected 0"
        raise AssertionError(message)


def check_divisor() -> None:
    """Raise unless a step divides by the plan's constant, with few, many or no patients in it."""
    for items in ((1,), (1,) * 5, (2,) * 20):
        objective = objective_of(seeded(TableNet), patients_of(items))
        plan = plan_of(mechanism_of(divisor=8.0))
        expected = clipped_sum(objective, plan) / 8.0
        trained = list(objective.model.parameters())
        before = torch.cat([p.detach().flatten() for p in trained])
        optimizer = patient_optimizer(torch.optim.SGD(trained, lr=1.0), plan, Silence())
        private_step(objective, optimizer, Silence())
        moved = before - torch.cat([p.detach().flatten() for p in trained])
        if not torch.allclose(moved.double(), expected, atol=1e-6):
            message = f"{len(items)} patients: the step is not the sum over the public divisor"
            raise AssertionError(message)


def check_fresh() -> None:
    """Raise when two sources, as two rounds or two processes have them, give the same noise."""
    plan = plan_of()
    first, second = (released(plan, ChaChaNoise(), 1000) for _ in range(2))
    if torch.equal(first, second):
        message = "the noise of one release repeats that of another"
        raise AssertionError(message)
