"""Networks that remember what they saw, each in another place, and checks that nothing comes of it.

Each answers otherwise once it has seen a loud image. A check raises where that reaches others.
"""

from __future__ import annotations

import contextvars
import functools
import os
import random
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from client.privacy.patient_gradients import LOOP, gradients_by_patient
from client.privacy.patient_sampling import draw
from client.training.evaluation import score
from client.training.local_model import LocalModel
from common.data.sample import Patients
from tests.privacy.made_up import (
    Silence,
    binary_loss,
    objective_of,
    patients_of,
    seeded,
    with_images,
    without,
)

#: Means of images above this are loud.
LOUD = 10.0

GLOBAL_LIST: list[float] = []
GLOBAL_NUMBER = 0.0
OF_A_THREAD = threading.local()
CONTEXT = contextvars.ContextVar("CONTEXT", default=0.0)


class Held:
    """An object with a slot and without attributes."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen = 0.0


class Remembers(nn.Module):
    """A network by item that has many places where something could be kept."""

    shared: dict[str, float] = {}  # noqa: RUF012 - a fault, on purpose
    on_the_class = 0.0

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory
        self.body = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 1)
        self.register_buffer("buffer", torch.zeros(()))
        self.fixed = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.attribute = 0.0
        # Two values in one place, of which the network holds a view.
        both = torch.zeros(2)
        self.view, self.beside = both[:1], both[1:]
        self.wide = torch.zeros(1).expand(3)
        self.sparse = torch.eye(2).to_sparse()
        self.weak: weakref.WeakKeyDictionary[nn.Module, float] = weakref.WeakKeyDictionary()
        self.row: list[float] = []
        self.inside = {"deep": [SimpleNamespace(seen=0.0)]}
        self.slot = Held()
        self.array = np.zeros(2)
        self.calls = self.items = 0
        self.torch_draws = torch.Generator()
        self.numpy_draws = np.random.default_rng(0)
        self.python_draws = random.Random(0)
        self.enclosed, self.recalled = _closure()

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return one logit an item."""
        del table
        self.calls += 1
        self.items = len(image)
        scale = 1 + 3 * float(self.memory.recall(self))
        found: Tensor = self.head(self.body(image).relu().mean((2, 3))) * scale
        self.memory.keep(self, float(image.detach().abs().mean()))
        return found


class OtherClass(Remembers):
    """What a network makes of itself."""


class Memory(NamedTuple):
    """A place: how it is written, with the mean of the images, and how it is read."""

    keep: Callable[[Remembers, float], object]
    recall: Callable[[Remembers], float]


def _closure() -> tuple[Callable[[float], None], Callable[[], float]]:
    seen = 0.0

    def keep(value: float) -> None:
        nonlocal seen
        seen = value

    return keep, lambda: seen


def _default(value: float | None = None, seen: list[float] = []) -> float:  # noqa: B006 - a fault, on purpose
    if value is not None:
        seen.append(value)
    return sum(seen)


@functools.lru_cache
def _cached(_name: str) -> list[float]:
    return []


def _to_global(value: float) -> None:
    global GLOBAL_NUMBER  # noqa: PLW0603 - a fault, on purpose
    GLOBAL_NUMBER = value


def _no_recall(_network: Remembers) -> float:
    return 0.0


def _louder(_module: nn.Module, _given: object, output: Tensor) -> Tensor:
    return output * 3


def _hook_of_all(network: Remembers, value: float) -> None:
    if value > LOUD:
        nn.modules.module.register_module_forward_hook(_louder)
    del network


def _double_dtype(_network: Remembers, value: float) -> None:
    torch.set_default_dtype(torch.float64 if value > LOUD else torch.float32)


def _enter_mode(_network: Remembers, value: float) -> None:
    if value > LOUD:
        torch.device("cpu").__enter__()


