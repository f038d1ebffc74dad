"""Networks that pool a patient's pictures: nothing of another patient is in a patient's part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from client.privacy import model_guard, patient_gradients
from client.privacy.gradient_backend import backend_of
from client.privacy.model_guard import check_model
from client.privacy.patient_gradients import LOOP, Backend, Objective, gradients_by_patient
from client.privacy.patient_sampling import draw
from common.data.sample import Batch, Patients, take
from common.models import bags
from common.models.bags import AttentionPool, BagClassifier, MaxPool, MeanPool
from common.models.fusion import linear_head
from common.models.small_cnn import SmallCnn
from common.platform.errors import UnsafeModel
from common.privacy.noise import SimulatedNoise
from simulations.comparison.privacy_audit import (
    canaries,
    correct_guesses,
    epsilon_at_least,
    scores,
    train,
)
from tests.privacy.guarantees import check_bound, clipped_sum
from tests.privacy.made_up import (
    COLUMNS,
    Silence,
    binary_loss,
    mechanism_of,
    objective_of,
    patients_of,
    plan_of,
    seeded,
    with_images,
    without,
)
from tests.privacy.test_audit import DELTA, plan_for

RED = AssertionError
WIDTH = 12
POOLS = ("mean", "max", "attention")


def network(pool: str = "attention") -> nn.Module:
    """Return a network on features, as `model.pool` makes it, with weights that are not zero."""
    made, width = bags.pool_of(pool, WIDTH)  # type: ignore[arg-type]  # one of POOLS
    return BagClassifier(nn.Identity(), made, linear_head(width + COLUMNS, 1))


def on_pictures() -> nn.Module:
    body = SmallCnn(2, 1, 2)
    pool, width = bags.pool_of("attention", body.features)
    return BagClassifier(body, pool, linear_head(width + COLUMNS, 1))


def features_of(items: Sequence[int]) -> Patients:
    return patients_of(items, image=(WIDTH,))


def gradient(model: nn.Module, batch: Batch, patient: int) -> Tensor:
    """Return the gradient of one patient's loss in an ordinary training step with others."""
    output, of = bags.answered(model, batch)
    losses = binary_loss(output, of.target)
    one = losses[of.patient == patient].mean()
    found = torch.autograd.grad(one, list(model.parameters()), materialize_grads=True)
    return torch.cat([part.flatten() for part in found])


def check_alone(build: Callable[[], nn.Module] = network) -> None:
    """Raise unless a patient's gradient has the same bits whatever the others' pictures are."""
    model = seeded(build)
    patients = features_of((3, 1, 5))
    if isinstance(model, BagClassifier) and isinstance(model.body, SmallCnn):
        patients = patients_of((3, 1, 5))
    others = torch.where(patients.patient == 1, 1.0, 100.0)
    scale = others.reshape(-1, *[1] * (patients.image.dim() - 1))
    loud = with_images(patients, patients.image * scale, patients.table * others[:, None])
    everybody = torch.arange(len(patients.patient))
    found = [gradient(model, take(one, everybody), 1) for one in (patients, loud)]
    found += [gradient(model, take(patients, patients.items_of(1)), 0)]
    if not all(torch.equal(found[0], other) for other in found[1:]):
        message = "a patient's gradient follows other patients' pictures"
        raise AssertionError(message)


@pytest.mark.parametrize("pool", POOLS)
def test_a_patients_gradient_is_the_same_to_the_bit_whoever_else_is_there(pool: str) -> None:
    check_alone(lambda: network(pool))


def test_a_patients_gradient_through_a_small_network_is_the_same_to_the_bit() -> None:
    check_alone(on_pictures)


@pytest.mark.parametrize("pool", POOLS)
def test_a_private_gradient_is_the_same_to_the_bit_and_that_of_the_loss(pool: str) -> None:
    model = seeded(lambda: network(pool))
    patients = features_of((3, 1, 5))
    objective = objective_of(model, patients, most=8)
    parameters = list(model.parameters())
    drawn = draw(patients, 1.0, 8, Silence())
    together = [
        torch.cat([part.flatten() for part in found])
        for found in gradients_by_patient(objective, parameters, drawn, LOOP)
    ]
    for patient, found in enumerate(together):
        items = drawn.place[patient][: drawn.items[patient]]
        assert torch.equal(found, gradient(model, take(patients, items), 0))
    fewer = without(patients, 0)
    alone = gradients_by_patient(
        objective_of(model, fewer, most=8), parameters, draw(fewer, 1.0, 8, Silence()), LOOP
    )
    for kept, found in zip(together[1:], alone, strict=True):
        assert torch.equal(kept, torch.cat([part.flatten() for part in found]))


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("items", [1, 2, 4, 8])
def test_a_patient_moves_the_sum_by_at_most_the_clip_norm(pool: str, items: int) -> None:
    patients = features_of((items, 2, 1))
    loud = with_images(patients, 3 * patients.image)
    model = seeded(lambda: network(pool))
    plan = plan_of(mechanism_of(clip_norm=0.1))
    sums = [
        clipped_sum(objective_of(model, some, most=items), plan)
        for some in (loud, without(loud, 0))
    ]
    moved = float((sums[0] - sums[1]).norm())
    assert moved > 0.01
    check_bound(moved, 0.1)


