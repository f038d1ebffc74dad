"""Classes from images, a table, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from common.config.parts.coded_concept import CodedConcept
from common.config.parts.ranges import UNKNOWN
from common.config.tasks.forms import LabelProbabilities, TaskKind
from common.config.tasks.task_config import (
    MOST_GRADES,
    Classes,
    TaskConfig,
    check_once,
    each_by_itself,
)


class DiagnosisTask(TaskConfig):
    """Classes from images, a table, or both."""

    kind: Literal["diagnosis"]
    type: Literal["binary", "multiclass", "ordinal", "multilabel"] = "binary"
    #: Column of labels.csv, or one 0/1 column per label (multilabel).
    target: str | tuple[str, ...]
    #: Multiclass: the values of the target column, in order. Ordinal: its grades, from the lowest
    #: to the highest. Binary: (negative, positive), by default 0 and 1.
    classes: Classes = ()
    #: What labels are, by class or, without classes, by column, as SR and FHIR say it; names alone
    #: where none is given.
    codes: dict[str, CodedConcept] = Field(default={}, exclude_if=lambda given: not given)

    @model_validator(mode="after")
    def _fits_together(self) -> DiagnosisTask:
        if (self.type == "multilabel") != isinstance(self.target, tuple):
            message = "target is a list of columns when type is multilabel, else one column"
            raise ValueError(message)
        check_once("classes", self.classes)
        check_once("target", self.outcome_columns)
        if self.type == "multiclass" and len(self.classes) < 2:
            message = "multiclass needs classes: the values of the target column, two or more"
            raise ValueError(message)
        if self.type == "ordinal" and not 3 <= len(self.classes) <= MOST_GRADES:
            message = (
                "ordinal needs classes: the grades in the target column, from the lowest to the "
                f"highest, 3 to {MOST_GRADES} of them; with two take type: binary"
            )
            raise ValueError(message)
        if self.type == "binary" and len(self.classes) not in {0, 2}:
            message = "binary takes no classes, or two: [negative, positive]"
            raise ValueError(message)
        known = self.classes or self.outcome_columns
        for name in self.codes:
            if name not in known:
                message = f"codes names {name}, which is none of its labels: {', '.join(known)}"
                raise ValueError(message)
        return self

    @property
    def predicts(self) -> LabelProbabilities:
        """A probability of each label."""
        return LabelProbabilities(
            exclusive=self._one_of_several, ordered=self.type == "ordinal", codes=self.codes
        )

    @property
    def network_kind(self) -> TaskKind:
        """Kind of task whose networks fit."""
        return self.kind

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns of labels.csv that are learned to be predicted."""
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def two_valued(self) -> tuple[str, ...]:
        """Of these, the ones that hold 0 or 1."""
        return () if self.classes else self.outcome_columns

    @property
    def named_values(self) -> Mapping[str, tuple[str, ...]]:
        """Of these, the ones that hold one of some values, and which."""
        if isinstance(self.target, str) and self.classes:
            return {self.target: self.classes}
        return {}

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a prediction's entries."""
        match self.type:
            case "binary":
                return (self.classes[1],) if self.classes else self.outcome_columns
            case "multiclass" | "ordinal":
                return self.classes
            case "multilabel":
                return self.outcome_columns

    @property
    def calibrated(self) -> tuple[str, ...]:
        """Names of what is true or not: each label, or lying above each grade."""
        if self.type == "ordinal":
            return tuple(f"above {name}" for name in self.classes[:-1])
        return self.labels

    @property
    def meaning(self) -> str:
        """What a prediction is, in words."""
        match self.type:
            case "multiclass":
                return "probability of each class; they sum to 1"
            case "ordinal":
                return "probability of each grade, from the lowest to the highest; they sum to 1"
            case "binary" | "multilabel":
                return "probability of each label, by itself"

    @property
    def wordings(self) -> tuple[str, ...]:
        """What each entry of a prediction is, in words."""
        return tuple(f"probability of {name}" for name in self.labels)

    @property
    def question(self) -> str:
        """What is asked, in words."""
        between = " < " if self.type == "ordinal" else " or "
        values = f" ({between.join(self.classes)})" if self.classes else ""
        return f"diagnosis: predicts {', '.join(self.outcome_columns)}{values}"

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Classes of which exactly one is true of a patient: each gets a prediction set."""
        if self.classes and self.type != "multilabel":
            return (self.classes,)
        return each_by_itself(self.labels)

    @property
    def outcome_tables(self) -> Mapping[str, tuple[str, ...]]:
        """Rows of each table in which patients are counted by outcome."""
        if isinstance(self.target, str):
            return {f"class of {self.target}": self.classes or ("0", "1")}
        return {f"label {name}": ("0", "1", UNKNOWN) for name in self.target}

    @property
    def noised_rows(self) -> int:
        """Rows of noised counts of one evaluation: each patient is in one cell of each."""
        return 2 if self.type == "ordinal" else len(self.labels)

    @property
    def _one_of_several(self) -> bool:
        return self.type in {"multiclass", "ordinal"}
