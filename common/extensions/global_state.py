"""Process-wide state that a forward pass can set: torch's switches, random generators.

Each switch is a pair: how it is read, how it is set. Put back after every patient whom code of
others has seen, and looked at when such code is imported, built and tried.

Public: HOOKS_OF_ALL_MODULES, Switches, drawing_from, generators, left_alone.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from common.platform.errors import ExtensionRefused

#: Where torch keeps hooks that are called for every module of the process.
HOOKS_OF_ALL_MODULES = tuple(
    held
    for name, held in sorted(vars(torch.nn.modules.module).items())
    if name.startswith("_global_") and isinstance(held, dict)
)


#: Parts of torch's dispatcher whose kernels are torch's own, in C++ but for shapes.
_TORCHS = ("aten", "prim", "_")


def _python_kernels() -> set[str]:
    """Return what Python was put in the place of by torch.library, with torch's own thousands."""
    return {*torch.library._impls, *torch.library._defs}  # noqa: SLF001 - no other way


@functools.cache
def _first_kernels() -> frozenset[str]:
    """Return those that are there before the first code of others is imported."""
    torch.func.vmap(torch.neg)(torch.zeros(1))  # with its first call torch puts more there
    return frozenset(_python_kernels())


def _in_torchs_place() -> list[str]:
    """Return which of torch's own operations were given a Python kernel since."""
    new = _python_kernels() - _first_kernels()
    return sorted(name for name in new if re.split("/|::", name)[0] in _TORCHS)


class _Switch(NamedTuple):
    read: Callable[[], object]
    set: Callable[[object], object]


def _autocast(device: str) -> dict[str, _Switch]:
    """Return the two switches of mixed precision on a kind of device."""
    return {
        f"autocast on {device}": _Switch(
            lambda: torch.is_autocast_enabled(device),
            lambda value: torch.set_autocast_enabled(device, bool(value)),
        ),
        f"dtype of autocast on {device}": _Switch(
            lambda: torch.get_autocast_dtype(device),
            lambda value: torch.set_autocast_dtype(device, value),  # type: ignore[arg-type]
        ),
    }


def _flushes() -> bool:
    """Return whether numbers too small to be normal count as 0; torch does not tell."""
    return float(torch.tensor(1e-310, dtype=torch.float64) * 1.0) == 0.0


def _named(of: object, name: str) -> _Switch:
    return _Switch(lambda: getattr(of, name), lambda value: setattr(of, name, value))


def _pop(stack: str) -> _Switch:
    """Return the number of modes that were entered and not left; too many are left."""
    read: Callable[[], int] = getattr(torch._C, f"_len_torch_{stack}_stack")  # noqa: SLF001 - no other way
    pop: Callable[..., object] = getattr(torch._C, f"_pop_torch_{stack}_stack")  # noqa: SLF001
    given = (None,) if stack == "dispatch" else ()  # which of torch's own modes: none of them

    def back(wanted: object) -> None:
        while read() > int(str(wanted)):
            pop(*given)

    return _Switch(read, back)


#: Modes first: while one of others' stands, what reads and sets the rest goes through it.
_SWITCHES: dict[str, _Switch] = {
    "modes of torch's functions": _pop("function"),
    "modes of torch's dispatch": _pop("dispatch"),
    "default dtype": _Switch(torch.get_default_dtype, torch.set_default_dtype),  # type: ignore[arg-type]
    "grad mode": _Switch(torch.is_grad_enabled, torch.set_grad_enabled),  # type: ignore[arg-type]
    "deterministic algorithms": _Switch(
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,  # type: ignore[arg-type]
    ),
    "number of threads": _Switch(torch.get_num_threads, torch.set_num_threads),  # type: ignore[arg-type]
    "precision of products": _Switch(
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,  # type: ignore[arg-type]
    ),
    "detection of anomalies": _Switch(
        torch.is_anomaly_enabled,
        torch.autograd.set_detect_anomaly,  # type: ignore[arg-type]
    ),
    "flushing of small numbers": _Switch(_flushes, torch.set_flush_denormal),  # type: ignore[arg-type]
    "use of oneDNN": _Switch(
        torch._C._get_mkldnn_enabled,  # noqa: SLF001 - the public one prints a warning
        torch._C._set_mkldnn_enabled,  # type: ignore[arg-type]  # noqa: SLF001
    ),
    "cudnn": _named(torch.backends.cudnn, "enabled"),
    "choice of algorithms in cudnn": _named(torch.backends.cudnn, "benchmark"),
    "determinism of cudnn": _named(torch.backends.cudnn, "deterministic"),
    **_autocast("cpu"),
    **_autocast("cuda"),
    "default device": _Switch(torch.get_default_device, torch.set_default_device),  # type: ignore[arg-type]
}


class Switches:
    """All switches as they stand when it is made."""

    def __init__(self) -> None:
        self._stood = {name: switch.read() for name, switch in _SWITCHES.items()}

    def changed(self) -> list[str]:
        """Return the names of switches that stand otherwise now."""
        return [name for name, stood in self._stood.items() if _SWITCHES[name].read() != stood]

    def put_back(self) -> list[str]:
        """Set what stands otherwise as it stood; returns the names of those switches."""
        changed = []
        for name, stood in self._stood.items():
            if _SWITCHES[name].read() != stood:
                changed.append(name)
                _SWITCHES[name].set(stood)
        return changed


@contextmanager
def left_alone(name: str) -> Iterator[None]:
    """Refuse code of others that leaves torch set otherwise, or hooks in it: ExtensionRefused.

    Such a hook, or a mode that was entered and not left, would see patients on their way through
    networks that are not its own. Everything is put back, but kernels: while Python stands in the
    place of one of torch's operations, nothing of others is run any more.
    """
    _first_kernels()
    switches, hooks = Switches(), [dict(held) for held in HOOKS_OF_ALL_MODULES]
    try:
        yield
    finally:
        changed = switches.put_back()
        for held, stood in zip(HOOKS_OF_ALL_MODULES, hooks, strict=True):
            if held != stood:
                changed.append("hooks for all modules")
                held.clear()
                held.update(stood)
    if kernels := _in_torchs_place():
        message = (
            f"{name} is not run: code of an extension stands in the place of torch's "
            f"{kernels[0]} in this process (torch.library). Remove it, and start again."
        )
        raise ExtensionRefused(message)
    if changed:
        message = f"{name} sets torch's {changed[0]} for the whole process. Tell its author."
        raise ExtensionRefused(message)


@contextmanager
def drawing_from(seed: int, devices: Sequence[int]) -> Iterator[None]:
    """Let every global generator start from a seed; all of them stay as they were.

    torch's, on the processor and on these GPUs, Python's and numpy's: code of others draws from
    any of them.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - others' code draws from it
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def generators() -> dict[str, bytes]:
    """Return where each global generator of the processor stands."""
    return {
        "torch's": torch.default_generator.get_state().numpy().tobytes(),
        "Python's": repr(random.getstate()).encode(),
        "numpy's": repr(np.random.get_state(legacy=False)["state"]["key"].tobytes()).encode()  # noqa: NPY002
        + repr(np.random.get_state(legacy=False)["state"]["pos"]).encode(),  # noqa: NPY002
    }
