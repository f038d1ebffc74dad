"""Weights of classes, focal loss and Tversky's index: by item, and the task's own where neutral."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from common.config.run_config import RunConfig, parse_config
from common.platform.errors import ConfigurationError
from common.tasks import task_of
from common.tasks.emphasis import class_loss, label_loss, outline_loss
from common.tasks.loss_choice import training_loss

DRAWN = torch.Generator().manual_seed(4)


def run(task: str, training: str, network: str = "small_cnn", size: str = "[16, 16]") -> RunConfig:
    return parse_config(
        f"name: a\ntask: {task}\ncohort: {{images: {{size: {size}}}}}\n"
        f"model: {{network: {network}, width: 8}}\ntraining: {{rounds: 1{training}}}\nprivacy: none"
    )


CLASSES = "{kind: diagnosis, type: multiclass, target: kind, classes: [a, b, c]}"
NAMED = "{kind: diagnosis, target: kind, classes: [benign, malignant]}"
LABELS = "{kind: diagnosis, type: multilabel, target: [wet, cold]}"
OUTLINES = "{kind: segmentation, structures: {front: [1], back: [2]}}"


def test_a_class_weighs_what_the_configuration_says() -> None:
    config = run(CLASSES, ", class_weights: {b: 3.0}")
    task, loss = task_of(config.task), training_loss(config, task_of(config.task))
    output, target = torch.randn((3, 3), generator=DRAWN), torch.eye(3)
    assert torch.allclose(
        loss(output, target), task.item_loss(output, target) * torch.tensor([1.0, 3.0, 1.0])
    )


def test_presence_and_absence_have_weights_of_their_own() -> None:
    config = run(NAMED, ", class_weights: {benign: 0.5, malignant: 4.0}")
    task, loss = task_of(config.task), training_loss(config, task_of(config.task))
    output, target = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    own = task.item_loss(output, target)
    assert torch.allclose(loss(output, target), own * torch.tensor([0.5, 4.0]))
    config = run(LABELS, ", class_weights: {cold: 2.0}")
    loss = training_loss(config, task_of(config.task))
    output = torch.zeros((1, 2))
    assert loss(output, torch.tensor([[1.0, math.nan]])).item() == pytest.approx(math.log(2))
    assert loss(output, torch.tensor([[math.nan, 1.0]])).item() == pytest.approx(2 * math.log(2))
    assert loss(output, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(math.log(2))


def test_focal_loss_is_the_papers() -> None:
    output, target = torch.tensor([[2.0], [-1.0]]), torch.tensor([[1.0], [1.0]])
    p = torch.sigmoid(output[:, 0])
    found = label_loss(output, target, torch.ones(1), torch.ones(1), gamma=2.0)
    assert torch.allclose(found, -((1 - p) ** 2) * p.log())
    logits = torch.randn((5, 3), generator=DRAWN)
    truth = F.one_hot(torch.tensor([0, 1, 2, 1, 0]), 3).float()
    p = (logits.softmax(1) * truth).sum(1)
    found = class_loss(logits, truth, torch.ones(3), gamma=2.0)
    assert torch.allclose(found, -((1 - p) ** 2) * p.log())


@pytest.mark.parametrize("task", [CLASSES, NAMED, LABELS])
def test_neutral_numbers_are_the_tasks_own_loss(task: str) -> None:
    own = task_of(run(task, "").task)
    output = torch.randn((4, own.outputs), generator=DRAWN)
    target = F.one_hot(torch.tensor([0, 1, 1, 0]), max(own.outputs, 2)).float()[:, : own.outputs]
    one = torch.ones(own.outputs)
    found = (
        class_loss(output, target, one, 0.0)
        if task == CLASSES
        else label_loss(output, target, one, one, 0.0)
    )
    assert torch.allclose(found, own.item_loss(output, target))


def test_even_weights_of_tversky_are_dice() -> None:
    config = run(OUTLINES, ", tversky: [0.5, 0.5]", "unet")
    task, loss = task_of(config.task), training_loss(config, task_of(config.task))
    output = torch.randn((2, 3, 16, 16), generator=DRAWN)
    target = torch.randint(0, 3, (2, 16, 16), generator=DRAWN, dtype=torch.uint8)
    target[1] = 0  # nothing is outlined
    assert torch.allclose(loss(output, target), task.item_loss(output, target))
    missed = torch.zeros((1, 2, 8, 8))
    missed[:, 0] = 9.0
    extra = -missed
    truth = torch.ones((1, 8, 8), dtype=torch.uint8)
    small = torch.zeros((1, 8, 8), dtype=torch.uint8)
    small[:, :2] = 1
    for weights, worse in (((0.1, 0.9), missed), ((0.9, 0.1), extra)):
        given = truth if worse is missed else small
        even = outline_loss(worse, given, 0.5, 0.5, 0.0)
        assert outline_loss(worse, given, *weights, 0.0) > even


def test_no_items_loss_follows_anothers() -> None:
    config = run(LABELS, ", class_weights: {wet: 5.0}, focal: 2.0")
    loss = training_loss(config, task_of(config.task))
    output = torch.randn((4, 2), generator=DRAWN)
    target = torch.tensor([[0.0, 1.0], [1.0, 1.0], [math.nan, 0.0], [1.0, 0.0]])
    together = loss(output, target)
    for place in range(4):
        alone = loss(output[place : place + 1], target[place : place + 1])
        assert torch.equal(alone, together[place : place + 1])


@pytest.mark.parametrize("logit", [200.0, -200.0, 1e4])
def test_certain_networks_have_finite_losses_and_gradients(logit: float) -> None:
    for truth in (0.0, 1.0):
        output = torch.tensor([[logit]], requires_grad=True)
        loss = label_loss(output, torch.tensor([[truth]]), torch.ones(1), torch.ones(1), 2.0)
        (slope,) = torch.autograd.grad(loss.sum(), output)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(slope).all()
    output = torch.tensor([[logit, 0.0]], requires_grad=True)
    loss = class_loss(output, torch.tensor([[0.0, 1.0]]), torch.ones(2), 0.5)
    (slope,) = torch.autograd.grad(loss.sum(), output)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize(
    ("task", "training", "network", "said"),
    [
        (CLASSES, ", class_weights: {d: 2.0}", "small_cnn", "names 'd', expected a, b, c"),
        (NAMED, ", class_weights: {bening: 2.0}", "small_cnn", "expected benign, malignant"),
        (CLASSES, ", tversky: [0.3, 0.7]", "small_cnn", "goes with outlines"),
        (OUTLINES, ", focal: 2.0", "unet", "focal goes with labels"),
        (
            "{kind: regression, target: ef, range: [0, 1], unit: '1'}",
            ", class_weights: {a: 1.0}",
            "small_cnn",
            "class_weights goes with labels",
        ),
        (
            CLASSES,
            ", focal: 2.0, loss: {name: acme-nets/other}",
            "small_cnn",
            "changes a loss of ours",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    task: str, training: str, network: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        run(task, training, network)