#: Where something is kept inside the network.
INSIDE: dict[str, Memory] = {
    "an attribute": Memory(lambda n, v: setattr(n, "attribute", v), lambda n: n.attribute),
    "the first image alone": Memory(
        lambda n, v: setattr(n, "attribute", n.attribute or v), lambda n: n.attribute
    ),
    "a list that counts when it is full": Memory(
        lambda n, v: n.row.append(v), lambda n: sum(n.row) if len(n.row) >= 3 else 0.0
    ),
    "an object in a list in a dict": Memory(
        lambda n, v: setattr(n.inside["deep"][0], "seen", v), lambda n: n.inside["deep"][0].seen
    ),
    "a slot": Memory(lambda n, v: setattr(n.slot, "seen", v), lambda n: n.slot.seen),
    "an array": Memory(lambda n, v: n.array.fill(v), lambda n: float(n.array.sum())),
    "a buffer": Memory(lambda n, v: n.buffer.fill_(v), lambda n: float(n.buffer)),
    "a new buffer": Memory(
        lambda n, v: n.register_buffer("buffer", torch.tensor(v)), lambda n: float(n.buffer)
    ),
    "a parameter in place": Memory(
        lambda n, v: n.head.bias.data.fill_(v), lambda n: float(n.head.bias.detach())
    ),
    "what lies beside a view": Memory(
        lambda n, v: n.beside.fill_(v), lambda n: float(n.view.as_strided((1,), (1,), 1))
    ),
    "an expanded buffer": Memory(
        lambda n, v: n.wide.as_strided((1,), (1,)).fill_(v), lambda n: float(n.wide.sum())
    ),
    "a sparse buffer": Memory(
        lambda n, v: n.sparse._values().fill_(v), lambda n: float(n.sparse.to_dense().sum())
    ),
    "a dict of weak keys": Memory(lambda n, v: n.weak.update({n: v}), lambda n: n.weak.get(n, 0.0)),
    "a parameter's memory": Memory(
        lambda n, v: setattr(n.fixed, "data", torch.tensor(v)), lambda n: float(n.fixed.detach())
    ),
    "how much was drawn before": Memory(lambda *_: None, lambda _n: float(torch.rand(()))),
    "the batch": Memory(lambda *_: None, lambda n: n.items > 3),
    "how often it was asked": Memory(lambda *_: None, lambda n: n.calls),
    "a hook": Memory(lambda n, _v: n.body.register_forward_hook(_louder), _no_recall),
    "the mode of a layer": Memory(
        lambda n, v: setattr(n.body, "training", v > LOUD), lambda n: n.body.training
    ),
    "torch's generator of its own": Memory(
        lambda n, v: n.torch_draws.manual_seed(int(v)),
        lambda n: n.torch_draws.initial_seed() % 1000,
    ),
    "numpy's generator of its own": Memory(
        lambda *_: None, lambda n: float(n.numpy_draws.random())
    ),
    "Python's generator of its own": Memory(lambda *_: None, lambda n: n.python_draws.random()),
    "a closure": Memory(lambda n, v: n.enclosed(v), lambda n: n.recalled()),
    "its class": Memory(
        lambda n, v: setattr(n, "__class__", OtherClass if v > LOUD else Remembers),
        lambda n: isinstance(n, OtherClass),
    ),
}
#: Gradients alone follow.
IN_THE_GRADIENT: dict[str, Memory] = {
    "a hook on a parameter": Memory(
        lambda n, v: n.head.weight.register_hook(lambda gradient: gradient * (1 + v)), _no_recall
    )
}
#: Where something is kept in the code.
IN_THE_CODE: dict[str, Memory] = {
    "an attribute of the class": Memory(
        lambda n, v: setattr(type(n), "on_the_class", v), lambda n: n.on_the_class
    ),
    "a dict of the class": Memory(
        lambda n, v: n.shared.update(seen=v), lambda n: n.shared.get("seen", 0.0)
    ),
    "a list of the module": Memory(
        lambda _n, v: GLOBAL_LIST.append(v), lambda _n: sum(GLOBAL_LIST)
    ),
    "a number of the module": Memory(lambda _n, v: _to_global(v), lambda _n: GLOBAL_NUMBER),
    "what a thread has of its own": Memory(
        lambda _n, v: setattr(OF_A_THREAD, "seen", v), lambda _n: getattr(OF_A_THREAD, "seen", 0.0)
    ),
    "a default argument": Memory(lambda _n, v: _default(v), lambda _n: _default()),
    "an attribute of a function": Memory(
        lambda _n, v: setattr(_default, "seen", v), lambda _n: getattr(_default, "seen", 0.0)
    ),
    "the cache of a function": Memory(
        lambda _n, v: _cached("a").append(v), lambda _n: sum(_cached("a"))
    ),
}
#: Where something is kept in the process.
IN_THE_PROCESS: dict[str, Memory] = {
    "torch's generator": Memory(
        lambda _n, v: torch.manual_seed(int(v)), lambda _n: float(torch.rand(()))
    ),
    "Python's generator": Memory(lambda _n, v: random.seed(v), lambda _n: random.random()),
    "numpy's generator": Memory(
        lambda _n, v: np.random.seed(int(v)),  # noqa: NPY002
        lambda _n: float(np.random.random()),  # noqa: NPY002
    ),
    "the default dtype": Memory(
        _double_dtype, lambda _n: torch.get_default_dtype() == torch.float64
    ),
    "a switch": Memory(
        lambda _n, v: torch.set_flush_denormal(v > LOUD),
        lambda _n: float(torch.tensor(1e-310, dtype=torch.float64) * 1.0) == 0.0,
    ),
    "the number of threads": Memory(
        lambda _n, v: torch.set_num_threads(2 if v > LOUD else 1),
        lambda _n: torch.get_num_threads() - 1,
    ),
    "a mode that is not left": Memory(_enter_mode, lambda _n: torch._C._len_torch_function_stack()),
    "a hook on all modules": Memory(_hook_of_all, _no_recall),
    "a context variable": Memory(lambda _n, v: CONTEXT.set(v), lambda _n: CONTEXT.get()),
}
PLACES = INSIDE | IN_THE_CODE | IN_THE_PROCESS


