"""State that a network and its code could carry from one patient to the next.

    reached from the network     attributes of every submodule and of what they hold: numbers,
                                 lists, dicts, sets, tensors, arrays, generators, hooks, modes
    reached from its code        closures, default arguments, caches of functions, attributes of
                                 classes, globals of the modules of the same packages
    of torch                     hooks that were registered for all modules
    NOT reached                  what C code holds, files, other processes, threads that run on,
                                 what was hung onto torch, Python or another package

Nothing is copied: every object that can change is listed with what it holds, and gets that again
in place, so that parameters stay the objects that an optimiser knows.

Public: Reachable, Place.
"""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import io
import operator
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from client.privacy.kept_values import (
    Kept,
    KeptArray,
    KeptAttributes,
    KeptCache,
    KeptCell,
    KeptClass,
    KeptDict,
    KeptDraws,
    KeptFunction,
    KeptGlobals,
    KeptRow,
    KeptSet,
    KeptSlot,
    KeptTensor,
)
from common.extensions.global_state import HOOKS_OF_ALL_MODULES

#: Packages whose code keeps nothing of patients: Python's, ours, and what ours stands on.
_KNOWN = frozenset(sys.stdlib_module_names) - {"__main__"} | {
    *("client", "common", "server", "simulations", "wardround"),
    *("torch", "torchvision", "numpy", "scipy", "pydantic", "pydantic_core", "typing_extensions"),
    *("annotated_types", "opacus", "monai", "captum", "builtins"),
}
#: Objects of these are the process's and not a network's: locks, loggers, types.
_OF_THE_PROCESS = frozenset({
    *("_abc", "_frozen_importlib", "_frozen_importlib_external", "_thread", "_weakref", "abc"),
    *("_contextvars", "asyncio", "concurrent", "enum", "importlib", "inspect", "logging"),
    *("multiprocessing", "re", "threading", "typing", "weakref", "zipimport"),
})  # fmt: skip
_CANNOT_CHANGE = (
    *(int, float, complex, str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented)),
    *(range, slice, torch.dtype, torch.device, torch.layout, torch.memory_format),
    *(np.generic, np.dtype, np.ufunc, types.BuiltinFunctionType, types.GetSetDescriptorType),
    *(types.MemberDescriptorType, types.MethodDescriptorType, types.WrapperDescriptorType),
    *(types.MethodWrapperType, types.ClassMethodDescriptorType, types.GenericAlias, types.CodeType),
    *(types.UnionType,),
    *(dt.date, dt.time, dt.timedelta, dt.tzinfo, decimal.Decimal),
    *(operator.attrgetter, operator.itemgetter, operator.methodcaller, torch.finfo, torch.iinfo),
)
#: Networks that were made from others' code, of which only torch knows where it is.
_COMPILED = (torch.jit.ScriptModule, torch.jit.ScriptFunction)
#: Parts of torch whose objects say what is computed and keep nothing of it.
_RECORDS = ("torch._ops.", "torch.fx.", "torch.export.", "torch._export.")
_MODULE_NAMES = frozenset(vars(nn.Module()))
#: Names in a module that Python's import keeps.
_OF_THE_IMPORT = frozenset({"__builtins__", "__spec__", "__loader__", "__cached__"})
_OF_A_MODULE = ("_modules", "_parameters", "_buffers")
_Code = types.FunctionType | type | types.ModuleType


class Place(NamedTuple):
    """Where something was found that cannot be put back."""

    where: str  # names of attributes, from the network on
    kind: str  # its class


