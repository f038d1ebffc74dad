"""TorchScript export of a trained network and the way to its input.

PyTorch calls TorchScript deprecated and still loads it; it is what a MONAI Bundle's `model.ts`
is. Its archive is read by PyTorch's own restricted reader, which makes tensors and lists and
calls nothing, so that no pickle is opened in Python.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from common.bundle.onnx import Deployed, difference, example_inputs, tolerated
from common.bundle.preparation import Preparation
from common.config.run_config import Images, RunConfig
from common.platform.errors import RunFailed


class _Answers(nn.Module):
    """A network as MONAI's runner calls it: inputs by position, one prediction."""

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.deployed = deployed

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the prediction that a person reads; for outlines the output, a channel a label."""
        prediction, output = self.deployed(*_both(inputs))
        return _answer(prediction, output)

    def output(self, *inputs: Tensor) -> Tensor:
        """Return the network's output, whose mean over a patient's items is the patient's."""
        output: Tensor = self.deployed(*_both(inputs))[1]
        return output

    def predict(self, output: Tensor) -> Tensor:
        """Return the prediction of an output, such as the mean over a patient's items."""
        return self.deployed.task.predict(output)


class _Patches(nn.Module):
    """A network on patches that refuses other sizes: its norms would see another mean."""

    def __init__(self, traced: torch.jit.ScriptModule, patch: list[int]) -> None:
        super().__init__()
        self.traced = traced
        self.patch = patch

    def forward(self, image: Tensor) -> Tensor:
        """Return the output, a channel a label."""
        return self.output(image)

    @torch.jit.export
    def output(self, image: Tensor) -> Tensor:
        """Return the output; an error where the image is no patch."""
        if list(image.shape[2:]) != self.patch:
            # TorchScript takes no message from a variable.
            raise ValueError(f"Got {image.shape[2:]}, expected patches of {self.patch}")  # noqa: EM102
        found: Tensor = self.traced.output(image)
        return found

    @torch.jit.export
    def predict(self, output: Tensor) -> Tensor:
        """Return the labels of an output."""
        found: Tensor = self.traced.predict(output)
        return found


def _answer(prediction: Tensor, output: Tensor) -> Tensor:
    return output if output.dim() > 2 else prediction


def _both(inputs: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Return image and table of what was given by position; a table alone has two axes."""
    if len(inputs) == 2:
        return inputs[0], inputs[1]
    (only,) = inputs
    return (None, only) if only.dim() == 2 else (only, None)


def torchscript_of(network: nn.Module, config: RunConfig) -> bytes:
    """Return model.ts: the prediction, `output` behind it, and `predict` from one to the other.

    For outlines the module's call gives the output, (items, labels, *size), as MONAI's own networks
    do, so that labels can be found on the image's own grid.
    RunFailed if it computes otherwise than the network.
    """
    deployed = Deployed(network, config)
    inputs = tuple(example_inputs(config, items=2).values())
    with quiet(), torch.no_grad():
        methods = {"forward": inputs, "output": inputs, "predict": deployed(*_both(inputs))[1:]}
        traced = torch.jit.trace_module(  # type: ignore[no-untyped-call]
            _Answers(deployed), methods, check_trace=False
        )
        images = config.cohort.images
        if images is not None and images.patch is not None:
            traced = torch.jit.script(_Patches(traced, list(images.patch)).eval())
        content = _archive(traced)
        loaded = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    # One item and several: a batch size that was fixed by mistake is seen here.
    for items in (1, 3):
        _check(loaded, deployed, example_inputs(config, items, seed=items))
    return content


def preparation_of(images: Images) -> bytes:
    """Return preparation.ts: from an image as MONAI loads it to the network's input."""
    with quiet():
        return _archive(torch.jit.script(Preparation(images).eval()))


def _archive(module: torch.jit.ScriptModule) -> bytes:
    """Return TorchScript's archive without its debug records: they name this machine's files."""
    whole = io.BytesIO()
    torch.jit.save(module, whole)
    kept = io.BytesIO()
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(kept, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                # Nor the time of writing.
                target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry))
    return kept.getvalue()


def _check(
    loaded: torch.jit.ScriptModule, deployed: Deployed, inputs: Mapping[str, Tensor]
) -> None:
    """Refuse an export whose answers differ from the network's own."""
    given, largest = tuple(inputs.values()), tolerated(deployed, inputs)
    with quiet(), torch.no_grad():
        prediction, output = deployed(**inputs)
        pairs = (
            ("answer", _answer(prediction, output), loaded(*given)),
            ("output", output, loaded.output(*given)),
            ("prediction of an output", prediction, loaded.predict(output)),
        )
    for name, ours, theirs in pairs:
        worst = difference(ours.numpy(), theirs.numpy())
        if not worst <= largest:
            message = (
                f"model.ts computes another {name} than the trained network: they differ by"
                f" {worst:.2g}, expected at most {largest:.2g}. The bundle was not written."
            )
            raise RunFailed(message)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch's notes about TorchScript (deprecated, traced) off the screen."""
    log = logging.getLogger("torch.jit")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
