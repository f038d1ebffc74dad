"""What every task says of itself, without torch, so that nobody asks which task it is."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from common.config.parts.section import Part
from common.config.tasks.forms import LabelMap, Prediction, TaskKind

#: A class is one output, one row of every table and one column of every answer.
MOST_CLASSES = 1000
#: Each pair of a true and a predicted grade is counted.
MOST_GRADES = 20
_LONGEST_NAME = 200
#: What ends a line, moves a cursor, or is half a character (Unicode's general categories).
_NOT_IN_NAMES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def _one_line(name: str) -> str:
    """Refuse what a cell of a table never holds, or what a report cannot show."""
    if name != name.strip():
        message = "begins or ends with a blank, which no cell's value does; remove it"
        raise ValueError(message)
    if any(unicodedata.category(character) in _NOT_IN_NAMES for character in name):
        message = "holds a line's end or a control character; expected one line of text"
        raise ValueError(message)
    return name


#: A class, as it stands in a cell and in reports.
ClassName = Annotated[
    str, StringConstraints(min_length=1, max_length=_LONGEST_NAME), AfterValidator(_one_line)
]
Classes = Annotated[tuple[ClassName, ...], Field(max_length=MOST_CLASSES)]


def check_once(what: str, names: Sequence[str]) -> None:
    """Refuse a name that stands twice in what a key lists."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        message = f"{what} names {twice[0]} twice"
        raise ValueError(message)


class TaskConfig(Part, ABC):
    """What every task says of itself, by configuration alone: no torch, no patient."""

    @property
    @abstractmethod
    def predicts(self) -> Prediction:
        """Form of a prediction."""

    @property
    @abstractmethod
    def network_kind(self) -> TaskKind:
        """Kind of task whose networks fit: what they are given and have to give."""

    @property
    def outlines(self) -> bool:
        """Whether predictions are label maps, not numbers an item."""
        return isinstance(self.predicts, LabelMap)

    @property
    @abstractmethod
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns of labels.csv that are learned to be predicted."""

    @property
    def two_valued(self) -> tuple[str, ...]:
        """Of these, the ones that hold 0 or 1."""
        return ()

    @property
    def named_values(self) -> Mapping[str, tuple[str, ...]]:
        """Of these, the ones that hold one of some values, and which."""
        return {}

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Of these, the ones that hold a number."""
        return ()

    @property
    def clipped(self) -> Mapping[str, tuple[float, float]]:
        """Of these, the ones whose values beyond two public ends count as the nearer end."""
        return {}

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of a prediction's entries; of a label map's values."""

    @property
    def calibrated(self) -> tuple[str, ...]:
        """Names of what is true or not, and whose probabilities are held against how often."""
        return self.labels

    @property
    @abstractmethod
    def meaning(self) -> str:
        """What a prediction is, in words."""

    @property
    @abstractmethod
    def wordings(self) -> tuple[str, ...]:
        """What each entry of a prediction is, in words, in the order of `labels`."""

    @property
    @abstractmethod
    def question(self) -> str:
        """What is asked, in words."""

    @property
    @abstractmethod
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Classes of which exactly one is true of a patient: each gets a prediction set.

        Either one tuple, of all labels, or one of (without, with) for each label; or none.
        """

    @property
    @abstractmethod
    def outcome_tables(self) -> Mapping[str, tuple[str, ...]]:
        """Rows of each table in which a description of a cohort counts patients by outcome.

        `common.tasks` says in which row of each a target is (`Task.outcome_rows`).
        """

    @property
    @abstractmethod
    def noised_rows(self) -> int:
        """Rows of noised counts of one evaluation: each patient is in one cell of each."""


def each_by_itself(labels: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return (without, with) for each label, none of which excludes another."""
    return tuple((f"not {name}", name) for name in labels)