class Reachable:
    """All that can be reached from some objects and can change, with what it holds now."""

    def __init__(self, *roots: object, weights_stay: bool = False) -> None:
        """List it; with `weights_stay` the values of parameters are left to who changes them."""
        self.opaque: list[Place] = []  # what the network holds and nobody can put back
        self.packages: set[str] = set()  # of code of others, in the network
        self._weights_stay = weights_stay
        self._kept: list[Kept] = []
        self._seen: dict[int, object] = {}  # what is listed stays alive, so that no id is reused
        self._data: list[tuple[str, object]] = [("", root) for root in roots]
        self._code: list[_Code] = []
        with torch.inference_mode(mode=False), torch.no_grad():
            self._look_at_data()
            self._in_code = bool(self.packages)
            if self._in_code:
                self._data += [("", held) for held in HOOKS_OF_ALL_MODULES]
                self._look_at_data()
                self._look_at_code()

    _in_code = False

    def put_back(self) -> None:
        """Give everything what it held when it was listed."""
        with torch.inference_mode(mode=False), torch.no_grad():
            for one in self._kept:
                one.put_back()

    def _look_at_data(self) -> None:
        while self._data:
            where, value = self._data.pop()
            if not isinstance(value, _CANNOT_CHANGE) and id(value) not in self._seen:
                self._seen[id(value)] = value
                self._look_at(where, value)

    def _look_at_code(self) -> None:
        """List what code of the network's own packages holds, and what is held by that."""
        done: set[int] = set()
        while self._code:
            code = self._code.pop()
            if id(code) not in done and _package(code) in self.packages:
                done.add(id(code))
                self._keep_code(code)
                self._look_at_data()

    def _look_at(self, where: str, value: object) -> None:
        if isinstance(value, _Code):
            self._note(value)
            if isinstance(value, types.FunctionType):
                self._keep_function(value)
            return
        for kind in type(value).__mro__:
            self._note(kind)
        if _is_of_the_process(value):
            return
        if isinstance(value, _COMPILED) and not self._in_code:
            self.packages.add(_package(type(value)))
        attributes, slots = _attributes(value), _slots(value)
        self._keep_attributes(where, value, attributes, slots)
        known = self._keep(where, value) or type(value) is object
        looked_into = known or attributes is not None or bool(slots)
        if not looked_into or isinstance(value, (io.IOBase, *_COMPILED)):
            self._note_opaque(where, value)

    def _note(self, code: _Code) -> None:
        """Remember code: whose it is, where it is the network's, and that it may hold something."""
        package = _package(code)
        if package not in _KNOWN:
            self._code.append(code)
            if not self._in_code and not isinstance(code, types.ModuleType):
                self.packages.add(package)

    def _note_opaque(self, where: str, value: object) -> None:
        # Among globals there is much that only looks as if it could keep something.
        if not self._in_code or isinstance(value, Iterator):
            kind = type(value)
            inside = where.split(".")
            place = ".".join(name for name in inside if name not in _OF_A_MODULE)
            self.opaque.append(Place(place, f"{kind.__module__}.{kind.__qualname__}"))

    def _keep(self, where: str, value: object) -> bool:
        """List what a value holds beside its attributes; False where its kind is unknown."""
        match value:
            case Tensor():
                self._keep_tensor(where, value)
            case dict():
                self._kept.append(KeptDict.of(value))
                self._more(where, dict.items(value))
                self._more(where, (("", name) for name in dict.keys(value)))
            case list() | deque() | bytearray():
                self._kept.append(KeptRow.of(value))  # type: ignore[arg-type]  # bytes are objects
                self._more(where, enumerate(value))
            case set():
                self._kept.append(KeptSet.of(value))
                self._more(where, enumerate(value))
            case np.ndarray():
                self._kept.append(KeptArray.of(value))
            case types.CellType():
                cell = KeptCell.of(value)
                self._kept.append(cell)
                self._more(where, (("", cell.value),))
            case functools._lru_cache_wrapper():  # noqa: SLF001 - it has no other name
                if _package(value) not in _KNOWN:
                    self._kept.append(KeptCache.of(value))
                self._more(where, (("", value.__wrapped__),))
            case _ if (draws := KeptDraws.of(value)) is not None:
                self._kept.append(draws)
            case _:
                return self._follow(where, value)
        return True

    def _follow(self, where: str, value: object) -> bool:
        """Follow what cannot change itself, but holds what can; False where it is none of these."""
        match value:
            case tuple() | frozenset():
                self._more(where, enumerate(value))
            case types.MappingProxyType():
                self._more(where, value.items())
            case types.MethodType():
                self._more(where, (("", value.__self__), ("", value.__func__)))
            case functools.partial():
                self._more(where, (("", value.func), ("", value.args), ("", value.keywords)))
            case property():
                self._more(where, (("", one) for one in (value.fget, value.fset, value.fdel)))
            case staticmethod() | classmethod():
                self._more(where, (("", value.__func__),))
            case _:
                return False
        return True

    def _keep_attributes(
        self,
        where: str,
        value: object,
        attributes: dict[str, object] | None,
        slots: dict[str, types.MemberDescriptorType],
    ) -> None:
        if isinstance(value, torch.fx.GraphModule) and attributes is not None:
            # What it calls is in the globals of the function that torch wrote for it.
            code = vars(type(value)).get("forward")
            self._more(where, (("", getattr(code, "__globals__", None)),))
            shown = {name: held for name, held in attributes.items() if name in _MODULE_NAMES}
            self._more(where, shown.items())
        elif attributes is not None:
            self._more(where, attributes.items())
        if attributes is not None:
            self._kept.append(KeptDict.of(attributes))  # type: ignore[arg-type]  # names are text
            self._kept.append(KeptClass(value, type(value)))
        for name, slot in slots.items():
            lies = KeptSlot.of(value, slot)
            self._kept.append(lies)
            self._more(where, ((name, lies.value),))

    def _keep_tensor(self, where: str, value: Tensor) -> None:
        value_too = not (self._weights_stay and isinstance(value, nn.Parameter))
        self._kept.append(KeptTensor.of(value, value_too=value_too))
        self._more(where, (("", value._backward_hooks),))  # noqa: SLF001 - it has no other name
        if value.is_leaf and value_too:
            self._more(where, (("grad", value.grad),))

    def _keep_function(self, value: types.FunctionType) -> None:
        """List what a function holds: one of ours, too, which may have been given others' code."""
        if _package(value) not in _KNOWN:
            self._kept.append(KeptFunction.of(value))
            self._more("", (("", value.__dict__),))
        held = (value.__closure__, value.__defaults__, value.__kwdefaults__)
        self._more("", (("", one) for one in held))

    def _keep_code(self, code: _Code) -> None:
        match code:
            case types.FunctionType():
                module = sys.modules.get(str(code.__module__))
                if module is None or vars(module) is not code.__globals__:  # made by exec
                    self._more("", (("", code.__globals__),))
                self._more("", (("", found) for found in (module, *_imported_by(code))))
            case types.ModuleType():
                self._kept.append(KeptGlobals.of(vars(code)))
                held = {n: v for n, v in vars(code).items() if n not in _OF_THE_IMPORT}
                self._more("", held.items())
            case type():
                self._kept.append(KeptAttributes.of(code))
                self._more("", vars(code).items())
                self._more("", (("", sys.modules.get(code.__module__)),))

    def _more(self, where: str, found: Iterable[tuple[object, object]]) -> None:
        for name, value in found:
            if not isinstance(value, _CANNOT_CHANGE):
                place = f"{where}.{name}" if where and name != "" else where or str(name)
                self._data.append((place, value))


