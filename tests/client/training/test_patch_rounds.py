from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.training.batches import batches
from client.training.evaluation import score
from client.training.local_model import open_local_model
from client.training.training_site import Site
from common.config.patches import patch_rules
from common.config.run_config import parse_config
from common.data.sample import Patients
from common.models import windows
from common.platform.errors import ConfigurationError
from common.tasks.segmentation import Segmentation
from simulations.engines.in_process import InProcessSites
from simulations.engines.workers import WorkerSites
from tests.client.local_runs import request_of, update_of
from tests.privacy.made_up import volumes_of_patients
from tests.server.hospitals import same_bits

TEXT = """
name: patches
task: {kind: segmentation, structures: {lesion: [1]}}
cohort: {images: {patch: [16, 16], channels: 1}, smallest_cohort: 1}
model: {network: unet, width: 4}
training: {rounds: 2, local_steps: 2, batch_patients: 2, optimizer: sgd, learning_rate: 0.1}
evaluation: {smallest_cell: 1, bootstrap: 10}
privacy: none
"""
PRIVATE = "privacy: {unit: patient, epsilon: 2.0, default_patients: 20, delta: 0.001}"
CONFIG = parse_config(TEXT)


def made(folder: Path, items: tuple[int, ...] = (1, 3, 2), seed: int = 0) -> Patients:
    return volumes_of_patients(folder, items, (16, 16), seed=seed)


def site_of(folder: Path, name: str = "here") -> Site:
    train = made(folder / "train")
    other = made(folder / "other", (1, 2), seed=1)
    return Site(name=name, train=train, validation=other, test=other)


def test_patches_of_a_run_follow_its_privacy_and_what_it_says() -> None:
    plain, private = patch_rules(CONFIG), patch_rules(parse_config(TEXT[:-14] + PRIVATE))
    assert plain is not None
    assert private is not None
    assert (plain.per_patient, plain.foreground) == (2, 0.33)
    assert (private.per_patient, private.foreground) == (4, 0.0)
    said = patch_rules(parse_config(TEXT.replace("rounds", "patches_per_patient: 3, rounds")))
    assert said is not None
    assert said.per_patient == 3
    assert patch_rules(parse_config(TEXT.replace("patch", "size"))) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("patch:", "size: [8, 8], patch:"), "remove size"),
        (("[16, 16]", "[16, 16, 16]"), "needs spacing"),
        (("channels: 1", "fit: crop"), "fit=crop brings images to one size"),
        (("[16, 16]", "[15, 16]"), r"cohort\.images\.patch=\[15, 16\] does not fit unet"),
        (("patch: [16, 16]", "size: [16, 16]"), "patches_per_patient=3 goes with"),
        (("privacy: none", PRIVATE), "a private run draws patches anywhere"),
    ],
    ids=lambda one: str(one)[:24],
)
def test_what_does_not_go_with_patches_is_refused(change: tuple[str, str], words: str) -> None:
    text = TEXT.replace("rounds: 2", "rounds: 2, patches_per_patient: 3, foreground: 0.5")
    parse_config(text)
    with pytest.raises(ConfigurationError, match=words):
        parse_config(text.replace(*change))


def test_patches_are_for_outlines_alone() -> None:
    text = TEXT.replace("segmentation, structures: {lesion: [1]}", "diagnosis, target: ill")
    with pytest.raises(ConfigurationError, match="goes with task: segmentation"):
        parse_config(text.replace("unet", "small_cnn"))


def test_a_step_takes_each_patients_patches_and_the_same_again(tmp_path: Path) -> None:
    patients, rules = made(tmp_path), patch_rules(CONFIG)
    steps = [
        list(batches(patients, 2, 4, 3, torch.Generator().manual_seed(seed), rules))
        for seed in (0, 0, 1)
    ]
    for batch in steps[0]:
        assert batch.image.shape == (4, 1, 16, 16)
        assert batch.target.shape == (4, 16, 16)
        assert batch.patient.tolist() == [0, 0, 1, 1]
        assert batch.weight.tolist() == [0.5] * 4
    for one, again, other in zip(*steps, strict=True):
        assert torch.equal(one.image, again.image)
        assert not torch.equal(one.image, other.image)


