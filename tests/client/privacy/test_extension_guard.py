"""A network of others that breaks the bound by patient is refused, however it hides it."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from client.privacy.model_guard import check_model
from common.platform.errors import UnsafeModel
from tests.privacy import remembering
from tests.privacy.made_up import Silence, objective_of, patients_of, plan_of, seeded
from tests.privacy.remembering import (
    IN_THE_GRADIENT,
    OUT_OF_REACH,
    PLACES,
    Memory,
    after_calls,
    in_evaluation_alone,
    network_with,
)

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
    Remembers: "remembers",
    RemembersOutside: "remembers",
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


#: No fault: drawing, which starts anew for each patient, and the size of a patient's own batch.
HARMLESS = ("how much was drawn before", "the batch")
REMEMBERED = {
    name: memory
    for name, memory in (PLACES | IN_THE_GRADIENT | OUT_OF_REACH).items()
    if name not in HARMLESS
}


def check_memory_of(memory: Memory) -> None:
    """Raise AssertionError where a network that remembers is let through."""
    try:
        check_model(
            objective_of(network_with(memory), patients_of()), plan_of(), Silence(), foreign=True
        )
    except UnsafeModel as refusal:
        if any(word in str(refusal) for word in WORDS):
            return
        raise
    message = "a network that remembers is let through"
    raise AssertionError(message)


WORDS = ("remembers what it saw", "changes its", "sets ", "seeds ")


@pytest.fixture
def _clean() -> Iterator[None]:
    yield
    vars(torch).pop("seen_by_a_test", None)
    os.environ.pop("SEEN_BY_A_TEST", None)


@pytest.mark.parametrize("place", REMEMBERED)
@pytest.mark.usefixtures("_clean")
def test_a_network_that_remembers_is_refused(place: str) -> None:
    check_memory_of(REMEMBERED[place])


@pytest.mark.parametrize("place", ["a number of the module", *OUT_OF_REACH])
@pytest.mark.usefixtures("_clean")
def test_also_where_it_remembers_in_evaluation_alone_or_late(place: str) -> None:
    check_memory_of(in_evaluation_alone(REMEMBERED[place]))
    check_memory_of(after_calls(REMEMBERED[place], 64))


@pytest.mark.parametrize("place", HARMLESS)
def test_drawing_and_the_size_of_a_batch_of_ones_own_are_no_memory(place: str) -> None:
    objective = objective_of(network_with(PLACES[place]), patients_of())
    check_model(objective, plan_of(), Silence(), foreign=True)


def test_the_trial_leaves_nothing_either() -> None:
    for place in ("a list of the module", "a dict of the class", "the first image alone"):
        network = network_with(PLACES[place])
        with pytest.raises(UnsafeModel):
            check_model(objective_of(network, patients_of()), plan_of(), Silence(), foreign=True)
        assert network.calls == 0
    assert remembering.GLOBAL_LIST == []
    assert remembering.Remembers.shared == {}


class OwnTensor(Tensor):
    """A kind of tensor that could compute as it likes."""


def waits() -> None:
    """Wait a moment, in a thread."""
    time.sleep(0.2)


def odd(change: Callable[[nn.Module], object]) -> nn.Module:
    network = seeded(Small)
    change(network)
    return network


ODD: dict[str, tuple[str, Callable[[nn.Module], object]]] = {
    "a generator that runs": (
        "holds a builtins.generator at body.seen",
        lambda n: setattr(n.body, "seen", (i for i in range(3))),
    ),
    "an open file": ("holds a _io.BytesIO at seen", lambda n: setattr(n, "seen", io.BytesIO())),
    "a tensor of its own kind": (
        "seen is a OwnTensor, expected a torch.Tensor",
        lambda n: n.register_buffer("seen", torch.zeros(1).as_subclass(OwnTensor)),
    ),
    "what cannot be copied": (
        "cannot be copied .TypeError",
        lambda n: setattr(n, "seen", threading.Lock()),
    ),
    "a thread": (
        "starts a thread in a pass",
        lambda n: n.register_forward_hook(lambda *_: threading.Thread(target=waits).start()),
    ),
    "an error in evaluation": (
        "fails where it is tried in evaluation: ZeroDivisionError",
        lambda n: n.register_forward_hook(lambda m, *_: None if m.training else 1 // 0),
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_what_cannot_be_put_back_or_tried_is_refused_by_its_name(what: str) -> None:
    words, change = ODD[what]
    objective = objective_of(odd(change), patients_of())
    with pytest.raises(UnsafeModel, match=words):
        check_model(objective, plan_of(), Silence(), foreign=True)


@pytest.mark.parametrize("kind", [LeaksBehindZeros, HidesInTheGradient])
def test_without_this_guard_it_would_not_be_found(kind: type[nn.Module]) -> None:
    check(kind, foreign=False)
