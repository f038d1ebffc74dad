"""Patches of volumes: several of a patient are one contribution, clipped once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.privacy import patient_gradients
from client.privacy.clip_and_noise import PatientOptimizer
from client.privacy.patient_gradients import DrawnPatients, Objective
from client.privacy.patient_sampling import draw, with_patches
from client.privacy.private_step import accumulate, patient_optimizer
from common.config.patches import PatchRules
from common.data.kept_items import write_item
from common.data.sample import Patients
from common.data.volumes import Volumes, volumes_of
from common.privacy.noise import SimulatedNoise
from common.privacy.noise_calibration import calibrate
from simulations.comparison.privacy_audit import (
    canaries,
    correct_guesses,
    epsilon_at_least,
    scores,
    train,
)
from tests.privacy.made_up import mechanism_of, plan_of, seeded, volumes_of_patients


class Voxels(nn.Module):
    """One logit a voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        del table
        output: Tensor = self.body(image)[:, 0]
        return output


def voxel_loss(output: Tensor, target: Tensor) -> Tensor:
    losses = nn.functional.binary_cross_entropy_with_logits(
        output, target.float(), reduction="none"
    )
    return losses.flatten(1).mean(1)


def objective_of(patients: Patients, patches: int) -> Objective:
    return Objective(
        model=seeded(Voxels),
        item_loss=voxel_loss,
        patients=patients,
        images_per_patient=1,
        patches=PatchRules(size=(8, 8), per_patient=patches, foreground=0.0),
    )


def clipped_sum(objective: Objective, seed: str, clip_norm: float = 0.5) -> Tensor:
    noise, plan = SimulatedNoise(seed), plan_of(mechanism_of(clip_norm=clip_norm))
    parameters = list(objective.model.parameters())
    optimizer: PatientOptimizer = patient_optimizer(
        torch.optim.SGD(parameters, lr=0.0), plan, noise
    )
    drawn = with_patches(objective, noise)
    step = draw(drawn.patients, 1.0, drawn.images_per_patient, noise)
    accumulate(drawn, optimizer, step, noise)
    return torch.cat([part.flatten() for part in optimizer.clipped_sum()])


def without(patients: Patients, left_out: int) -> Patients:
    stay = torch.nonzero(patients.patient != left_out).flatten()
    owner = patients.patient[stay]
    assert isinstance(patients.image, Volumes)
    assert isinstance(patients.target, Volumes)
    return Patients(
        image=patients.image.at(stay),
        table=patients.table[stay],
        target=patients.target.at(stay),
        patient=owner - (owner > left_out).long(),
        pseudonyms=tuple(n for i, n in enumerate(patients.pseudonyms) if i != left_out),
    )


def check_bound(patients: Patients, patches: int, clip_norm: float = 0.5) -> None:
    """Raise unless leaving one patient out moves the sum by at most the clip norm."""
    whole = clipped_sum(objective_of(patients, patches), "a", clip_norm)
    for left_out in range(len(patients)):
        fewer = clipped_sum(objective_of(without(patients, left_out), patches), "a", clip_norm)
        moved = float((whole - fewer).norm())
        assert moved <= clip_norm * (1 + 1e-6)
        assert moved > 0


@pytest.mark.parametrize("loud", [1.0, 1e3])
@pytest.mark.parametrize("patches", [1, 2, 4, 8])
def test_a_patient_of_any_number_of_patches_moves_the_sum_by_at_most_the_clip_norm(
    tmp_path: Path, patches: int, loud: float
) -> None:
    check_bound(volumes_of_patients(tmp_path, (1, 3, 2), loud=loud), patches)


def clip_patch_by_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fault in: each patch is a contribution of its own, and they add up."""
    real = patient_gradients._by_loop

    def patch_by_patch(
        objective: Objective, parameters: Sequence[nn.Parameter], drawn: DrawnPatients
    ) -> Iterator[list[Tensor]]:
        for column in range(drawn.place.shape[1]):
            one = DrawnPatients(drawn.place[:, column : column + 1], torch.ones_like(drawn.items))
            yield from real(objective, parameters, one)

    monkeypatch.setattr(patient_gradients, "_by_loop", patch_by_patch)


def test_the_bound_is_missed_where_each_patch_is_clipped_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients = volumes_of_patients(tmp_path, (1, 3, 2), loud=1e3)
    check_bound(patients, 4)
    clip_patch_by_patch(monkeypatch)
    with pytest.raises(AssertionError):
        check_bound(patients, 4)


def test_the_bound_is_missed_where_one_stream_draws_for_all_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a patient moves the patches of everybody who is drawn after."""
    patients = volumes_of_patients(tmp_path, (1, 3, 2, 1, 2), loud=1e3)

    def in_order(_self: object, _names: object, patient: Tensor, _place: object) -> Tensor:
        return torch.rand(len(patient), generator=torch.Generator().manual_seed(0))

    check_bound(patients, 2)
    monkeypatch.setattr("client.privacy.patient_randomness.PatientDraw.uniform", in_order)
    with pytest.raises(AssertionError):
        check_bound(patients, 2)


