"""A network of others that breaks the bound by patient is refused, however it hides it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from client.privacy.model_guard import check_model
from common.platform.errors import UnsafeModel
from tests.privacy.made_up import Silence, objective_of, patients_of, plan_of, seeded

_KEPT: list[Tensor] = []


class Small(nn.Module):
    """A network by item; subclasses put a fault in."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 1)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        del table
        answer: Tensor = self.head(self.features(image))
        return answer

    def features(self, image: Tensor) -> Tensor:
        found: Tensor = self.body(image).relu().mean((2, 3))
        return found


class LeaksAMean(Small):
    def features(self, image: Tensor) -> Tensor:
        found = super().features(image)
        return found + 1e-3 * found.mean(0, keepdim=True)


class LeaksBehindZeros(LeaksAMean):
    """Its output layer is 0, so that no output shows it."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.head.weight)


class Remembers(Small):
    """Keeps a mean in a plain attribute, which is no buffer."""

    seen: Tensor | None = None

    def features(self, image: Tensor) -> Tensor:
        found = super().features(image)
        seen = found.detach().mean() if self.seen is None else 0.9 * self.seen
        self.seen = seen
        return found * (1 + seen)


class RemembersOutside(Small):
    """Keeps what it saw in a global."""

    def features(self, image: Tensor) -> Tensor:
        found = super().features(image)
        _KEPT.append(found.detach().mean())
        return found * (1 + torch.stack(_KEPT).mean())


class StartsFromTheData(Small):
    """Sets a weight from the first images, as ActNorm does."""

    def features(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            self.head.bias.copy_(image.mean().reshape(1))
        return super().features(image)


class DividesByNothing(Small):
    def features(self, image: Tensor) -> Tensor:
        return super().features(image / image.std((2, 3), keepdim=True))


class GradientFollows(torch.autograd.Function):
    """The same answer for each item, and a gradient that the largest of the batch scales."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, image: Tensor) -> Tensor:
        ctx.scale = image.abs().max()  # type: ignore[attr-defined]
        return image.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *given: Tensor) -> Tensor:
        return given[0] * ctx.scale  # type: ignore[attr-defined, no-any-return]


class HidesInTheGradient(Small):
    def features(self, image: Tensor) -> Tensor:
        found: Tensor = GradientFollows.apply(super().features(image))
        return found


FAULTS = {
    LeaksAMean: "beside other items",
    LeaksBehindZeros: "beside other items",
    Remembers: "another answer beside|remembers",
    RemembersOutside: "another answer beside|remembers",
    StartsFromTheData: "changes its parameter head.bias",
    DividesByNothing: "is not finite",
    HidesInTheGradient: "another gradient",
}


def check(kind: type[nn.Module], *, foreign: bool = True) -> None:
    _KEPT.clear()
    objective = objective_of(seeded(kind), patients_of())
    check_model(objective, plan_of(), Silence(), foreign=foreign)


def test_a_network_by_item_passes() -> None:
    check(Small)


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_a_fault_is_found(kind: type[nn.Module]) -> None:
    with pytest.raises(UnsafeModel, match=FAULTS[kind]):
        check(kind)


@pytest.mark.parametrize("kind", [LeaksBehindZeros, HidesInTheGradient])
def test_without_this_guard_it_would_not_be_found(kind: type[nn.Module]) -> None:
    check(kind, foreign=False)
