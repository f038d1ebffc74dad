"""Objects that can change, each with a way to put back what it held.

Each class here looks at an object once (`of`) and puts it back in place (`put_back`): others go on
holding the same dict, list or tensor. The object's own class is not asked (`dict.clear(held)`, not
`held.clear()`): it may be of others and have an idea of its own. Tuples, not closures: a large
network has ten thousand of them, and Python's garbage collector looks at all.
"""

from __future__ import annotations

import operator
import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, MutableSequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

    Hooks = Mapping[int, object] | None

#: In place of what is not there.
NOTHING = object()


class Kept(Protocol):
    """What an object held."""

    def put_back(self) -> None:
        """Give it that again."""


def _same(held: Iterable[object], values: tuple[object, ...]) -> bool:
    """Return whether these are the very same objects in the same order."""
    now = tuple(held)
    return len(now) == len(values) and all(map(operator.is_, now, values))


class KeptDict(NamedTuple):
    """A dict, its order too; also an object's attributes."""

    held: dict[object, object]
    names: tuple[object, ...]
    values: tuple[object, ...]

    @classmethod
    def of(cls, held: dict[object, object]) -> Self:
        """Return what a dict holds."""
        return cls(held, tuple(dict.keys(held)), tuple(dict.values(held)))

    def put_back(self) -> None:
        """Give it that again."""
        held = self.held
        if _same(dict.keys(held), self.names) and _same(dict.values(held), self.values):
            return
        kind = OrderedDict if isinstance(held, OrderedDict) else dict
        kind.clear(held)
        for name, value in zip(self.names, self.values, strict=True):
            kind.__setitem__(held, name, value)


class KeptClass(NamedTuple):
    """The class of an object, which code can change."""

    held: object
    kind: type

    def put_back(self) -> None:
        """Give it that again."""
        if type(self.held) is not self.kind:
            object.__setattr__(self.held, "__class__", self.kind)


_ROWS = cast("tuple[type[MutableSequence[object]], ...]", (list, deque, bytearray))


class KeptRow(NamedTuple):
    """A list, a deque or a bytearray."""

    held: MutableSequence[object]
    kind: type[MutableSequence[object]]
    values: tuple[object, ...]

    @classmethod
    def of(cls, held: MutableSequence[object]) -> Self:
        """Return what it holds."""
        kind = next(kind for kind in _ROWS if isinstance(held, kind))
        return cls(held, kind, tuple(kind.__iter__(held)))

    def put_back(self) -> None:
        """Give it that again."""
        if not _same(self.kind.__iter__(self.held), self.values):
            self.kind.clear(self.held)
            self.kind.extend(self.held, self.values)


class KeptSet(NamedTuple):
    """A set."""

    held: set[object]
    values: tuple[object, ...]

    @classmethod
    def of(cls, held: set[object]) -> Self:
        """Return what it holds."""
        return cls(held, tuple(set.__iter__(held)))

    def put_back(self) -> None:
        """Give it that again."""
        if not _same(set.__iter__(self.held), self.values):
            set.clear(self.held)
            set.update(self.held, self.values)


class KeptTensor(NamedTuple):
    """A tensor: its values, the memory that they lie in, its hooks and its gradient."""

    held: Tensor
    memory: Tensor  # where the values lie, wherever the tensor is pointed at later
    # All that lies there, also beside a view of it; a copy where a layout has no such place; None
    # where values are left to who changes them.
    values: torch.UntypedStorage | Tensor | None
    hooks: Hooks
    hooks_after: Hooks
    needs_gradient: bool
    gradient: Tensor | None

    @classmethod
    def of(cls, held: Tensor, *, value_too: bool) -> Self:
        """Return what it holds."""
        return cls(
            held=held,
            memory=held.data,
            values=_content_of(held.data) if value_too else None,
            hooks=held._backward_hooks,  # noqa: SLF001 - it has no other name
            hooks_after=getattr(held, "_post_accumulate_grad_hooks", None),
            needs_gradient=held.requires_grad,
            gradient=held.grad if held.is_leaf else None,
        )

    def put_back(self) -> None:
        """Give it that again."""
        held = self.held
        if held._backward_hooks is not self.hooks:  # noqa: SLF001 - it has no other name
            held._backward_hooks = self.hooks  # type: ignore[assignment]  # noqa: SLF001
        if getattr(held, "_post_accumulate_grad_hooks", None) is not self.hooks_after:
            setattr(held, "_post_accumulate_grad_hooks", self.hooks_after)  # noqa: B010 - typed as absent
        if held.is_leaf and held.requires_grad is not self.needs_gradient:
            held.requires_grad_(self.needs_gradient)
        if self.values is None:
            return
        if held.is_leaf and held.grad is not self.gradient:
            held.grad = self.gradient
        if isinstance(self.values, Tensor):
            held.data = self.values.clone()
            return
        if _lies(held) != _lies(self.memory):
            held.data = self.memory
        place = self.memory.untyped_storage()
        if place.nbytes() != self.values.nbytes():
            place.resize_(self.values.nbytes())
        place.copy_(self.values)


def _content_of(memory: Tensor) -> torch.UntypedStorage | Tensor:
    if memory.layout == torch.strided and memory.device.type != "meta":
        place = memory.untyped_storage()
        content = torch.UntypedStorage(place.nbytes(), device=place.device)  # type: ignore[no-untyped-call]
        content.copy_(place)
        return content
    return memory.clone()