def _package(code: object) -> str:
    """Return the name of the package that code is of, or that an object's code is of."""
    if isinstance(code, types.ModuleType):
        name: object = code.__name__
    else:
        name = getattr(code, "__module__", None)
    return str(name).partition(".")[0]


def _is_of_the_process(value: object) -> bool:
    kind = type(value)
    if isinstance(value, threading.local | weakref.WeakKeyDictionary | weakref.WeakValueDictionary):
        return False
    if _package(kind) in _OF_THE_PROCESS:
        return True
    return f"{kind.__module__}.".startswith(_RECORDS) and not isinstance(value, nn.Module)


def _attributes(value: object) -> dict[str, object] | None:
    """Return an object's own attributes, past what its class makes of them; None without."""
    kind = threading.local if isinstance(value, threading.local) else object
    try:
        found: object = kind.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return found if isinstance(found, dict) else None


def _slots(value: object) -> dict[str, types.MemberDescriptorType]:
    """Return the slots of classes that were written in Python."""
    return _slots_of(type(value))  # type: ignore[arg-type]  # mypy takes a class for its objects


@functools.lru_cache(maxsize=4096)
def _slots_of(kind: type) -> dict[str, types.MemberDescriptorType]:
    written = [one for one in kind.__mro__ if "__slots__" in vars(one)]
    return {
        name: slot
        for one in written
        for name, slot in vars(one).items()
        if isinstance(slot, types.MemberDescriptorType)
    }


def _imported_by(function: types.FunctionType) -> Iterator[types.ModuleType]:
    """Yield modules that a function imports itself, as far as they are loaded by now."""
    package = str(function.__globals__.get("__package__") or "")
    codes: list[object] = [function.__code__]
    while codes:
        code = codes.pop()
        if not isinstance(code, types.CodeType):
            continue
        codes += code.co_consts
        for name in code.co_names:
            for place in (name, f"{package}.{name}", f"{package}.{name}".rpartition(".")[0]):
                module = sys.modules.get(place)
                if isinstance(module, types.ModuleType):
                    yield module
