"""Weights as named tensors: difference, scale, norm, fingerprint, safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from common.platform.durable_files import replace_durably
from common.platform.errors import StateDamaged

Weights = Mapping[str, Tensor]  # name -> tensor on the CPU; never changed in place by a receiver

#: Names of safetensors.
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Return detached views of the parameters that training changes, by name."""
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def load_into(model: nn.Module, weights: Weights) -> None:
    """Copy weights into the model's parameters of the same names and shapes."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)


def difference(after: Weights, before: Weights) -> dict[str, Tensor]:
    """Return after - before for the names of `before`."""
    return {name: after[name] - value for name, value in before.items()}


def on_processor(weights: Weights) -> Weights:
    """Return weights in the processor's memory; those that are there are not copied."""
    return {name: value.cpu() for name, value in weights.items()}


def add_scaled(base: Weights, change: Weights, scale: float = 1.0) -> dict[str, Tensor]:
    """Return base + scale x change; names that `change` lacks stay as they are."""
    return {
        name: torch.add(value, change[name], alpha=scale) if name in change else value
        for name, value in base.items()
    }


def step_onto(change: Mapping[str, Tensor], base: Weights, scale: float = 1.0) -> dict[str, Tensor]:
    """Return base + scale x change in the memory of `change`, to the bits of `add_scaled`.

    For whoever made `change` and needs it no more: a model less in memory.
    """
    return {
        name: torch.add(value, change[name], alpha=scale, out=change[name])
        if name in change
        else value
        for name, value in base.items()
    }


def zeros_like(weights: Weights) -> dict[str, Tensor]:
    """Return zeros of the same names and shapes."""
    return {name: torch.zeros_like(value) for name, value in weights.items()}


def norm(weights: Weights) -> float:
    """Return the L2 norm over all tensors together."""
    squares = (torch.linalg.vector_norm(v, dtype=torch.float64) ** 2 for v in weights.values())
    return float(sum(float(square) for square in squares) ** 0.5)


def fingerprint(weights: Weights) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes, in hex."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def save_weights(path: Path, weights: Weights, metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors so that a crash leaves the old file or the new one, never half."""
    replace_durably(path, safetensors_parts(weights, metadata))


def safetensors_parts(
    weights: Weights, metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """Yield a safetensors file: its header, then the tensors' own memory, in order of name.

    safetensors' `save` takes two more copies of all tensors. Its format:
    https://github.com/huggingface/safetensors#format
    """
    header: dict[str, object] = {"__metadata__": dict(metadata or {})}
    start = 0
    for name in sorted(weights):
        value = weights[name]
        end = start + value.numel() * value.element_size()
        header[name] = {
            "dtype": _DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous().reshape(-1)
        yield values.view(torch.uint8).numpy().data


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read safetensors; StateDamaged names the file when it is missing or broken."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        message = f"Cannot read weights from {path}: {error}. Restore the file or start a new run."
        raise StateDamaged(message) from error
