"""Section `task`: what is learned to be predicted, and what of it is known without torch.

A task says what others need to know of it (`TaskConfig`), so that nobody asks which task it is.
What is done with tensors stands in common/tasks, one module a task. What shows, calibrates or
explains a prediction goes by its form, which is one of four whatever the task:

    LabelProbabilities    diagnosis, by a horizon, extension   (items, labels)
    SurvivalCurve         prognosis over time                  (items, times)
    LabelMap              segmentation                         (items, *size)
    BoundedNumber         regression                           (items, 1)
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from common.config.extension import ExtensionArguments, ExtensionName
from common.config.ranges import UNKNOWN, bins
from common.config.section import Integer, NonNegativeFloat, Part, PositiveFloat, Real


@dataclass(frozen=True, kw_only=True)
class LabelProbabilities:
    """A probability of each label, (items, labels); a target is 0, 1 or nan of each."""

    exclusive: bool  # labels exclude each other, so that the probabilities add up to 1


@dataclass(frozen=True, kw_only=True)
class SurvivalCurve:
    """The probability of no event until each time, (items, times), falling."""

    event: str  # its name
    times: tuple[float, ...]  # in `unit`, rising
    unit: str


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """A structure's number for each voxel, (items, *size); 0 is background."""

    mask: str  # column with the files of given outlines
    structures: Mapping[str, tuple[int, ...]]  # by name: values in those files


@dataclass(frozen=True, kw_only=True)
class BoundedNumber:
    """A number between public ends, (items, 1)."""

    low: float  # in `unit`, as `high` is
    high: float
    unit: str  # UCUM's code of it, such as %, mL or mm
    center: float  # what an output of 0 means
    scale: float  # by how much one more of the output moves it


Prediction = LabelProbabilities | SurvivalCurve | LabelMap | BoundedNumber
#: Kinds of task that an extension's network or loss says it is made for.
TaskKind = Literal["diagnosis", "prognosis", "segmentation", "regression"]

#: A class is one output, one row of every table and one column of every answer.
MOST_CLASSES = 1000
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
_Classes = Annotated[tuple[ClassName, ...], Field(max_length=MOST_CLASSES)]


