from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from common.tasks.prognosis import ProportionalHazards
from tests.common.every_task import CONFIGS, made, outputs_and_targets

EVERY = pytest.mark.parametrize("kind", CONFIGS)


@EVERY
def test_there_is_one_loss_per_item_and_all_are_finite(kind: str) -> None:
    output, target = outputs_and_targets(kind, 6)
    loss = made(kind).item_loss(output, target)
    assert loss.shape == (6,)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    assert (loss >= 0).all()


@EVERY
def test_changing_one_item_changes_no_others_loss(kind: str) -> None:
    output, target = outputs_and_targets(kind, 6)
    others = torch.arange(6) != 2
    before = made(kind).item_loss(output, target)
    output[2], target[2] = -7 * output[2], target[3]
    after = made(kind).item_loss(output, target)
    assert torch.equal(before[others], after[others])
    assert before[2] != after[2]


@EVERY
def test_an_item_alone_has_the_loss_that_it_has_among_others(kind: str) -> None:
    output, target = outputs_and_targets(kind, 5)
    together = made(kind).item_loss(output, target)
    alone = torch.cat([made(kind).item_loss(output[[k]], target[[k]]) for k in range(5)])
    torch.testing.assert_close(together, alone)


@EVERY
def test_gradients_by_item_are_the_same_through_vmap_as_one_by_one(kind: str) -> None:
    output, target = outputs_and_targets(kind, 4)
    task = made(kind)

    def loss(one: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return task.item_loss(one[None], truth[None]).sum()

    fast = vmap(grad(loss))(output, target)
    slow = torch.stack([grad(loss)(o, t) for o, t in zip(output, target, strict=True)])
    torch.testing.assert_close(fast, slow)
    assert torch.isfinite(fast).all()


@EVERY
def test_losses_of_half_precision_outputs_are_taken_in_float32(kind: str) -> None:
    output, target = outputs_and_targets(kind, 6)
    exact = made(kind).item_loss(output.bfloat16().float(), target)
    half = made(kind).item_loss(output.bfloat16(), target)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact)
    assert made(kind).predict(output.bfloat16()).dtype in {torch.float32, torch.uint8}


@EVERY
def test_autocast_leaves_the_loss_in_float32(kind: str) -> None:
    output, target = outputs_and_targets(kind, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = made(kind).item_loss(output, target)
    torch.testing.assert_close(loss, made(kind).item_loss(output, target))


@EVERY
def test_extreme_outputs_give_finite_losses_and_gradients(kind: str) -> None:
    output, target = outputs_and_targets(kind, 6)
    extreme = (1e4 * output).requires_grad_()
    loss = made(kind).item_loss(extreme, target)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert extreme.grad is not None
    assert torch.isfinite(extreme.grad).all()


@EVERY
def test_better_outputs_have_less_loss(kind: str) -> None:
    output, target = outputs_and_targets(kind, 60)
    shuffled = output[torch.randperm(60, generator=torch.Generator().manual_seed(1))]
    task = made(kind)
    assert task.item_loss(output, target).mean() < task.item_loss(shuffled, target).mean()


# --- each loss against its definition -------------------------------------------------------


def test_the_binary_loss_is_the_log_likelihood() -> None:
    output, target = outputs_and_targets("binary", 20)
    chance = output.double().sigmoid()
    by_hand = -(target * chance.log() + (1 - target) * (1 - chance).log())[:, 0]
    torch.testing.assert_close(made("binary").item_loss(output, target), by_hand.float())


def test_the_multiclass_loss_is_that_of_the_true_class() -> None:
    output, target = outputs_and_targets("multiclass", 20)
    chance = made("multiclass").predict(output)
    torch.testing.assert_close(chance.sum(1), torch.ones(20))
    by_hand = -chance[torch.arange(20), target.argmax(1)].log()
    torch.testing.assert_close(made("multiclass").item_loss(output, target), by_hand)


def test_a_label_left_empty_counts_for_nothing() -> None:
    output, target = torch.tensor([[0.3, 5.0]]), torch.tensor([[1.0, torch.nan]])
    task, binary = made("multilabel"), made("binary")
    expected = binary.item_loss(output[:, :1], target[:, :1])
    torch.testing.assert_close(task.item_loss(output, target), expected)
    gradient = grad(lambda o: task.item_loss(o, target).sum())(output)
    assert gradient[0, 1] == 0
    assert gradient[0, 0] != 0


def test_the_hazard_loss_is_the_likelihood_of_what_was_seen() -> None:
    task = made("free")
    output = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    hazard = output.sigmoid()
    rows = [{"event": e, "months": m} for e, m in (("1", "5"), ("0", "10"), ("0", "30"))]
    target = torch.from_numpy(np.stack([task.encode(row) for row in rows]))
    # Event in the second interval; lost past the middle of the third; never seen to die.
    likelihood = torch.stack(
        [(1 - hazard[0, 0]) * hazard[0, 1], (1 - hazard[1, :3]).prod(), (1 - hazard[2]).prod()]
    )
    torch.testing.assert_close(task.item_loss(output, target), -likelihood.log())
    survival = task.predict(output)
    torch.testing.assert_close(survival[:, -1], (1 - hazard).prod(1))
    assert (survival.diff(dim=1) <= 0).all()


def test_proportional_hazards_add_one_risk_to_a_baseline() -> None:
    class Sum(nn.Module):
        def forward(self, image: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
            return image.sum(1, keepdim=True) + table.sum(1, keepdim=True)

    model = ProportionalHazards(Sum(), 4)
    image, table = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    logits = model(image, table)
    assert logits.shape == (2, 4)
    torch.testing.assert_close(logits[1] - logits[0], torch.full((4,), 2.0))
    loss = functional_call(model, {"baseline": torch.arange(4.0)}, (image, table))
    torch.testing.assert_close(loss[0], torch.arange(4.0) + 1)


@pytest.mark.parametrize("kind", ["outlines", "volume"])
def test_the_outline_loss_is_dice_and_cross_entropy_of_the_item(kind: str) -> None:
    output, target = outputs_and_targets(kind, 3)
    expected = []
    for one, truth in zip(output.double(), target.long(), strict=True):
        chance = one.softmax(0)
        dice = [
            1
            - (2 * (chance[k] * (truth == k)).sum() + 1)
            / (chance[k].sum() + (truth == k).sum() + 1)
            for k in (1, 2)
        ]
        entropy = -chance.gather(0, truth[None]).log().mean()
        expected.append(sum(dice) / 2 + entropy)
    found = made(kind).item_loss(output, target)
    torch.testing.assert_close(found, torch.stack(expected).float())


def test_an_empty_mask_rewards_an_empty_prediction() -> None:
    task, nothing = made("outline"), torch.zeros(1, 10, 12, dtype=torch.uint8)
    outline = torch.stack([torch.full((10, 12), 9.0), torch.full((10, 12), -9.0)])[None]
    assert task.item_loss(outline, nothing) < 0.01
    assert task.item_loss(-outline, nothing) > 1