def _lies(value: Tensor) -> tuple[object, ...]:
    strided = value.layout == torch.strided
    place = (value.data_ptr(), value.stride()) if strided else ()
    return (value.layout, value.dtype, value.shape, *place)


class KeptArray(NamedTuple):
    """An array of numpy's."""

    held: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, held: np.ndarray) -> Self:
        """Return what it holds."""
        return cls(held, held.copy())

    def put_back(self) -> None:
        """Give it that again."""
        if self.held.flags.writeable:
            np.copyto(self.held, self.values)


class KeptDraws(NamedTuple):
    """A generator of random numbers of its own."""

    held: object
    state: object

    @classmethod
    def of(cls, held: object) -> Self | None:
        """Return where it stands; None where it is no generator."""
        match held:
            case torch.Generator() | np.random.RandomState():
                return cls(held, held.get_state())
            case random.Random():
                return cls(held, held.getstate())
            case np.random.Generator():
                return cls(held.bit_generator, held.bit_generator.state)
            case np.random.BitGenerator():
                return cls(held, held.state)
            case _:
                return None

    def put_back(self) -> None:
        """Let it draw that again."""
        match self.held, self.state:
            case torch.Generator() as held, Tensor() as state:
                held.set_state(state)
            case np.random.RandomState() as held, state:
                held.set_state(state)  # type: ignore[arg-type]  # as it gave it
            case random.Random() as held, tuple() as state:
                held.setstate(state)
            case np.random.BitGenerator() as held, Mapping() as state:
                held.state = state
            case _:
                message = f"{self.held} was kept as a generator, and is none."
                raise AssertionError(message)


class KeptCell(NamedTuple):
    """A variable that a function shares with the one around it."""

    held: types.CellType
    value: object

    @classmethod
    def of(cls, held: types.CellType) -> Self:
        """Return what it holds."""
        return cls(held, _content(held))

    def put_back(self) -> None:
        """Give it that again."""
        if _content(self.held) is self.value:
            return
        if self.value is NOTHING:
            del self.held.cell_contents
        else:
            self.held.cell_contents = self.value


def _content(held: types.CellType) -> object:
    try:
        found: object = held.cell_contents
    except ValueError:
        return NOTHING
    return found


class KeptSlot(NamedTuple):
    """An attribute that lies in a slot."""

    held: object
    slot: types.MemberDescriptorType
    value: object

    @classmethod
    def of(cls, held: object, slot: types.MemberDescriptorType) -> Self:
        """Return what it holds."""
        return cls(held, slot, _in_slot(held, slot))

    def put_back(self) -> None:
        """Give it that again."""
        if _in_slot(self.held, self.slot) is self.value:
            return
        if self.value is NOTHING:
            self.slot.__delete__(self.held)
        else:
            self.slot.__set__(self.held, self.value)


def _in_slot(held: object, slot: types.MemberDescriptorType) -> object:
    try:
        found: object = slot.__get__(held)
    except AttributeError:
        return NOTHING
    return found


_OF_A_FUNCTION = ("__code__", "__defaults__", "__kwdefaults__")


class KeptFunction(NamedTuple):
    """A function's code and what its arguments are by default."""

    held: object
    parts: tuple[object, ...]

    @classmethod
    def of(cls, held: types.FunctionType) -> Self:
        """Return what it holds."""
        return cls(held, tuple(object.__getattribute__(held, name) for name in _OF_A_FUNCTION))

    def put_back(self) -> None:
        """Give it that again."""
        for name, part in zip(_OF_A_FUNCTION, self.parts, strict=True):
            if object.__getattribute__(self.held, name) is not part:
                object.__setattr__(self.held, name, part)


class KeptCache(NamedTuple):
    """The cache of a function: emptied once it was used, and the function fills it again."""

    held: _lru_cache_wrapper[object]
    used: object

    @classmethod
    def of(cls, held: _lru_cache_wrapper[object]) -> Self:
        """Return how far it was used."""
        return cls(held, held.cache_info())

    def put_back(self) -> None:
        """Empty it if it was used since."""
        if self.held.cache_info() != self.used:
            self.held.cache_clear()


class KeptAttributes(NamedTuple):
    """The attributes of a class."""

    held: type
    before: dict[str, object]

    @classmethod
    def of(cls, held: type) -> Self:
        """Return what it holds."""
        return cls(held, dict(vars(held)))

    def put_back(self) -> None:
        """Give it that again."""
        now = dict(vars(self.held))
        for name in now.keys() - self.before.keys():
            type.__delattr__(self.held, name)
        for name, value in self.before.items():
            if now.get(name, NOTHING) is not value:
                type.__setattr__(self.held, name, value)


class KeptGlobals(NamedTuple):
    """The globals of a module; a module of its package that was imported since stays."""

    held: dict[str, object]
    before: dict[str, object]

    @classmethod
    def of(cls, held: dict[str, object]) -> Self:
        """Return what it holds."""
        return cls(held, dict(held))

    def put_back(self) -> None:
        """Give it that again."""
        held = self.held
        for name, value in self.before.items():
            if held.get(name, NOTHING) is not value:
                held[name] = value
        if len(held) != len(self.before):
            for name in held.keys() - self.before.keys():
                if held[name] is not sys.modules.get(f"{held.get('__name__')}.{name}"):
                    del held[name]
