"""The loss that a run is trained by: the task's own, or an extension's, item by item.

Guarantee: an extension's loss is a record of operations on one item's output and target
(common/extensions/recorded.py), applied to each item alone: no item's loss depends on another's,
nor on what came before.

Public: training_loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from pydantic import BaseModel
from torch import Tensor

from common.config.extension import ExtensionUse
from common.config.run_config import RunConfig
from common.extensions.contract import LossExtension
from common.extensions.loading import checked_arguments, load
from common.extensions.recorded import Recorded, recorded
from common.platform.errors import ExtensionRefused
from common.tasks.task import Task, at_least_float32

#: Of output (items, ...) and target (items, ...): one loss an item, (items,).
ItemLoss = Callable[[Tensor, Tensor], Tensor]
_CLOSE = 1e-4


def training_loss(config: RunConfig, task: Task) -> ItemLoss:
    """Return the loss to train by; ExtensionRefused unless an extension's keeps the contract."""
    use = config.training.loss
    return task.item_loss if use is None else _Recorded(use.name, _record_of(config, task, use))


class _Recorded:
    """A record, applied to each item alone; nothing of the extension's code is held by it."""

    def __init__(self, name: str, record: Recorded) -> None:
        self._name = name
        self._each = torch.func.vmap(record)

    def __repr__(self) -> str:
        return f"The loss {self._name}"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return self._each(at_least_float32(output), target)


def _record_of(config: RunConfig, task: Task, use: ExtensionUse) -> Recorded:
    """Record the loss of a made-up item as the task and the cohort make it, and try the record."""
    loss, images = _loaded(config, use), config.cohort.images
    # Nobody's: no label, no structure, an end that was not seen.
    target = torch.from_numpy(task.blank_target(() if images is None else tuple(images.size)))
    spatial = target.shape if config.task.outlines else ()
    output = torch.randn((task.logits, *spatial), generator=torch.Generator().manual_seed(0))
    found = recorded(use.name, loss, (output, target))
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            pair = [_answer(function, output, target) for function in (found, loss)]
    except Exception as error:
        message = f"{use.name} fails: {type(error).__name__}: {error!s:.300}"
        raise ExtensionRefused(message) from error
    _check(use.name, pair)
    return found


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
