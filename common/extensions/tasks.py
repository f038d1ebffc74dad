"""Tasks of extensions: the class that their code makes of a row, as a record.

Guarantee: what makes the class of a row is a record of operations on that row's values
(common/extensions/recorded.py): it depends on no other row, nor on what came before.

A number of no class is the author's mistake, such as classes that are counted from 1: it is refused
on made-up rows, before a hospital would leave out every patient of the last class for it.

Public: task_extension, task_shape, class_of, class_remarks.
"""

from __future__ import annotations

import itertools
import math
import operator
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from common.config.parts.extension import ExtensionUse
from common.config.run_config import ExtensionTask, RunConfig
from common.config.tasks.task_config import MOST_CLASSES
from common.extensions.contract import TaskExtension
from common.extensions.foreign_code import refusing
from common.extensions.global_state import left_alone
from common.extensions.loading import Pins, checked_arguments, load
from common.extensions.recorded import Recorded, recorded
from common.platform.errors import ExtensionRefused

#: Rows that a function is tried with, at most.
_TRIALS = 256
_MOST_COLUMNS = 1000
_COLUMNS = f"1 to {_MOST_COLUMNS}"
_VALUES = f"of each column how many values it may hold, 0 (a number) to {MOST_CLASSES}"
#: Classes that a refusal names, at most.
_SHOWN = 10
#: What a column of numbers is made up of: codes, ages, measurements, and what is far from all.
_NUMBERS = (
    *(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0),
    *(-1e4, -100.0, -30.0, -10.0, -3.0, -2.0, -1.0, -0.5, -0.01),
    *(1e-6, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 1.5, 2.5, 3.7),
    *(12.0, 15.0, 18.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0, 60.0, 65.0, 70.0, 80.0),
    *(90.0, 100.0, 120.0, 150.0, 200.0, 300.0, 500.0, 1e3, 2e3, 1e4, 1e6),
)


def class_of(pins: Pins, task: ExtensionTask) -> Callable[[Tensor], float]:
    """Return what makes a class of one row's values; ExtensionRefused unless it keeps the contract.

    The number of a class, or another number, or nan, where the row has none.
    """
    kind, arguments = task_extension(pins, task)
    name, rows = task.name, _made_up(task)
    place = partial(kind.place, arguments)
    with refusing(f"{name} cannot be recorded"):
        record = recorded(name, place, (rows[0],))
    _called(name, record, rows[0])
    for row in rows:
        found = _class_of(name, record, row)
        with left_alone(name):
            meant = _class_of(name, place, row)
        _check(name, found, meant)
        _check_class(task, row, found)
    return partial(_class_of, name, record)


def class_remarks(config: RunConfig) -> tuple[str, ...]:
    """Return what an author may not have meant of the classes of made-up rows, in words."""
    task = config.task
    if not isinstance(task, ExtensionTask):
        return ()
    place, rows = class_of(config.extensions, task), _made_up(task)
    made = Counter(found for found in map(place, rows) if not math.isnan(found))
    never = [name for number, name in enumerate(task.classes) if number not in made]
    tried = f"of {len(rows)} made-up rows"
    if not made:
        return (f"{tried} none has a class: every one is left out",)
    if len(made) == 1:
        (number,) = made
        return (f"{tried} every one that has a class is {task.classes[int(number)]}",)
    return (f"{tried} none is {' or '.join(never)}",) if never else ()


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
    with refusing(f"{name} fails"):
        given = itertools.islice(kind.columns(arguments), _MOST_COLUMNS + 1)
        columns = [operator.index(values) for values in given]
        classes = operator.index(kind.classes(arguments))
    faults = (
        (f"columns gives {len(columns)} of them", 1 <= len(columns) <= _MOST_COLUMNS, _COLUMNS),
        (f"columns gives {columns}", all(0 <= n <= MOST_CLASSES for n in columns), _VALUES),
        (f"classes gives {classes}", 2 <= classes <= MOST_CLASSES, f"2 to {MOST_CLASSES}"),
    )
    for what, is_right, expected in faults:
        if not is_right:
            message = f"{name}: {what:.200} with these arguments, expected {expected}."
            raise ExtensionRefused(message)
    return columns, classes


def _shape(task: ExtensionTask) -> tuple[list[int], int]:
    return [len(column.values) for column in task.columns], len(task.classes)


def _said(columns: list[int], classes: int) -> str:
    each = ", ".join(f"one of {values} values" if values else "a number" for values in columns)
    return f"{classes} classes of {len(columns)} column{'s' * (len(columns) != 1)} ({each})"


def _made_up(task: ExtensionTask) -> list[Tensor]:
    """Return values of rows as the columns may hold them: all together, or each column's by turns.

    Where there are too many together, columns are shuffled, so that they do not rise as one.
    """
    each = [tuple(map(float, range(len(c.values)))) or _NUMBERS for c in task.columns]
    if math.prod(map(len, each)) <= _TRIALS:
        return [torch.tensor(row, dtype=torch.float64) for row in itertools.product(*each)]
    chance = random.Random(0)
    turns = [itertools.cycle(chance.sample(one, len(one))) for one in each]
    first = tuple(one[0] for one in each)
    rows = [first, *itertools.islice(zip(*turns, strict=False), _TRIALS - 1)]
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


def _class_of(name: str, place: Recorded, values: Tensor) -> float:
    """Return the class of one row; nan where it fails by these values, which no text may hold."""
    try:
        return _called(name, place, values)
    except ExtensionRefused:
        return float("nan")


def _called(name: str, place: Recorded, values: Tensor) -> float:
    """Return the class of one row, as it is given; ExtensionRefused where it is no one number."""
    with refusing(f"{name} fails"), torch.no_grad():
        found: object = place(values.clone())
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


def _check_class(task: ExtensionTask, row: Tensor, found: float) -> None:
    if math.isnan(found) or found in range(len(task.classes)):
        return
    cells = zip(task.columns, row.tolist(), strict=True)
    values = ", ".join(
        f"{c.column}={c.values[int(value)] if c.values else format(value, 'g')}"
        for c, value in cells
    )
    numbers = ", ".join(f"{number} {name}" for number, name in enumerate(task.classes[:_SHOWN]))
    more = ", ..." if len(task.classes) > _SHOWN else ""
    message = (
        f"{task.name} makes class {found:g} of a row with {values}, expected one of {numbers}{more}"
        ", or nan where a row has no class. Classes are numbered from 0, as the configuration "
        "names them. Tell its author."
    )
    raise ExtensionRefused(message)