def check_mean(folder: Path) -> None:
    """Raise unless a patient's gradient is that of all patches in one pass: the slow twin."""
    objective = with_patches(
        objective_of(volumes_of_patients(folder, (1, 2)), 4), SimulatedNoise("a")
    )
    parameters = list(objective.model.parameters())
    items = torch.arange(4, 8)
    found = patient_gradients._gradient_of(objective, parameters, items)
    expected = patient_gradients._gradient_of(replace(objective, patches=None), parameters, items)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_a_patients_gradient_is_the_mean_over_their_patches(tmp_path: Path) -> None:
    check_mean(tmp_path)


def test_a_sum_over_patches_in_place_of_the_mean_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = patient_gradients._gradient_by_patch

    def added_up(
        objective: Objective, parameters: Sequence[nn.Parameter], items: Tensor
    ) -> list[Tensor]:
        return [len(items) * part for part in real(objective, parameters, items)]

    monkeypatch.setattr(patient_gradients, "_gradient_by_patch", added_up)
    with pytest.raises(AssertionError):
        check_mean(tmp_path)


def test_nobody_else_moves_where_a_patients_patches_lie(tmp_path: Path) -> None:
    patients = volumes_of_patients(tmp_path, (1, 3, 2, 1))
    whole = with_patches(objective_of(patients, 4), SimulatedNoise("a")).patients
    fewer = with_patches(objective_of(without(patients, 1), 4), SimulatedNoise("a")).patients
    stay = torch.nonzero(whole.patient != 1).flatten()
    assert torch.equal(whole.image[stay], fewer.image[:])


# --- audit -----------------------------------------------------------------------------------


class CanaryVoxels(nn.Module):
    """One weight a canary, whose number its voxels hold: nobody else moves that weight."""

    def __init__(self, canaries: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(canaries))

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        del table
        return self.weight[image[:, 0].long()]


COUNT, STEPS, DELTA = 600, 2, 1e-5


def audited(folder: Path, claimed: float) -> float:
    """Return the epsilon that a run on six patches of 3-D volumes has for certain."""
    chosen = canaries(COUNT, 0)
    images, maps = [], []
    for number in torch.nonzero(chosen.included).flatten().tolist():
        extent = (4, 4 + number % 3, 4)
        paths = [folder / f"{number}{end}.npy" for end in ("", "-outline")]
        write_item(paths[0], np.full((1, *extent), number, np.float32))
        write_item(paths[1], np.ones(extent, np.uint8))
        images.append(paths[0])
        maps.append(paths[1])
    patch = (4, 4, 4)
    patients = replace(
        chosen.patients,
        image=volumes_of(tuple(images), (1,), patch, torch.float32),
        target=volumes_of(tuple(maps), (), patch, torch.uint8),
    )
    sigma = calibrate(claimed, DELTA, 1.0, STEPS)
    plan = plan_of(mechanism_of(sigma, steps=STEPS, clip_norm=0.1, divisor=float(COUNT)))
    rules = PatchRules(size=patch, per_patient=6, foreground=0.0)
    updates = train(patients, plan, SimulatedNoise("audit", 0), CanaryVoxels(COUNT), rules)
    right = correct_guesses(scores(updates), chosen.included)
    return epsilon_at_least(right, COUNT, DELTA)


@pytest.mark.slow
def test_a_run_on_patches_has_no_more_epsilon_than_it_claims(tmp_path: Path) -> None:
    assert 0.2 * 4 < audited(tmp_path, 4.0) < 4


@pytest.mark.slow
def test_the_audit_finds_patches_that_are_clipped_each_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip_patch_by_patch(monkeypatch)
    assert audited(tmp_path, 4.0) > 4
