"""Losses of extensions, item by item.

Guarantee: an extension's loss is a record of operations on one item's output and target
(common/extensions/recorded.py), applied to each item alone: no item's loss depends on another's,
nor on what came before.

Public: ItemLoss, loss_of, recorded_loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from common.config.parts.extension import ExtensionUse
from common.config.run_config import ExtensionTask, RunConfig
from common.extensions.contract import LossExtension
from common.extensions.foreign_code import refusing
from common.extensions.global_state import left_alone
from common.extensions.loading import checked_arguments, load
from common.extensions.recorded import Recorded, recorded
from common.extensions.tasks import task_extension
from common.platform.errors import ExtensionRefused

#: Of output (items, ...) and target (items, ...): one loss an item, (items,).
ItemLoss = Callable[[Tensor, Tensor], Tensor]
_CLOSE = 1e-4


def loss_of(config: RunConfig) -> tuple[str, Recorded] | None:
    """Return the loss that a run takes from an extension, with its name; None where it has none."""
    if isinstance(config.task, ExtensionTask):
        found, arguments = task_extension(config.extensions, config.task)
        return config.task.name, partial(found.loss, arguments)
    use = config.training.loss
    return None if use is None else (use.name, _loaded(config, use))


def recorded_loss(name: str, loss: Recorded, output: Tensor, target: Tensor) -> ItemLoss:
    """Return an extension's loss as its record; ExtensionRefused unless it keeps the contract.

    output and target are of one made-up item, as the task and the cohort make them: the loss is
    recorded and tried on it.
    """
    record = recorded(name, loss, (output, target))
    with (
        refusing(f"{name} fails"),
        left_alone(name),
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
    ):
        pair = [_answer(function, output, target) for function in (record, loss)]
    _check(name, pair)
    found = _Recorded(name, record)
    _check_in_training(name, found, output, target)
    return found


class _Recorded:
    """A record, applied to each item alone; nothing of the extension's code is held by it."""

    def __init__(self, name: str, record: nn.Module) -> None:
        self._name = name
        self._record = record
        self._each = torch.func.vmap(record)

    def __repr__(self) -> str:
        return f"The loss {self._name}"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self._record.to(output.device)
        # Losses of half precision lose small ones.
        found: Tensor = self._each(
            output.to(torch.promote_types(output.dtype, torch.float32)), target
        )
        return found


def _check_in_training(name: str, loss: ItemLoss, output: Tensor, target: Tensor) -> None:
    """Try a record as it is trained by: with gradients, of one item and of several at once."""
    alone = _answers(name, loss, output[None], target[None])
    outputs = torch.stack([output, -output, output.flip(0)])
    together = _answers(name, loss, outputs, torch.stack([target] * len(outputs)))
    for found, expected in zip(together, alone, strict=True):
        if not torch.allclose(found[:1], expected, rtol=_CLOSE, atol=_CLOSE):
            message = f"{name} gives one item another loss beside others. Tell its author."
            raise ExtensionRefused(message)


def _answers(name: str, loss: ItemLoss, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    output = output.clone().requires_grad_()
    try:
        with torch.enable_grad():
            values = loss(output, target)
            (slopes,) = torch.autograd.grad(values.sum(), output)
    except Exception as error:
        message = (
            f"{name} cannot be applied to {len(output)} items at once: {type(error).__name__}: "
            f"{error!s:.300}. Write it with fewer kinds of operations; where it picks by a value, "
            "use a mask: (target * x).sum()."
        )
        raise ExtensionRefused(message) from error
    return values.detach(), slopes


def _loaded(config: RunConfig, use: ExtensionUse) -> Recorded:
    kind: LossExtension[BaseModel] = load(config.extensions, "losses", use.name, LossExtension)
    if config.task.kind not in kind.tasks:
        message = (
            f"training.loss={use.name} does not fit task.kind={config.task.kind}; it is made for "
            f"{', '.join(sorted(kind.tasks))}."
        )
        raise ExtensionRefused(message)
    return partial(kind.loss, checked_arguments(kind.arguments, use, "training.loss.arguments"))


def _check(name: str, pair: list[tuple[Tensor, Tensor]]) -> None:
    (value, slope), (plain, meant) = pair
    if value.shape != () or value.dtype != torch.float32:
        message = (
            f"{name} gives {tuple(value.shape)} of {value.dtype} for one item, expected one "
            "number, (), of torch.float32."
        )
        raise ExtensionRefused(message)
    if not bool(torch.isfinite(value)) or not bool(torch.isfinite(slope).all()):
        message = f"{name}: value or gradient is not finite on an ordinary item."
        raise ExtensionRefused(message)
    close = partial(torch.allclose, rtol=_CLOSE, atol=_CLOSE)
    if not close(value, plain) or not close(slope, meant):
        message = (
            f"{name} does otherwise when it is recorded: a backward pass of its own, a memory or "
            "chance is not. Write it with torch's operations alone."
        )
        raise ExtensionRefused(message)


def _answer(loss: Recorded, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    output = output.clone().requires_grad_()
    value = loss(output, target)
    (slope,) = torch.autograd.grad(value, output)
    return value.detach(), slope
