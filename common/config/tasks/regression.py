"""A number between public ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from common.config.parts.coded_concept import CodedConcept
from common.config.parts.ranges import bins
from common.config.parts.section import PositiveFloat, Real
from common.config.parts.units import NO_UNIT, Unit, after_number
from common.config.tasks.forms import BoundedNumber, TaskKind
from common.config.tasks.task_config import TaskConfig

#: Ranges of a target in which a description of a cohort counts patients.
_TARGET_RANGES = 8


class RegressionTask(TaskConfig):
    """A number between public ends: an ejection fraction, an age of bones, a volume."""

    kind: Literal["regression"]
    #: Column of labels.csv with the number.
    target: str
    #: What it can be, in `unit`; public, never taken from the patients.
    range: tuple[Real, Real]
    #: UCUM's code of the unit: %, mL, mm, a (years), 1 (none); stands in every result.
    unit: Unit = NO_UNIT
    #: What the number is, as SR and FHIR say it; the words "predicted TARGET" where none is given.
    code: CodedConcept | None = Field(default=None, exclude_if=lambda given: given is None)
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
            low=low, high=high, unit=self.unit, code=self.code, center=self.middle, scale=self.step
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
        return f", from {self.range[0]:g} to {self.range[1]:g}{after_number(self.unit)}"
