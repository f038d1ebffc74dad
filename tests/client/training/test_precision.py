"""Steps in bfloat16: only the forward pass, and no looser a clip."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from client.privacy import clip_and_noise
from client.privacy.gradient_backend import backend_of
from client.privacy.model_guard import check_model
from client.privacy.patient_gradients import LOOP, gradients_by_patient
from client.privacy.patient_sampling import draw
from client.training.device import place
from client.training.evaluation import score
from client.training.local_model import LocalModel, open_local_model
from client.training.private_round import Objective
from client.training.training_site import Site
from common.data.sample import take
from common.data.weights import Weights, fingerprint, trainable
from common.platform.errors import ConfigurationError
from common.privacy.noise import SimulatedNoise
from simulations.comparison.privacy_audit import (
    CanaryNet,
    canaries,
    correct_guesses,
    epsilon_at_least,
    scores,
    train,
)
from tests.client.local_runs import ITEMS, image_config_of, request_of, update_of
from tests.common.config.test_config import IMAGES, refusal
from tests.privacy.guarantees import check_bound, clipped_sum
from tests.privacy.made_up import (
    ImageNet,
    Silence,
    mechanism_of,
    objective_of,
    patients_of,
    plan_of,
    seeded,
    with_images,
    without,
)
from tests.privacy.test_audit import DELTA, plan_for

PROCESSOR = torch.device("cpu")
PATIENTS = patients_of(ITEMS)
SITE = Site(name="here", train=PATIENTS, validation=PATIENTS, test=PATIENTS)


def opened(precision: str) -> LocalModel:
    return open_local_model(image_config_of(training=precision), 0)


def delta(precision: str) -> Weights:
    local_model = opened(precision)
    return update_of(SITE, local_model, request_of(local_model.config)).delta


def in_half(model: nn.Module) -> nn.Module:
    return place(model, PROCESSOR, precision="bf16")


def answer(local_model: LocalModel) -> Tensor:
    batch = take(PATIENTS, torch.arange(len(PATIENTS.patient)))
    output: Tensor = local_model.model(batch.image, batch.table)
    return output.detach()


def test_steps_are_in_bfloat16_and_measurements_in_float32() -> None:
    plain, half = opened(""), opened(", precision: bf16")
    assert fingerprint(plain.trained) == fingerprint(half.trained)
    assert answer(half).dtype is torch.float32
    assert not torch.equal(answer(plain), answer(half))
    torch.testing.assert_close(answer(half), answer(plain), rtol=0.05, atol=0.05)
    assert torch.equal(score(plain, PATIENTS).loss, score(half, PATIENTS).loss)
    assert half.model.training


def test_float32_is_what_a_processor_computes_in_anyway() -> None:
    config = image_config_of(training=", precision: float32")
    assert config.fingerprint() != image_config_of().fingerprint()
    rounds = [delta(text) for text in ("", ", precision: float32")]
    assert fingerprint(rounds[0]) == fingerprint(rounds[1])
    assert "precision" not in image_config_of().canonical_json()


def test_a_round_in_bfloat16_repeats_to_the_bit_and_leaves_no_trace() -> None:
    before = torch.random.get_rng_state()
    found = [delta(", precision: bf16") for _ in range(2)]
    assert fingerprint(found[0]) == fingerprint(found[1])
    assert fingerprint(found[0]) != fingerprint(delta(""))
    assert {value.dtype for value in found[0].values()} == {torch.float32}
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.is_autocast_enabled("cpu")


def test_names_and_weights_of_the_network_stay() -> None:
    plain, half = opened("").model, opened(", precision: bf16").model
    assert trainable(plain).keys() == trainable(half).keys()
    assert {p.dtype for p in half.parameters()} == {torch.float32}


# --- private ---------------------------------------------------------------------------------


def moved(items: int, contrast: float = 300.0) -> float:
    """Return how far a patient of so many items moves the sum, with a clip norm of 0.1."""
    patients = patients_of((items, 2, 1))
    loud = with_images(patients, contrast * patients.image)
    model, plan = in_half(seeded(ImageNet)), plan_of(mechanism_of(clip_norm=0.1))
    sums = [
        clipped_sum(objective_of(model, some, most=items), plan)
        for some in (loud, without(loud, 0))
    ]
    return float((sums[0] - sums[1]).norm())


@pytest.mark.parametrize("items", [1, 2, 4, 8])
def test_a_patient_moves_the_sum_by_at_most_the_clip_norm(items: int) -> None:
    assert moved(items) > 0.09
    check_bound(moved(items), 0.1)


def test_norms_in_bfloat16_would_let_more_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(samples: Sequence[Tensor]) -> Tensor:
        return torch.cat([s.flatten(1) for s in samples], 1).bfloat16().norm(dim=1).double()

    contrasts = [300.0 + 40 * number for number in range(12)]
    check_bound(max(moved(2, contrast) for contrast in contrasts), 0.1)
    monkeypatch.setattr(clip_and_noise, "patient_norms", rounded)
    with pytest.raises(AssertionError, match="moved the sum"):
        check_bound(max(moved(2, contrast) for contrast in contrasts), 0.1)


def test_a_patients_gradient_is_float32_and_of_the_same_bits_whoever_else_is_there() -> None:
    model = in_half(seeded(ImageNet))
    parameters = list(model.parameters())
    patients = patients_of((3, 1, 2))
    found = []
    for some in (patients, without(patients, 0)):
        drawn = draw(some, 1.0, 4, Silence())
        every = gradients_by_patient(objective_of(model, some), parameters, drawn, LOOP)
        found.append([[part.clone() for part in one] for one in every])
    assert {part.dtype for one in found[0] for part in one} == {torch.float32}
    for ours, theirs in zip(found[0][1:], found[1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_patients_are_never_side_by_side_in_bfloat16() -> None:
    model = in_half(seeded(ImageNet))
    given = objective_of(model, PATIENTS)
    apart = Objective(
        model=model, item_loss=given.item_loss, patients=PATIENTS, images_per_patient=4, apart=True
    )
    assert backend_of(apart, list(model.parameters()), simulated=True) == LOOP
    check_model(apart, plan_of(), Silence())


@pytest.mark.slow
@pytest.mark.parametrize(("weaker", "below"), [(1.0, True), (3.0, False)])
def test_an_audited_run_in_bfloat16_stays_below_its_claim(*, weaker: float, below: bool) -> None:
    count, claimed = 2000, 4.0
    chosen, model = canaries(count, 0), in_half(CanaryNet(count))
    updates = train(chosen.patients, plan_for(claimed, weaker), SimulatedNoise("audit", 0), model)
    right = correct_guesses(scores(updates), chosen.included)
    found = epsilon_at_least(right, count, DELTA)
    assert (0.2 * claimed < found < claimed) if below else found > claimed


# --- what cannot be --------------------------------------------------------------------------


def test_a_gpu_without_bfloat16_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(ConfigurationError, match=r"precision=bf16.*device: cpu"):
        place(seeded(ImageNet), torch.device("cuda"), precision="bf16")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rounds: 3", "rounds: 3, precision: fp16", "'bf16'"),
        ("rounds: 3", "rounds: 3, precision: true", "'float32'"),
    ],
)
def test_another_precision_is_refused(old: str, new: str, said: str) -> None:
    assert said in refusal(IMAGES.replace(old, new))


def test_code_of_others_is_not_run_in_bfloat16() -> None:
    text = IMAGES.replace("small_cnn", "acme/net").replace("3}", "3, precision: bf16}")
    found = refusal(text)
    assert "training.precision=bf16" in found
    assert "acme/net" in found
    private = text.replace("3, precision: bf16}", "3}").replace(
        "privacy: none",
        "privacy: {unit: patient, epsilon: 3, training: {rounds: 3, precision: bf16}}",
    )
    assert "training.precision=bf16" in refusal(private)
