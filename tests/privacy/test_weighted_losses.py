"""Weights of classes and focal loss in private runs: what is weighed is clipped afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from client.privacy import clip_and_noise
from client.privacy.clipping import clip_factor
from client.privacy.model_guard import check_model
from client.privacy.patient_gradients import Objective
from client.training.local_model import open_local_model
from common.config.run_config import RunConfig, parse_config
from common.data.sample import Patients
from tests.privacy.guarantees import check_bound, clipped_sum
from tests.privacy.made_up import Silence, mechanism_of, patients_of, plan_of, with_images, without

CLIP = 0.1
HEAVY = ", class_weights: {benign: 0.001, malignant: 1000000.0}"
FOCAL = ", focal: 2.0"


def config_of(training: str) -> RunConfig:
    return parse_config(f"""
name: weighed
task: {{kind: diagnosis, target: kind, classes: [benign, malignant]}}
cohort: {{images: {{size: [16, 16]}}, smallest_cohort: 1}}
model: {{network: small_cnn, width: 4}}
training: {{rounds: 1}}
privacy:
  unit: patient
  epsilon: 2.0
  delta: 0.001
  default_patients: 20
  training: {{rounds: 1, optimizer: sgd, learning_rate: 0.1{training}}}
""").in_force()


def objective_of(training: str, patients: Patients) -> Objective:
    """Return what a site of such a run learns by."""
    local_model = open_local_model(config_of(training), 0)
    return Objective(
        model=local_model.model,
        item_loss=local_model.item_loss,
        patients=patients,
        images_per_patient=8,
    )


def patients(items: tuple[int, ...] = (4, 2, 1), contrast: float = 1.0) -> Patients:
    made = patients_of(items, image=(1, 16, 16))
    made.target[:] = 1.0  # malignant, all of them
    return with_images(made, contrast * made.image, made.table[:, :0])


def moved(training: str, everybody: Patients) -> float:
    plan = plan_of(mechanism_of(clip_norm=CLIP))
    sums = [
        clipped_sum(objective_of(training, p), plan) for p in (everybody, without(everybody, 0))
    ]
    return float((sums[0] - sums[1]).norm())


@pytest.mark.parametrize("training", [HEAVY, FOCAL, HEAVY + FOCAL])
@pytest.mark.parametrize("items", [1, 2, 4, 8])
def test_a_heavy_patient_moves_the_sum_by_at_most_the_clip_norm(training: str, items: int) -> None:
    found = moved(training, patients((items, 2, 1), contrast=5.0))
    check_bound(found, CLIP)
    assert found > 0.9 * CLIP or "class_weights" not in training


def test_the_weight_is_in_what_is_clipped() -> None:
    """A light class is not clipped at all, a heavy one is."""
    light = ", class_weights: {malignant: 0.00001}"
    assert moved(light, patients()) < 0.01 * CLIP < 0.9 * CLIP < moved(HEAVY, patients())


@pytest.mark.parametrize("training", [HEAVY, HEAVY + FOCAL])
def test_a_weight_after_the_clip_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, training: str
) -> None:
    def weighed(norm: Tensor, clip_norm: float, clipping: str) -> Tensor:
        return 3.0 * clip_factor(norm, clip_norm, clipping)  # type: ignore[arg-type]

    monkeypatch.setattr(clip_and_noise, "clip_factor", weighed)
    with pytest.raises(AssertionError, match="moved the sum"):
        test_a_heavy_patient_moves_the_sum_by_at_most_the_clip_norm(training, 2)


def test_a_weight_beyond_all_bounds_leaves_nothing_of_a_patient() -> None:
    endless = ", class_weights: {malignant: 3.0e+38}"
    plan = plan_of(mechanism_of(clip_norm=CLIP))
    found = clipped_sum(objective_of(endless, patients(contrast=50.0)), plan)
    assert bool(torch.isfinite(found).all())
    check_bound(float(found.norm()), 3 * CLIP)


@pytest.mark.parametrize("training", [HEAVY, FOCAL, HEAVY + FOCAL])
def test_the_guard_lets_weighted_losses_through(training: str) -> None:
    check_model(objective_of(training, patients()), plan_of(), Silence())
