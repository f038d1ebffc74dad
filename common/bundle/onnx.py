"""ONNX export of a trained network, checked against it."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from common.config.run_config import RunConfig
from common.models import FrozenFeatures, image_shape
from common.platform.errors import RunFailed
from common.platform.freed_memory import no_search_for_garbage
from common.tasks import task_of

#: Largest difference between ONNX and PyTorch, absolute below 1 and relative above (`tolerated`).
TOLERANCE = 1e-4
#: Twice the last digit of a float32; how many times what it changes two right ways may differ.
_LAST_DIGIT, _APART = 2.0**-22, 10.0
OUTPUTS = ("prediction", "output")
_OPSET = 20


class Deployed(nn.Module):
    """The whole way from preprocessed inputs to a prediction, as one module."""

    def __init__(self, network: nn.Module, config: RunConfig) -> None:
        super().__init__()
        self.features = _features(config)
        self.network = copy.deepcopy(network)
        self.task = task_of(config.task)
        self.eval()

    def forward(
        self, image: Tensor | None = None, table: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the prediction that a person reads, and the network's output behind it."""
        output: Tensor = self.network(
            self.features(image) if image is not None else _no_columns(table),
            table if table is not None else _no_columns(image),
        )
        return self.task.predict(output), output

    def of_features(self, features: Tensor, table: Tensor) -> Tensor:
        """Return the network's output of what `self.features` made of images."""
        output: Tensor = self.network(features, table)
        return output


def _features(config: RunConfig) -> nn.Module:
    if config.model.network != "frozen_features":
        return nn.Identity()
    return FrozenFeatures(config.model, image_shape(config.cohort.images), config.extensions)


def _no_columns(beside: Tensor | None) -> Tensor:
    if beside is None:
        message = "A network takes an image, a table, or both; it was given neither."
        raise ValueError(message)
    # A part of the input, not new zeros: an export would fix the device that those are made on.
    return beside.flatten(1)[:, :0]


def example_inputs(config: RunConfig, items: int, seed: int = 0) -> dict[str, Tensor]:
    """Return random inputs by the names and shapes that the exported network takes."""
    generator = torch.Generator().manual_seed(seed)
    images, table = config.cohort.images, config.cohort.table
    inputs = {}
    if images is not None:
        shape = (items, images.input_channels, *images.size)
        inputs["image"] = torch.rand(shape, generator=generator)
    if table is not None:
        inputs["table"] = torch.rand(items, table.width, generator=generator)
    return inputs


def onnx_of(network: nn.Module, config: RunConfig) -> bytes:
    """Return the network as ONNX with any number of items; RunFailed if it computes otherwise."""
    deployed = Deployed(network, config)
    inputs = example_inputs(config, items=2)
    # Without gradients there is half as much to trace.
    deployed.requires_grad_(requires_grad=False)
    with _quiet(), torch.no_grad(), no_search_for_garbage():
        content = _exported(deployed, inputs)
    # One item and several: a batch size that was fixed by mistake is seen here.
    for items in (1, 3):
        _check(content, deployed, example_inputs(config, items, seed=items))
    return content


def _exported(deployed: Deployed, inputs: Mapping[str, Tensor]) -> bytes:
    items = torch.export.Dim("items")
    program = torch.onnx.export(
        deployed,
        (),
        kwargs=dict(inputs),
        input_names=list(inputs),
        output_names=list(OUTPUTS),
        dynamic_shapes={name: {0: items} for name in inputs},
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        message = "torch.onnx.export returned no program; the network was not exported."
        raise RunFailed(message)
    proto = program.model_proto
    for node in proto.graph.node:
        # The exporter notes the source lines of this machine beside every node.
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _check(content: bytes, deployed: Deployed, inputs: Mapping[str, Tensor]) -> None:
    """Refuse an export whose answers differ from the network's own."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(list(OUTPUTS), {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        expected = deployed(**inputs)
    largest = tolerated(deployed, inputs)
    for name, ours, theirs in zip(OUTPUTS, expected, found, strict=True):
        worst = difference(ours.numpy(), np.asarray(theirs))
        if not worst <= largest:
            message = (
                f"model.onnx computes another {name} than the trained network: they differ by"
                f" {worst:.2g}, expected at most {largest:.2g}. The bundle was not written."
            )
            raise RunFailed(message)


def tolerated(deployed: Deployed, inputs: Mapping[str, Tensor]) -> float:
    """Return how far apart two right computations of these answers may be, as `difference` does.

    TOLERANCE; or more where weights are so large (the noise of privacy makes them so) that the
    inputs' last digits change the network's output by more than a tenth of it.
    """
    generator = torch.Generator().manual_seed(0)

    def moved(value: Tensor) -> Tensor:
        sign = torch.randint(0, 2, value.shape, generator=generator) * 2 - 1
        return value * (1 + sign * _LAST_DIGIT)

    with torch.no_grad():
        output = deployed(**inputs)[1]
        other = deployed(**{name: moved(value) for name, value in inputs.items()})[1]
    return max(TOLERANCE, _APART * difference(output.numpy(), other.numpy()))


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return how far an export's answers are off: absolute below 1, relative above."""
    if ours.shape != theirs.shape:
        return float("inf")
    if ours.dtype == np.uint8:
        # A label map: the part of voxels that fell on the other side of a tie.
        return float(np.mean(ours != theirs)) * TOLERANCE / _TIES
    scale = np.maximum(1.0, np.abs(ours))
    return float(np.max(np.abs(ours - theirs) / scale, initial=0.0))


#: Part of a label map's voxels that may differ: logits equal to rounding.
_TIES = 1e-3


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about itself (torchvision, its own deprecations) off the screen."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