def test_patches_one_after_another_add_up_to_the_gradient_of_the_batch(tmp_path: Path) -> None:
    local_model, rules = open_local_model(CONFIG, 0), patch_rules(CONFIG)
    (batch,) = batches(made(tmp_path), "all", 4, 1, torch.Generator().manual_seed(0), rules)
    found = []
    for model in (local_model, replace(local_model, patches=None)):
        model.model.zero_grad(set_to_none=True)
        model.add_gradient(batch)
        found.append([p.grad.clone() for p in model.model.parameters() if p.grad is not None])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.processes
def test_a_round_is_the_same_in_every_engine_and_when_it_is_repeated(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    request = request_of(CONFIG)
    first, again = (update_of(site, open_local_model(CONFIG, 0), request) for _ in range(2))
    assert same_bits(first.delta, again.delta)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    (here,) = InProcessSites({"here": site}, CONFIG, 0).train(request, ["here"])
    with WorkerSites({"here": site}, CONFIG, 0, 1) as workers:
        (there,) = workers.train(request, ["here"])
        assert same_bits(there.delta, here.delta)  # type: ignore[union-attr]
    torch.set_num_threads(before)


def test_volumes_of_a_patchs_size_are_measured_as_images_are(tmp_path: Path) -> None:
    """And all that is told of what was measured is what is told of the maps."""
    patients = made(tmp_path)
    stay = [patients.image.whole(k)[:, :16, :16] for k in range(6)]  # type: ignore[union-attr]
    local_model = open_local_model(CONFIG, 0)
    maps = [patients.target.whole(k)[:16, :16] for k in range(6)]  # type: ignore[union-attr]
    cut = replace(patients, image=torch.stack(stay), target=torch.stack(maps))
    scores = score(local_model, cut)
    task = local_model.task
    assert isinstance(task, Segmentation)
    measured = task.measured(scores)
    rules, weights = CONFIG.evaluation, np.ones((3, 6))
    one, two = (str(task.exact(part, weights, rules)) for part in (measured, scores))  # with nan
    assert one == two
    for structure in (0, 1):
        filled = [task.filled(part, structure) for part in (measured, scores)]
        dice = [task.draws(part, weights, rules) for part in filled]
        assert np.allclose(*dice, equal_nan=True)
    noised = rules.model_copy(update={"count_noise": 1.0})
    told = [task.statistics(part, noised).cells["dice"] for part in (measured, scores)]
    assert np.array_equal(*told)


def test_a_network_slides_over_larger_volumes_and_is_asked_once_where_a_patch_is_the_whole(
    tmp_path: Path,
) -> None:
    patients = made(tmp_path)
    local_model = open_local_model(CONFIG, 0)
    found = score(local_model, patients)
    assert len(found.prediction) == 6
    assert found.owner is not None
    assert found.owner.tolist() == [0, 1, 1, 1, 2, 2]
    asked: list[torch.Size] = []

    def ask(part: torch.Tensor) -> torch.Tensor:
        asked.append(part.shape)
        output: torch.Tensor = local_model.model(part, torch.zeros(1, 0))
        return output

    image = torch.randn(1, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = ask(image)
        assert torch.equal(windows.slid(ask, image, (32, 48)), whole)
        # MONAI's own way with a window as large as the image: equal up to rounding.
        from monai.inferers.utils import sliding_window_inference

        theirs = sliding_window_inference(image, (32, 48), 1, ask, overlap=0.5, mode="gaussian")
        torch.testing.assert_close(theirs, whole, rtol=0, atol=1e-5)
        asked.clear()
        assert windows.slid(ask, image, (16, 16)).shape == whole.shape
    assert set(asked) == {torch.Size((1, 1, 16, 16))}
    assert len(asked) == 3 * 5
