"""Building of an extension's network from a seed: the same bits wherever it is built.

Public: built_twice.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.extensions.foreign_code import refusing
from common.extensions.global_state import left_alone
from common.platform.errors import ExtensionRefused


def built_twice(name: str, build: Callable[[], object], seed: int) -> tuple[nn.Module, nn.Module]:
    """Return a network and one like it; ExtensionRefused if they are not the same to the bit.

    The global generator is left as it was.
    """
    (network, one), (again, two) = _built(name, build, seed), _built(name, build, seed)
    differ = [n for n in one.keys() | two.keys() if not _equal(one.get(n), two.get(n))]
    if differ:
        message = (
            f"{name} builds another network from the same seed: {min(differ)} differs. It may draw "
            "from torch's global generator alone. Tell its author."
        )
        raise ExtensionRefused(message)
    return network, again


def _built(
    name: str, build: Callable[[], object], seed: int
) -> tuple[nn.Module, dict[str, object]]:
    """Return a network and what it holds."""
    built = refusing(f"{name} cannot be built")
    with built, left_alone(name), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = build()
        held = network.state_dict() if isinstance(network, nn.Module) else {}
    if not isinstance(network, nn.Module):
        message = f"{name} builds {type(network).__name__}, expected a torch.nn.Module."
        raise ExtensionRefused(message)
    return network, held


def _equal(one: object, two: object) -> bool:
    return isinstance(one, Tensor) and isinstance(two, Tensor) and torch.equal(one, two)
