"""First weights from a public file, and which part of the network is trained from there.

    the head                  drawn from the seed, as ever
    BatchNorm                 becomes the affine map that it is with the file's statistics, so the
                              network computes what its authors' did, one item at a time
    three channels in, one    the kernels are added: a grey image is the same in each colour
    one channel in, three     each has a third of the kernel
    tensors of no layer here  passed over (the authors' own head, counters)
    a layer without a tensor  refused
    two tensors of one layer  refused: nobody says which of them is meant
    whole or complex numbers  refused, as is what is not finite in float32

The map from a file's names to ours is a table of what their authors publish; where a name or a
shape does not fit, the file is refused, so that no layer begins from chance unnoticed.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from common.config.run_config import Model
from common.config.start_weights import LastBlocks, StartWeights
from common.data.weight_files import weight_bytes
from common.platform.errors import ConfigurationError

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_EXAMPLES = 3

File = Mapping[str, Tensor]


class ChannelAffine(nn.Module):
    """x * scale + shift by channel: BatchNorm in evaluation, with its statistics folded in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Not weight and bias: a norm's of these names are no substitute.
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, values: Tensor) -> Tensor:
        """Return (items, channels, ...) of the same."""
        shape = (1, -1, *[1] * (values.dim() - 2))
        return values * self.scale.reshape(shape) + self.shift.reshape(shape)


def fold_norms(network: nn.Module, model: Model) -> Mapping[str, float]:
    """Put ChannelAffine in place of every BatchNorm; returns their epsilons by name.

    Nothing is done where the network begins from no file, or from one of a network of ours.
    """
    if model.start is None or model.start.names == "wardround":
        return {}
    found = {n: m for n, m in network.named_modules() if isinstance(m, _BATCH_NORMS)}
    for name, norm in found.items():
        network.set_submodule(name, ChannelAffine(norm.num_features))
    return {name: norm.eps for name, norm in found.items()}


def begin(network: nn.Module, model: Model, norms: Mapping[str, float], *, read: bool) -> None:
    """Fill a network with a file's weights if `read`, and let `model.train` alone be trained.

    `norms` are those of `fold_norms`. ConfigurationError where the file is not there, has other
    bytes, or does not fit.
    """
    start = model.start
    if start is None:
        return
    if read:
        content, ending = weight_bytes(start.sha256)
        _fill(network, start, _renamed(start, _tensors(start, content, ending)), norms)
    _freeze(network, model)


# --- the file ----------------------------------------------------------------------------


def _tensors(start: StartWeights, content: bytes, ending: str) -> File:
    """Return a file's tensors by its own names; no code of a file is run."""
    import safetensors.torch

    try:
        if ending == ".safetensors":
            return safetensors.torch.load(content)
        held: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none makes of it
        why = str(error).strip().partition("\n")[0][:200]
        if isinstance(error, pickle.UnpicklingError):
            why = "it holds code or other objects beside tensors, which are never loaded"
        message = (
            f"The file {start.sha256} holds no weights that can be read: {why}. Save its tensors "
            "as safetensors."
        )
        raise ConfigurationError(message) from error
    for within in ("state_dict", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(within), Mapping):
            held = held[within]
    if not isinstance(held, Mapping):
        message = f"The file {start.sha256} holds a {type(held).__name__}, expected named tensors."
        raise ConfigurationError(message)
    return {str(name): value for name, value in held.items() if isinstance(value, Tensor)}


def _numbers(start: StartWeights, name: str, value: Tensor) -> Tensor:
    """Return a layer's tensor in float64, in which it is folded and brought to its shape."""
    plain = value.layout is torch.strided and not value.is_quantized and value.is_floating_point()
    if not plain:
        kind = str(value.dtype if value.layout is torch.strided else value.layout)
        message = (
            f"{name} of the file {start.sha256} is {kind.removeprefix('torch.')}, expected plain "
            "floating numbers."
        )
        raise ConfigurationError(message)
    return value.to(torch.float64)


def _renamed(start: StartWeights, held: File) -> File:
    rename, found = _RENAMED[start.names], dict[str, str]()
    for name in held:
        before = found.setdefault(rename(name), name)
        if before != name:
            message = (
                f"The file {start.sha256} has two tensors of one layer, {before} and {name}, by "
                f"start.names={start.names}: it is of another kind, or was put together wrongly."
            )
            raise ConfigurationError(message)
    return {ours: held[name] for ours, name in found.items()}


def _in_body(rename: Callable[[str], str]) -> Callable[[str], str]:
    return lambda name: f"body.{rename(name)}"


def _of_torchvision(name: str) -> str:
    # MONAI's DenseNet keeps a layer's parts in a Sequential of their own.
    return re.sub(r"(denselayer\d+)\.(norm|conv)", r"\1.layers.\2", name)


#: Radiology's networks are a Sequential of torchvision's children (RadImageNet's notebooks).
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def _of_radimagenet(name: str) -> str:
    own = name.removeprefix("module.").removeprefix("backbone.")
    first, _, rest = own.partition(".")
    if first == "0" and re.match(r"(conv0|norm\d|denseblock\d|transition\d)\.", rest):
        return _of_torchvision(f"features.{rest}")
    return _of_torchvision(f"{_CHILDREN.get(first, first)}.{rest}")


def _of_swin_unetr(name: str) -> str:
    own = name.removeprefix("module.")
    return "swinViT." + own.replace("mlp.fc1", "mlp.linear1").replace("mlp.fc2", "mlp.linear2")


def _of_open_clip(name: str) -> str:
    # The text encoder and the projection keep their names, which fit no layer here.
    return name.removeprefix("visual.trunk.")


