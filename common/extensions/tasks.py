"""Tasks of extensions: the class that their code makes of a row, as a record.

Guarantee: what makes the class of a row is a record of operations on that row's values
(common/extensions/recorded.py): it depends on no other row, nor on what came before.

Public: task_extension, task_shape, class_of.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from common.config.extension import ExtensionUse
from common.config.task import ExtensionTask
from common.extensions.contract import TaskExtension
from common.extensions.loading import Pins, checked_arguments, load
from common.extensions.recorded import Recorded, recorded
from common.platform.errors import ExtensionRefused

#: Rows that a function is tried with, at most.
_TRIALS = 64
#: What a column of numbers is made up of.
_NUMBERS = (0.0, 1.0, -3.0, 0.25, 40.0, 1e4)


def class_of(pins: Pins, task: ExtensionTask) -> Callable[[Tensor], float]:
    """Return what makes a class of one row's values; ExtensionRefused unless it keeps the contract.

    The number of a class, or another number, or nan, where the row has none.
    """
    kind, arguments = task_extension(pins, task)
    name, rows = task.name, _made_up(task)
    place = partial(kind.place, arguments)
    record = recorded(name, place, (rows[0],))
    _called(name, record, rows[0])
    for row in rows:
        _check(name, _class_of(name, record, row), _class_of(name, place, row))
    return partial(_class_of, name, record)


def task_extension(pins: Pins, task: ExtensionTask) -> tuple[TaskExtension[BaseModel], BaseModel]:
    """Return what an extension gives as its task, and its arguments, checked."""
    kind: TaskExtension[BaseModel] = load(pins, "tasks", task.name, TaskExtension)
    use = ExtensionUse(name=task.name, arguments=task.arguments)
    arguments = checked_arguments(kind.arguments, use, "task.arguments")
    wanted, here = task_shape(task.name, kind, arguments), _shape(task)
    if here != wanted:
        message = (
            f"task.name={task.name} takes {_said(*wanted)} with these arguments, and the "
            f"configuration names {_said(*here)}."
        )
        raise ExtensionRefused(message)
    return kind, arguments


def task_shape(
    name: str, kind: TaskExtension[BaseModel], arguments: BaseModel
) -> tuple[list[int], int]:
    """Return how many values each column may hold, 0 for a number, and how many classes."""
    try:
        return [int(values) for values in kind.columns(arguments)], int(kind.classes(arguments))
    except Exception as error:
        message = f"{name} fails: {type(error).__name__}: {error!s:.300}"
        raise ExtensionRefused(message) from error


def _shape(task: ExtensionTask) -> tuple[list[int], int]:
    return [len(column.values) for column in task.columns], len(task.classes)


def _said(columns: list[int], classes: int) -> str:
    each = ", ".join(f"one of {values} values" if values else "a number" for values in columns)
    return f"{classes} classes of {len(columns)} column{'s' * (len(columns) != 1)} ({each})"


def _made_up(task: ExtensionTask) -> list[Tensor]:
    """Return values of rows as the columns may hold them, by turns of every column."""
    each = [tuple(map(float, range(len(c.values)))) or _NUMBERS for c in task.columns]
    rows = itertools.islice(itertools.product(*each), _TRIALS)
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


def _class_of(name: str, place: Recorded, values: Tensor) -> float:
    """Return the class of one row; nan where it fails by these values, which no text may hold."""
    try:
        return _called(name, place, values)
    except ExtensionRefused:
        return float("nan")


def _called(name: str, place: Recorded, values: Tensor) -> float:
    """Return the class of one row, as it is given; ExtensionRefused where it is no one number."""
    try:
        with torch.no_grad():
            found: object = place(values.clone())
    except Exception as error:
        message = f"{name} fails: {type(error).__name__}: {error!s:.300}"
        raise ExtensionRefused(message) from error
    if not isinstance(found, Tensor) or found.shape != () or found.is_complex():
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        message = f"{name} gives {shape} as a row's class, expected one number, ()."
        raise ExtensionRefused(message)
    return float(found)


def _check(name: str, found: float, meant: float) -> None:
    if found != meant and not (np.isnan(found) and np.isnan(meant)):
        message = (
            f"{name} makes another class when it is recorded: a memory or chance is not. Write it "
            "with torch's operations alone."
        )
        raise ExtensionRefused(message)