def test_the_size_of_a_bag_is_not_in_the_scale_of_its_gradient() -> None:
    patients = features_of((1,))
    repeated = take(patients, torch.zeros(8, dtype=torch.int64))
    for pool in ("mean", "attention"):
        model = seeded(lambda pool=pool: network(pool))  # type: ignore[misc]
        one = gradient(model, take(patients, torch.zeros(1, dtype=torch.int64)), 0)
        torch.testing.assert_close(gradient(model, repeated, 0), one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", POOLS)
def test_the_order_of_a_patients_pictures_does_not_matter(pool: str) -> None:
    model = seeded(lambda: network(pool)).eval()
    patients = features_of((1500,))
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        expected = model(patients.image, patients.table)
        for _ in range(3):
            order = torch.randperm(1500, generator=generator)
            found = model(patients.image[order], patients.table[order])
            assert float((found - expected).abs().max()) <= 1e-6


@pytest.mark.parametrize("pool", POOLS)
def test_a_bag_in_parts_is_the_bag_as_a_whole(pool: str) -> None:
    made, _ = bags.pool_of(pool, WIDTH)  # type: ignore[arg-type]  # one of POOLS
    features = 5 * features_of((301,)).image
    whole = made([features])
    parts = made(torch.split(features, 64))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_attention_is_a_softmax_within_the_patient() -> None:
    model = seeded(network).eval()
    assert isinstance(model, BagClassifier)
    assert isinstance(model.pool, AttentionPool)
    patients = features_of((200,))
    with torch.inference_mode():
        share = model.attention(patients.image)
        hidden = model.pool.embedded(patients.image)[0]
        pooled = model.pool([patients.image])
    assert float(share.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(share[None] @ hidden, pooled, rtol=1e-5, atol=1e-6)


def test_gated_attention_is_that_of_ilse_2018() -> None:
    """Equations 8 and 9, written out for each item."""
    pool, _ = bags.pool_of("attention", WIDTH)
    assert isinstance(pool, AttentionPool)
    assert sum(p.numel() for p in bags.pool_of("attention", 1280)[0].parameters()) == 42_065
    features = features_of((5,)).image
    pool.requires_grad_(requires_grad=False)
    hidden = [torch.relu(pool.embedding.weight @ one + pool.embedding.bias) for one in features]
    exponents = []
    for h in hidden:
        v = torch.tanh(pool.content.weight @ h + pool.content.bias)
        u = torch.sigmoid(pool.gate.weight @ h + pool.gate.bias)
        exponents.append(float(torch.exp(pool.score.weight[0] @ (v * u) + pool.score.bias[0])))
    expected = sum(e / sum(exponents) * h for e, h in zip(exponents, hidden, strict=True))
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(pool([features])[0], expected, rtol=1e-5, atol=1e-6)


def test_bags_are_never_put_side_by_side() -> None:
    objective = objective_of(seeded(network), features_of((2, 1)))
    parameters = list(objective.model.parameters())
    assert backend_of(objective, parameters, simulated=True) == LOOP
    drawn = draw(objective.patients, 1.0, 4, Silence())
    for kind in ("vmap", "linear"):
        with pytest.raises(UnsafeModel, match="side by side"):
            list(gradients_by_patient(objective, parameters, drawn, Backend(kind, 4)))  # type: ignore[arg-type]


@pytest.mark.parametrize("build", [network, on_pictures])
def test_the_guard_lets_bags_through(build: Callable[[], nn.Module]) -> None:
    patients = features_of((2, 1)) if build is network else patients_of((2, 1))
    check_model(objective_of(seeded(build), patients), plan_of(), Silence())
    check_model(objective_of(seeded(build), patients), plan_of(), Silence(), foreign=True)


# --- faults put in ---------------------------------------------------------------------------


def softmax_over_the_batch(model: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
    """Do what `answered` does, with one softmax over the pictures of everybody."""
    assert isinstance(model, BagClassifier)
    assert isinstance(model.pool, AttentionPool)
    hidden, score = model.pool.embedded(model.body(batch.image))
    patients = int(batch.patient.max()) + 1
    member = torch.nn.functional.one_hot(batch.patient, patients).T.float()
    pooled = member @ (score.softmax(dim=0) * hidden)
    table = member @ batch.table / member.sum(1, keepdim=True)
    first = torch.stack([(batch.patient == p).nonzero()[0, 0] for p in range(patients)])
    return model.head(torch.cat([pooled, table], 1)), Batch(
        image=batch.image[:0],
        table=batch.table[first],
        target=batch.target[first],
        patient=torch.arange(patients),
        weight=torch.ones(patients),
    )


def test_a_softmax_over_the_batch_is_seen_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bags, "answered", softmax_over_the_batch)
    with pytest.raises(RED, match="follows other patients"):
        check_alone()


def test_a_softmax_over_the_batch_is_seen_by_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = objective_of(seeded(network), features_of((2, 1)))
    monkeypatch.setattr(model_guard, "answered", softmax_over_the_batch)
    with pytest.raises(UnsafeModel, match="beside other patients"):
        check_model(objective, plan_of(), Silence())


def test_a_private_softmax_over_everybody_moves_the_sum_too_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each patient's gradient is clipped, and follows the patient who is left out."""

    def of_everybody(
        objective: Objective, parameters: Sequence[nn.Parameter], items: Tensor
    ) -> list[Tensor]:
        patients = objective.patients
        everybody = take(patients, torch.arange(len(patients.patient)))
        output, of = softmax_over_the_batch(objective.model, everybody)
        own = patients.patient[items[0]]
        loss = objective.item_loss(output, of.target)[own]
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        return [gradient[None] for gradient in found]

    patients = features_of((2,) * 6)
    loud = torch.where(patients.patient == 0, 100.0, 1.0)[:, None]
    patients = with_images(patients, patients.image * loud)
    model, plan = seeded(network), plan_of(mechanism_of(clip_norm=0.1))
    assert isinstance(model, BagClassifier)
    with torch.no_grad():
        model.pool.score.weight.mul_(100.0)  # type: ignore[operator, union-attr]  # of attention

    def moved() -> float:
        sums = [clipped_sum(objective_of(model, p), plan) for p in (patients, without(patients, 0))]
        return float((sums[0] - sums[1]).norm())

    check_bound(moved(), 0.1)
    monkeypatch.setattr(patient_gradients, "_gradient_of", of_everybody)
    with pytest.raises(RED, match="moved the sum"):
        check_bound(moved(), 0.1)


def test_a_sum_in_place_of_a_mean_follows_the_size_of_the_bag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        MeanPool, "forward", lambda _self, parts: sum(p.sum(0, keepdim=True) for p in parts)
    )
    with pytest.raises(RED):
        test_the_size_of_a_bag_is_not_in_the_scale_of_its_gradient()


# --- audit -----------------------------------------------------------------------------------


def audited(claimed: float, weaker: float = 1.0) -> float:
    """Return the epsilon that a run on bags of four pictures has for certain."""
    count = 2000
    chosen = canaries(count, 0)
    inside = len(chosen.patients)
    bag = BagClassifier(nn.Identity(), MaxPool(), nn.Linear(count, 1, bias=False))
    nn.init.zeros_(bag.head.weight)  # type: ignore[arg-type]  # a linear layer
    of_four = torch.arange(inside).repeat_interleave(4)
    patients = Patients(
        image=chosen.patients.table[of_four],
        table=torch.zeros(4 * inside, 0),
        target=torch.ones(4 * inside, 1),
        patient=of_four,
        pseudonyms=chosen.patients.pseudonyms,
    )
    updates = train(patients, plan_for(claimed, weaker), SimulatedNoise("audit", 0), bag)
    right = correct_guesses(scores(updates), chosen.included)
    return epsilon_at_least(right, count, DELTA)


@pytest.mark.slow
def test_a_run_on_bags_stays_below_its_claim() -> None:
    assert 0.2 * 4 < audited(4.0) < 4


@pytest.mark.slow
def test_a_third_of_the_noise_is_found_out_on_bags() -> None:
    assert audited(4.0, weaker=3.0) > 4