_RENAMED: Mapping[str, Callable[[str], str]] = {
    "torchvision": _in_body(_of_torchvision),
    "radimagenet": _in_body(_of_radimagenet),
    "medicalnet": _in_body(lambda name: name.removeprefix("module.")),
    "swin_unetr_ssl": _in_body(_of_swin_unetr),
    "monai": _in_body(lambda name: name.removeprefix("module.")),
    "dinov2": _in_body(lambda name: name),
    "biomedclip": _in_body(_of_open_clip),
    "wardround": lambda name: name,
}


# --- into the network --------------------------------------------------------------------


def _fill(network: nn.Module, start: StartWeights, held: File, norms: Mapping[str, float]) -> None:
    wanted = dict(_wanted(network, start))
    taken: dict[str, Tensor] = {}
    missing: list[str] = []
    for name in wanted:
        place, _, part = name.rpartition(".")
        parts = _NORM_PARTS if place in norms else (name.rpartition(".")[2],)
        found = [_found(held, f"{place}.{one}") for one in parts]
        if any(one is None for one in found):
            missing.append(name)
            continue
        values = [_numbers(start, name, one) for one in found if one is not None]
        taken[name] = _folded(values, part, norms[place]) if place in norms else values[0]
    if missing:
        some = ", ".join(missing[:_EXAMPLES])
        message = (
            f"The file {start.sha256} lacks {len(missing)} of {len(wanted)} tensors of the network "
            f"({some}): it is of another network, or start.names={start.names} is not whose names "
            "it has."
        )
        raise ConfigurationError(message)
    with torch.no_grad():
        for name, value in taken.items():
            wanted[name].copy_(_fitting(start, name, value, wanted[name]))


def _wanted(network: nn.Module, start: StartWeights) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters that a file must have: those of the body, or of its encoder."""
    part = "body.swinViT." if start.names == "swin_unetr_ssl" else "body."
    for name, value in network.named_parameters():
        if name.startswith(part) and "cross_attn" not in name:  # of ViT: used by none
            yield name, value


def _found(held: File, name: str) -> Tensor | None:
    # ViTFeatures keeps MONAI's network in itself.
    found = held.get(name, held.get(name.replace("body.network.", "body.", 1)))
    if found is None and name.endswith("downsample.0.bias"):
        # MONAI gives this convolution a bias, which nobody else has.
        kernel = held.get(name.removesuffix("bias") + "weight")
        return None if kernel is None else torch.zeros(len(kernel))
    return found


#: What makes a BatchNorm's map, in the order in which it is folded.
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def _folded(parts: list[Tensor], part: str, epsilon: float) -> Tensor:
    """Return scale or shift of a BatchNorm (Ioffe & Szegedy 2015, algorithm 2, lines 10 to 11)."""
    weight, bias, mean, variance = parts
    scale = weight / torch.sqrt(variance + epsilon)
    return scale if part == "scale" else bias - mean * scale


def _fitting(start: StartWeights, name: str, found: Tensor, wanted: Tensor) -> Tensor:
    """Return a tensor in the shape of the network's; finite, whatever kind of float it was."""
    value = found
    if value.shape != wanted.shape and value.shape[:1] + value.shape[2:] == (
        wanted.shape[:1] + wanted.shape[2:]
    ):
        held, asked = value.shape[1], wanted.shape[1]
        if (held, asked) == (3, 1):
            value = value.sum(dim=1, keepdim=True)
        elif (held, asked) == (1, 3):
            value = value.expand(wanted.shape) / 3
    if value.shape != wanted.shape:
        message = (
            f"{name} is {tuple(found.shape)} in the file {start.sha256}, and "
            f"{tuple(wanted.shape)} in the network: check model.network, model.width and "
            "cohort.images (2-D or 3-D, channels, size)."
        )
        raise ConfigurationError(message)
    value = value.to(wanted.dtype)
    if not bool(torch.isfinite(value).all()):
        message = (
            f"{name} of the file {start.sha256} has values that are not numbers, or are too large."
        )
        raise ConfigurationError(message)
    return value


# --- what is trained ---------------------------------------------------------------------


def _freeze(network: nn.Module, model: Model) -> None:
    """Let nothing of the body be trained but what `model.train` names."""
    if model.train == "all":
        return
    last = model.train.last_blocks if isinstance(model.train, LastBlocks) else 0
    blocks = _blocks(network, model) if last else []
    if last >= len(blocks) > 0:
        message = (
            f"model.train.last_blocks={last} is all of the {len(blocks)} blocks of {model.network}:"
            " write train: all."
        )
        raise ConfigurationError(message)
    trained = {f"body.{name}" for block in blocks[len(blocks) - last :] for name in block}
    for name, value in network.named_parameters():
        if name.startswith("body."):
            inside = any(name.startswith(f"{place}.") for place in trained)
            value.requires_grad_(value.requires_grad and inside)


def _blocks(network: nn.Module, model: Model) -> list[list[str]]:
    """Return the blocks of a body in the order of the forward pass, as names of its modules.

    The first convolution belongs to none; a norm after the last block belongs to the last.
    """
    match model.network:
        case "resnet18" | "resnet50":
            return [["layer1"], ["layer2"], ["layer3"], ["layer4"]]
        case "densenet121":
            found = [[f"features.denseblock{n}", f"features.transition{n}"] for n in (1, 2, 3)]
            return [*found, ["features.denseblock4", "features.norm5"]]
        case "efficientnet_b0":
            return _row(network, "_blocks", ["_conv_head", "_bn1"])
        case _:
            return _row(network, "network.blocks", ["network.norm"])


def _row(network: nn.Module, place: str, ends: list[str]) -> list[list[str]]:
    found = [[f"{place}.{n}"] for n, _ in network.get_submodule(f"body.{place}").named_children()]
    return [*found[:-1], [*found[-1], *ends]]
