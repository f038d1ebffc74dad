"""Networks that compute the insides of their blocks again in the backward pass.

With `model.checkpoint`. Between the passes a block keeps what entered it, and nothing else: less
memory, more time, the same gradients. Dropout draws the same again. Chen et al. 2016, section 3,
as torch does it (`torch.utils.checkpoint`, non-reentrant).

Public: recompute.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from common.models.small_cnn import SmallCnn
from common.platform.errors import ConfigurationError

#: Blocks of MONAI's networks, by the names of their classes: MONAI need not be loaded for it.
_BLOCKS = frozenset({
    "ResNetBlock",
    "ResNetBottleneck",
    "_DenseLayer",
    "MBConvBlock",
    "TransformerBlock",
    "ResidualUnit",
    "ResBlock",
    "UnetResBlock",
    "UnetUpBlock",
    "SwinTransformerBlock",
    "UnetrBasicBlock",
    "UnetrUpBlock",
})  # fmt: skip


def recompute(network: nn.Module) -> None:
    """Let each block of a network be computed again; names and weights stay as they are.

    ConfigurationError where it has none.
    """
    blocks = list(_outermost(network))
    if not blocks:
        message = (
            f"model.checkpoint computes blocks of a network again, and {type(network).__name__} has"
            " none that are known; remove it."
        )
        raise ConfigurationError(message)
    for block in blocks:
        _swap(block)


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """Yield blocks that lie in no other block."""
    if isinstance(module, SmallCnn):
        yield from module.levels
        return
    for child in module.children():
        if type(child).__name__ in _BLOCKS:
            yield child
        else:
            yield from _outermost(child)


def _swap(block: nn.Module) -> None:
    kind: type[nn.Module] = type(block)

    class Recomputed(kind):  # type: ignore[misc, valid-type]  # the block's own class
        """A block whose insides are forgotten until the backward pass."""

        def forward(self, *entered: object) -> object:
            """Return what the block gives."""
            own = functools.partial(kind.forward, self)
            if not torch.is_grad_enabled():
                return own(*entered)
            return checkpoint(own, *entered, use_reentrant=False)

    block.__class__ = Recomputed
