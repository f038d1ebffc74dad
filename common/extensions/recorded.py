"""Recording of an extension's function: what it does with tensors, and nothing else of it.

    nothing that Python does between calls is left   no memory, no file, no clock
    a branch on a value of a tensor                  refused: there is no such record
    an operation in place, by chance, not torch's    refused
    memory that nobody wrote (torch.empty), a file   refused: it may hold what others left there
    a gradient that the record does not have         refused (a backward pass of its own)

So what is promised of a patient's loss holds for the record by what it is made of, not by trials.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from common.platform.errors import ExtensionRefused

#: (item's tensors) -> one tensor.
Recorded = Callable[..., Tensor]
#: Beginnings of the names of operations whose answer is not made of what they are given.
_UNWRITTEN = ("empty", "new_empty", "efficientzerotensor", "from_file", "resize")
_LOGGERS = ("torch.fx.experimental.symbolic_shapes", "torch._export", "torch.export")


class _Called(nn.Module):
    def __init__(self, function: Recorded) -> None:
        super().__init__()
        self._function = function

    def forward(self, *given: Tensor) -> Tensor:
        return self._function(*given)


def recorded(name: str, function: Recorded, given: tuple[Tensor, ...]) -> Recorded:
    """Return what a function does with tensors of these shapes; ExtensionRefused if it cannot be.

    It is called here, with tensors that hold no value, and never again.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), _quiet():
            program = torch.export.export(_Called(function), given, strict=False)
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        message = (
            f"{name} cannot be recorded: {type(error).__name__}: {said:.300}. It may use torch's "
            "operations alone, and no branch on a tensor's value (torch.where does both sides)."
        )
        raise ExtensionRefused(message) from error
    for node in program.graph.nodes:
        if node.op == "call_function" and (fault := _fault(node.target)) is not None:
            message = f"{name} {fault}. Tell its author."
            raise ExtensionRefused(message)
    found: Recorded = program.module(check_guards=False)
    return found


def _named(target: torch._ops.OpOverload) -> str:
    return str(target).removeprefix("aten.").lstrip("_")


def _fault(target: object) -> str | None:
    """Return why an operation has no place in a record, or None."""
    # detach_ changes no value; torch.tensor makes its constants by it.
    if target in {operator.getitem, torch.ops.aten.detach_.default}:
        return None
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":  # noqa: SLF001 - torch has no public name for it
        return f"uses {target}, which is none of torch's own operations on tensors"
    if target._schema.is_mutable:  # noqa: SLF001 - likewise
        return f"changes a tensor in place ({target})"
    if _named(target).startswith(_UNWRITTEN):
        return f"takes memory or a file as it finds it ({target}); it may hold other patients"
    if torch.Tag.nondeterministic_seeded in target.tags:
        return f"draws by chance ({target})"
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own reports of a failed record from the log: the refusal says it."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
