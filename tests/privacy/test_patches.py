"""Patches of volumes: several of a patient are one contribution, clipped once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from client.privacy import patient_gradients
from client.privacy.clip_and_noise import PatientOptimizer
from client.privacy.patient_gradients import DrawnPatients, Objective
from client.privacy.patient_sampling import draw, with_patches
from client.privacy.private_step import accumulate, patient_optimizer
from common.config.patches import PatchRules
from common.data.sample import Patients
from common.data.volumes import Volumes
from common.privacy.noise import SimulatedNoise
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


def test_the_bound_is_missed_where_each_patch_is_clipped_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients = volumes_of_patients(tmp_path, (1, 3, 2), loud=1e3)
    real = patient_gradients._by_loop

    def patch_by_patch(
        objective: Objective, parameters: Sequence[nn.Parameter], drawn: DrawnPatients
    ) -> Iterator[list[Tensor]]:
        for column in range(drawn.place.shape[1]):
            one = DrawnPatients(drawn.place[:, column : column + 1], torch.ones_like(drawn.items))
            yield from real(objective, parameters, one)

    check_bound(patients, 4)
    monkeypatch.setattr(patient_gradients, "_by_loop", patch_by_patch)
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


def test_a_patients_gradient_is_the_mean_over_their_patches(tmp_path: Path) -> None:
    """The slow twin: all patches of a patient in one pass."""
    objective = with_patches(
        objective_of(volumes_of_patients(tmp_path, (1, 2)), 4), SimulatedNoise("a")
    )
    parameters = list(objective.model.parameters())
    items = torch.arange(4, 8)
    found = patient_gradients._gradient_of(objective, parameters, items)
    expected = patient_gradients._gradient_of(replace(objective, patches=None), parameters, items)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_nobody_else_moves_where_a_patients_patches_lie(tmp_path: Path) -> None:
    patients = volumes_of_patients(tmp_path, (1, 3, 2, 1))
    whole = with_patches(objective_of(patients, 4), SimulatedNoise("a")).patients
    fewer = with_patches(objective_of(without(patients, 1), 4), SimulatedNoise("a")).patients
    stay = torch.nonzero(whole.patient != 1).flatten()
    assert torch.equal(whole.image[stay], fewer.image[:])
