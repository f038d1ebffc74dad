"""Network of an extension, built and tried out before anything relies on it."""

from __future__ import annotations

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from common.config.parts.extension import ExtensionUse
from common.config.run_config import RunConfig
from common.extensions.contract import NetworkExtension, NetworkShapes
from common.extensions.foreign_code import refusing
from common.extensions.loading import checked_arguments, load
from common.extensions.metrics import check_metrics
from common.extensions.seeded import built_twice
from common.extensions.transforms import transforms_of
from common.models.build import finished
from common.platform.errors import ExtensionRefused
from common.tasks import task_of
from common.tasks.extension_classes import encoding_task
from common.tasks.loss_choice import training_loss

#: Sizes of the batches that a network is tried with.
_TRIALS = (1, 2)


def foreign_network(config: RunConfig, outputs: int, seed: int) -> nn.Module:
    """Return the network that an extension builds; ExtensionRefused unless it keeps the contract.

    Built twice, as coordinator and sites do, it is the same to the bit; it takes batches of any
    size; its parameters are finite and in float32. The global generator is left as it was.
    """
    name = config.model.network
    extension: NetworkExtension[BaseModel] = load(
        config.extensions, "networks", name, NetworkExtension
    )
    shapes = _shapes(config, outputs)
    _check_takes(extension, config, shapes)
    use = ExtensionUse(name=name, arguments=config.model.arguments)
    arguments = checked_arguments(extension.arguments, use, "model.arguments")
    built = built_twice(name, lambda: extension.build(arguments, shapes), seed)
    network, again = (finished(one) for one in built)
    _check_values(name, network)
    expected = (outputs, *shapes.size) if config.task.outlines else (outputs,)
    _check_outputs(name, again, shapes, expected)
    return network


def check_extensions(config: RunConfig) -> None:
    """Refuse a task, loss, transform or metric that does not keep its contract: ExtensionRefused.

    Before a run begins, so that it does not end by it.
    """
    check_metrics(config)
    transforms_of(config)
    task = task_of(config.task)
    training_loss(config, task)
    encoding_task(config, task)


def _shapes(config: RunConfig, outputs: int) -> NetworkShapes:
    images, table = config.cohort.images, config.cohort.table
    return NetworkShapes(
        channels=0 if images is None else images.input_channels,
        size=() if images is None else tuple(images.size),
        columns=0 if table is None else table.width,
        outputs=outputs,
    )


def _check_takes(
    extension: NetworkExtension[BaseModel], config: RunConfig, shapes: NetworkShapes
) -> None:
    name, kind = config.model.network, config.task.network_kind
    if kind not in extension.tasks:
        message = (
            f"model.network={name} does not fit task.kind={config.task.kind}; it is made for "
            f"{', '.join(sorted(extension.tasks))}."
        )
        raise ExtensionRefused(message)
    near = [extension.size.nearest(side) for side in shapes.size]
    if near != list(shapes.size):
        message = (
            f"cohort.images.size={list(shapes.size)} does not fit {name}: every side must be a "
            f"multiple of {extension.size.multiple} and at least {extension.size.smallest}. "
            f"Nearest: {near}"
        )
        raise ExtensionRefused(message)


def _check_values(name: str, network: nn.Module) -> None:
    parameters = dict(network.named_parameters())
    if not any(p.requires_grad for p in parameters.values()):
        message = f"{name} has no parameter that is trained. Tell its author."
        raise ExtensionRefused(message)
    for place, value in parameters.items():
        if value.dtype != torch.float32 or not bool(torch.isfinite(value).all()):
            message = (
                f"{name}: parameter {place} is {value.dtype} with values that are "
                f"{'' if bool(torch.isfinite(value).all()) else 'not '}finite, expected finite "
                "torch.float32. Tell its author."
            )
            raise ExtensionRefused(message)


def _check_outputs(
    name: str, network: nn.Module, shapes: NetworkShapes, expected: tuple[int, ...]
) -> None:
    for items in _TRIALS:
        image = torch.zeros((items, *((shapes.channels, *shapes.size) if shapes.size else (0,))))
        table = torch.zeros((items, shapes.columns))
        takes = f"an image {tuple(image.shape)} and a table {tuple(table.shape)}"
        called = refusing(f"{name} does not take {takes}")
        with called, torch.random.fork_rng(devices=[]), torch.no_grad():
            output: object = network(image, table)
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if shape != (items, *expected):
            message = f"{name} gives {shape} for {items} items, expected {(items, *expected)}."
            raise ExtensionRefused(message)