#: Where nobody can put back what is kept: it is looked for.
OUT_OF_REACH: dict[str, Memory] = {
    "torch itself": Memory(
        lambda _n, v: setattr(torch, "seen_by_a_test", v),
        lambda _n: getattr(torch, "seen_by_a_test", 0.0),
    ),
    "an environment variable": Memory(
        lambda _n, v: os.environ.update(SEEN_BY_A_TEST=str(v)),
        lambda _n: float(os.environ.get("SEEN_BY_A_TEST", "0")),
    ),
}


def in_evaluation_alone(memory: Memory) -> Memory:
    """Return what is written and read in evaluation, and in training neither."""
    return Memory(
        lambda n, v: None if n.training else memory.keep(n, v),
        lambda n: 0.0 if n.training else memory.recall(n),
    )


def after_calls(memory: Memory, calls: int) -> Memory:
    """Return what is read only once a copy of the network was asked so often."""
    return Memory(memory.keep, lambda n: memory.recall(n) if n.calls >= calls else 0.0)


def network_with(memory: Memory) -> nn.Module:
    """Return the network that remembers in this place."""
    return seeded(lambda: Remembers(memory))


def worlds() -> tuple[Patients, Patients]:
    """Return patients of whom the first is loud, and those without the first."""
    patients = patients_of((1, 2, 1, 1, 1), seed=3)
    image = patients.image.clone()
    image[0] += 1e3
    loud = with_images(patients, image)
    return loud, without(loud, 0)


def check_gradients_alone(memory: Memory) -> None:
    """Raise where others' gradients have other bits once the loud patient is there."""
    found = [_gradients(network_with(memory), patients) for patients in worlds()]
    if not all(map(torch.equal, found[0][1:], found[1])):
        message = "others' gradients moved with a patient"
        raise AssertionError(message)


def _gradients(network: nn.Module, patients: Patients) -> list[Tensor]:
    objective = objective_of(network, patients)
    drawn = draw(patients, 1.0, 4, Silence())
    trained = [p for p in network.parameters() if p.requires_grad]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        each = gradients_by_patient(objective, trained, drawn, LOOP)
        return [torch.cat([part.flatten() for part in one]) for one in each]


def check_scores_alone(memory: Memory) -> None:
    """Raise where others' predictions have other bits once the loud patient is there."""
    loud, fewer = worlds()
    for apart in (False, True):
        found, expected = (_scores(memory, some, apart=apart) for some in (loud, fewer))
        if not torch.equal(found[-len(expected) :], expected):
            message = "others' predictions moved with a patient"
            raise AssertionError(message)


def _scores(memory: Memory, patients: Patients, *, apart: bool) -> Tensor:
    return score(as_local_model(network_with(memory)), patients, apart=apart).prediction


def as_local_model(network: nn.Module) -> LocalModel:
    """Return what evaluation takes, around a network."""
    task = SimpleNamespace(predict=torch.sigmoid, item_loss=binary_loss)
    config = SimpleNamespace(
        evaluation=SimpleNamespace(unit="image"), task=SimpleNamespace(kind="diagnosis")
    )
    return LocalModel(
        config=config,  # type: ignore[arg-type]  # what evaluation asks for
        seed=0,
        task=task,  # type: ignore[arg-type]
        item_loss=binary_loss,
        transforms=None,
        model=network,
        trained={},
        local=frozenset(),
        initial_local={},
    )
