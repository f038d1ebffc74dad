"""Classes that code of others makes of columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from common.config.parts.extension import ExtensionArguments, ExtensionName
from common.config.parts.section import Part
from common.config.tasks.forms import LabelProbabilities, TaskKind
from common.config.tasks.task_config import Classes, TaskConfig, check_once


class OutcomeColumn(Part):
    """A column of labels.csv that an extension's task makes classes of, and how it is read."""

    column: str
    #: What it may hold, told apart by place from 0; without any it holds a number.
    values: Classes = ()

    @model_validator(mode="after")
    def _each_once(self) -> OutcomeColumn:
        check_once(f"values of {self.column}", self.values)
        return self


def _by_column(content: object) -> object:
    """Take a name alone for a column of numbers."""
    return {"column": content} if isinstance(content, str) else content


_Column = Annotated[
    OutcomeColumn, BeforeValidator(_by_column, json_schema_input_type=str | OutcomeColumn)
]


class ExtensionTask(TaskConfig):
    """Classes that exclude each other, made of columns by an extension and learned by its loss.

    All that leaves a site is what a diagnosis of several classes releases.
    """

    kind: Literal["extension"]
    #: DISTRIBUTION/NAME, of the entry points wardround.tasks.
    name: ExtensionName
    arguments: ExtensionArguments = Field(default={}, exclude_if=lambda given: not given)
    #: In the order in which the extension is given their values; a name alone holds numbers.
    columns: tuple[_Column, ...] = Field(min_length=1)
    #: Names of the classes, in the order in which the extension numbers them from 0.
    classes: Classes = Field(min_length=2)

    @model_validator(mode="after")
    def _fits_together(self) -> ExtensionTask:
        check_once("columns", self.outcome_columns)
        check_once("classes", self.classes)
        return self

    @property
    def predicts(self) -> LabelProbabilities:
        """A probability of each class."""
        return LabelProbabilities(exclusive=True)

    @property
    def network_kind(self) -> TaskKind:
        """Kind of task whose networks fit."""
        return "diagnosis"

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns of labels.csv that are learned to be predicted."""
        return tuple(column.column for column in self.columns)

    @property
    def named_values(self) -> Mapping[str, tuple[str, ...]]:
        """Of these, the ones that hold one of some values, and which."""
        return {column.column: column.values for column in self.columns if column.values}

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Of these, the ones that hold a number."""
        return tuple(column.column for column in self.columns if not column.values)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a prediction's entries."""
        return self.classes

    @property
    def meaning(self) -> str:
        """What a prediction is, in words."""
        return "probability of each class; they sum to 1"

    @property
    def wordings(self) -> tuple[str, ...]:
        """What each entry of a prediction is, in words."""
        return tuple(f"probability of {name}" for name in self.classes)

    @property
    def question(self) -> str:
        """What is asked, in words."""
        return (
            f"{self.name}: predicts {' or '.join(self.classes)}, which code of others makes of "
            f"{', '.join(self.outcome_columns)}"
        )

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Classes of which exactly one is true of a patient: each gets a prediction set."""
        return (self.classes,)

    @property
    def outcome_tables(self) -> Mapping[str, tuple[str, ...]]:
        """Rows of each table in which patients are counted by outcome."""
        return {f"class of {self.name}": self.classes}

    @property
    def noised_rows(self) -> int:
        """Rows of noised counts of one evaluation: each patient is in one cell of each."""
        return len(self.classes)