def _check_once(what: str, names: Sequence[str]) -> None:
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
    @abstractmethod
    def two_valued(self) -> tuple[str, ...]:
        """Of these, the ones that hold 0 or 1."""

    @property
    @abstractmethod
    def named_values(self) -> Mapping[str, tuple[str, ...]]:
        """Of these, the ones that hold one of some values, and which."""

    @property
    @abstractmethod
    def number_columns(self) -> tuple[str, ...]:
        """Of these, the ones that hold a number."""

    @property
    def clipped(self) -> Mapping[str, tuple[float, float]]:
        """Of these, the ones whose values beyond two public ends count as the nearer end."""
        return {}

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of a prediction's entries; of a label map's values."""

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


class DiagnosisTask(TaskConfig):
    """Classes from images, a table, or both."""

    kind: Literal["diagnosis"]
    type: Literal["binary", "multiclass", "multilabel"] = "binary"
    #: Column of labels.csv (binary, multiclass), or one 0/1 column per label (multilabel).
    target: str | tuple[str, ...]
    #: Multiclass: the values of the target column, in order. Binary: (negative, positive), by
    #: default 0 and 1.
    classes: _Classes = ()

    @model_validator(mode="after")
    def _fits_together(self) -> DiagnosisTask:
        if (self.type == "multilabel") != isinstance(self.target, tuple):
            message = "target is a list of columns when type is multilabel, else one column"
            raise ValueError(message)
        _check_once("classes", self.classes)
        _check_once("target", self.outcome_columns)
        if self.type == "multiclass" and len(self.classes) < 2:
            message = "multiclass needs classes: the values of the target column, two or more"
            raise ValueError(message)
        if self.type == "binary" and len(self.classes) not in {0, 2}:
            message = "binary takes no classes, or two: [negative, positive]"
            raise ValueError(message)
        return self

    @property
    def predicts(self) -> LabelProbabilities:
        """A probability of each label."""
        return LabelProbabilities(exclusive=self.type == "multiclass")

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
        return () if self.type == "multiclass" or self.classes else self.outcome_columns

    @property
    def named_values(self) -> Mapping[str, tuple[str, ...]]:
        """Of these, the ones that hold one of some values, and which."""
        if isinstance(self.target, str) and self.classes:
            return {self.target: self.classes}
        return {}

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Of these, the ones that hold a number."""
        return ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a prediction's entries."""
        match self.type:
            case "binary":
                return (self.classes[1],) if self.classes else self.outcome_columns
            case "multiclass":
                return self.classes
            case "multilabel":
                return self.outcome_columns

    @property
    def meaning(self) -> str:
        """What a prediction is, in words."""
        together = "of each class; they sum to 1"
        return (
            f"probability {together if self.type == 'multiclass' else 'of each label, by itself'}"
        )

    @property
    def wordings(self) -> tuple[str, ...]:
        """What each entry of a prediction is, in words."""
        return tuple(f"probability of {name}" for name in self.labels)

    @property
    def question(self) -> str:
        """What is asked, in words."""
        values = f" ({' or '.join(self.classes)})" if self.classes else ""
        return f"diagnosis: predicts {', '.join(self.outcome_columns)}{values}"

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Classes of which exactly one is true of a patient: each gets a prediction set."""
        if self.classes and self.type != "multilabel":
            return (self.classes,)
        return _each_by_itself(self.labels)

    @property
    def outcome_tables(self) -> Mapping[str, tuple[str, ...]]:
        """Rows of each table in which patients are counted by outcome."""
        if isinstance(self.target, str):
            return {f"class of {self.target}": self.classes or ("0", "1")}
        return {f"label {name}": ("0", "1", UNKNOWN) for name in self.target}

    @property
    def noised_rows(self) -> int:
        """Rows of noised counts of one evaluation: each patient is in one cell of each."""
        return len(self.labels)


class PrognosisTask(TaskConfig):
    """Time to an event by a discrete-time hazard, or an outcome by a fixed horizon."""

    kind: Literal["prognosis"]
    outcome: Literal["survival", "fixed_horizon"] = "survival"
    #: Column with 1 where the event was seen, 0 where follow-up ended first.
    event: str = "event"
    #: Column with the time to event or end of follow-up; optional for a fixed horizon.
    time: str | None = None
    unit: Literal["days", "weeks", "months", "years"] = "days"
    #: Right edges of the intervals in `unit`; public, never taken from the patients.
    intervals: tuple[PositiveFloat, ...] = ()
    #: survival: one risk score and a baseline per interval, or an output per interval.
    hazards: Literal["proportional", "free"] = "proportional"
    #: Fixed horizon, and the time at which survival is summarised, in `unit`.
    horizon: PositiveFloat | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> PrognosisTask:
        if self.outcome == "survival" and (self.time is None or len(self.intervals) < 2):
            message = "survival needs time: COLUMN and intervals: [two or more right edges]"
            raise ValueError(message)
        if list(self.intervals) != sorted(set(self.intervals)):
            message = f"intervals={list(self.intervals)} must rise"
            raise ValueError(message)
        if self.time is not None and self.outcome == "fixed_horizon" and self.horizon is None:
            message = "fixed_horizon with a time column needs horizon"
            raise ValueError(message)
        return self

    @property
    def predicts(self) -> LabelProbabilities | SurvivalCurve:
        """A curve over the intervals, or one probability."""
        if self.outcome == "survival":
            return SurvivalCurve(event=self.event, times=self.intervals, unit=self.unit)
        return LabelProbabilities(exclusive=False)

    @property
    def network_kind(self) -> TaskKind:
        """Kind of task whose networks fit."""
        return self.kind

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns of labels.csv that are learned to be predicted."""
        return (self.event,) if self.time is None else (self.event, self.time)

    @property
    def two_valued(self) -> tuple[str, ...]:
        """Of these, the ones that hold 0 or 1."""
        return (self.event,)

    @property
    def named_values(self) -> Mapping[str, tuple[str, ...]]:
        """Of these, the ones that hold one of some values, and which."""
        return {}

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Of these, the ones that hold a number."""
        return () if self.time is None else (self.time,)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a prediction's entries."""
        if self.outcome == "survival":
            return tuple(f"{edge:g} {self.unit}" for edge in self.intervals)
        return (self.event,)

    @property
    def meaning(self) -> str:
        """What a prediction is, in words."""
        if self.outcome == "survival":
            return "probability of no event until each time"
        return f"probability of the event{self._within}"

    @property
    def wordings(self) -> tuple[str, ...]:
        """What each entry of a prediction is, in words."""
        if self.outcome == "survival":
            return tuple(f"probability of no event until {name}" for name in self.labels)
        return tuple(f"probability of {name}{self._within}" for name in self.labels)

    @property
    def question(self) -> str:
        """What is asked, in words."""
        by = f", by {self.time}" if self.time else ""
        return f"prognosis: predicts {self.event}{self._within}{by}"

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Classes of which exactly one is true of a patient: each gets a prediction set."""
        return () if self.outcome == "survival" else _each_by_itself(self.labels)

    @property
    def outcome_tables(self) -> Mapping[str, tuple[str, ...]]:
        """Rows of each table in which patients are counted by outcome."""
        if self.outcome == "survival":
            return {
                f"outcome {self.event}": ("event", "no event"),
                f"follow-up ({self.unit})": bins((0.0, *self.intervals)),
            }
        return {f"outcome {self.event}": ("event", "no event", UNKNOWN)}

    @property
    def noised_rows(self) -> int:
        """Rows of noised counts of one evaluation: each patient is in one cell of each."""
        return 1

    @property
    def _within(self) -> str:
        return f" within {self.horizon:g} {self.unit}" if self.horizon else ""


class SegmentationTask(TaskConfig):
    """Outlines, in 2-D or 3-D, by Dice and cross-entropy."""

    kind: Literal["segmentation"]
    #: Column of labels.csv with the mask's file, relative to the site's folder.
    mask: str = "mask"
    #: Structures by name: the segment numbers (DICOM SEG) or grey values (PNG, 0 = every
    #: non-zero value) that make them up, e.g. {anterior: [1], posterior: [2]}.
    structures: dict[str, tuple[Integer, ...]] = Field(default={"lesion": (0,)}, min_length=1)
    #: Weight of cross-entropy beside Dice.
    cross_entropy_weight: NonNegativeFloat = 1.0

    @property
    def predicts(self) -> LabelMap:
        """The number of a structure at each voxel."""
        return LabelMap(mask=self.mask, structures=self.structures)

    @property
    def network_kind(self) -> TaskKind:
        """Kind of task whose networks fit."""
        return self.kind

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns of labels.csv that are learned to be predicted."""
        return (self.mask,)

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
    def labels(self) -> tuple[str, ...]:
        """Names of a label map's values."""
        return ("background", *self.structures)

    @property
    def meaning(self) -> str:
        """What a prediction is, in words."""
        return "label of each voxel: the position of its structure's name in labels"

    @property
    def wordings(self) -> tuple[str, ...]:
        """What each value is, in words: its name."""
        return self.labels

    @property
    def question(self) -> str:
        """What is asked, in words."""
        names = ", ".join(self.structures)
        return f"segmentation: outlines {names}, as in the masks of column {self.mask}"

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Classes of which exactly one is true of a patient: each gets a prediction set."""
        return ()

    @property
    def outcome_tables(self) -> Mapping[str, tuple[str, ...]]:
        """Rows of each table in which patients are counted by outcome."""
        return {}

    @property
    def noised_rows(self) -> int:
        """Rows of noised counts of one evaluation: each patient is in one cell of each."""
        return len(self.structures) + (len(self.structures) > 1)


#: Ranges of a target in which a description of a cohort counts patients.
_TARGET_RANGES = 8
#: UCUM's codes have no blank; DICOM holds 16 characters of one (VR SH).
_UCUM = re.compile("[!-~]{1,16}")


def _unit(code: str) -> str:
    if not _UCUM.fullmatch(code):
        message = "expected UCUM's code of a unit, without blanks, such as %, mL, mm or 1 for none"
        raise ValueError(message)
    return code


class RegressionTask(TaskConfig):
    """A number between public ends: an ejection fraction, an age of bones, a volume."""

    kind: Literal["regression"]
    #: Column of labels.csv with the number.
    target: str
    #: What it can be, in `unit`; public, never taken from the patients.
    range: tuple[Real, Real]
    #: UCUM's code of the unit: %, mL, mm, a (years), 1 (none); stands in every result.
    unit: Annotated[str, AfterValidator(_unit)] = "1"
    #: What the network learns is (number - center) / scale; by default the middle and a quarter
    #: of the range. Public, too.
    center: Real | None = None
    scale: PositiveFloat | None = None
    #: Of the scaled number; huber grows as a line beyond 1, so that few outliers say less.
    loss: Literal["huber", "mse"] = "huber"
    #: What becomes of a number beyond the range: its row is left out, or it counts as the end.
    beyond: Literal["leave_out", "clip"] = "leave_out"

    @model_validator(mode="after")
    def _fits_together(self) -> RegressionTask:
        low, high = self.range
        if not low < high:
            message = f"range=[{low:g}, {high:g}] must rise, such as [0, 100]"
            raise ValueError(message)
        if not low <= self.middle <= high:
            message = f"center={self.middle:g} lies outside range=[{low:g}, {high:g}]"
            raise ValueError(message)
        if not (high - low) / 1000 <= self.step <= high - low:
            message = (
                f"scale={self.step:g} is not between a thousandth of range=[{low:g}, {high:g}] "
                "and the whole of it; take the spread of the target that you expect"
            )
            raise ValueError(message)
        return self

    @property
    def middle(self) -> float:
        """The number that an output of 0 means."""
        return sum(self.range) / 2 if self.center is None else self.center

    @property
    def step(self) -> float:
        """By how much one more of the output moves the number."""
        return (self.range[1] - self.range[0]) / 4 if self.scale is None else self.scale

    @property
    def predicts(self) -> BoundedNumber:
        """A number inside the range."""
        low, high = self.range
        return BoundedNumber(
            low=low, high=high, unit=self.unit, center=self.middle, scale=self.step
        )

    @property
    def network_kind(self) -> TaskKind:
        """Kind of task whose networks fit."""
        return self.kind

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns of labels.csv that are learned to be predicted."""
        return (self.target,)

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
        return (self.target,)

    @property
    def clipped(self) -> Mapping[str, tuple[float, float]]:
        """Of these, the ones whose values beyond two public ends count as the nearer end."""
        return {self.target: self.range} if self.beyond == "clip" else {}

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a prediction's entries."""
        return (self.target,)

    @property
    def meaning(self) -> str:
        """What a prediction is, in words."""
        return f"predicted {self.target}{self._in_range}"

    @property
    def wordings(self) -> tuple[str, ...]:
        """What the one entry of a prediction is, in words."""
        return (f"predicted {self.target}",)

    @property
    def question(self) -> str:
        """What is asked, in words."""
        return f"regression: predicts {self.target}{self._in_range}"

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Classes of which exactly one is true of a patient: each gets a prediction set."""
        return ()

    @property
    def outcome_tables(self) -> Mapping[str, tuple[str, ...]]:
        """Rows of each table in which patients are counted by outcome."""
        return {f"target {self.target} ({self.unit})": bins(self.edges)}

    @property
    def edges(self) -> tuple[float, ...]:
        """Lower ends of the ranges in which patients are counted by outcome; public."""
        low, high = self.range
        width = (high - low) / _TARGET_RANGES
        return tuple(low + place * width for place in range(_TARGET_RANGES))

    @property
    def noised_rows(self) -> int:
        """Rows of noised counts of one evaluation: the error's, and the target's."""
        return 2

    @property
    def _in_range(self) -> str:
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f", from {self.range[0]:g} to {self.range[1]:g}{unit}"


class OutcomeColumn(Part):
    """A column of labels.csv that an extension's task makes classes of, and how it is read."""

    column: str
    #: What it may hold, told apart by place from 0; without any it holds a number.
    values: _Classes = ()

    @model_validator(mode="after")
    def _each_once(self) -> OutcomeColumn:
        _check_once(f"values of {self.column}", self.values)
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
    classes: _Classes = Field(min_length=2)

    @model_validator(mode="after")
    def _fits_together(self) -> ExtensionTask:
        _check_once("columns", self.outcome_columns)
        _check_once("classes", self.classes)
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
    def two_valued(self) -> tuple[str, ...]:
        """Of these, the ones that hold 0 or 1."""
        return ()

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


def _each_by_itself(labels: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((f"not {name}", name) for name in labels)


Task = Annotated[
    DiagnosisTask | PrognosisTask | SegmentationTask | RegressionTask | ExtensionTask,
    Field(discriminator="kind"),
]
