"""Time to an event, or an outcome by a fixed horizon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from common.config.parts.ranges import UNKNOWN, bins
from common.config.parts.section import PositiveFloat
from common.config.tasks.forms import LabelProbabilities, SurvivalCurve, TaskKind
from common.config.tasks.task_config import TaskConfig, each_by_itself


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
        return () if self.outcome == "survival" else each_by_itself(self.labels)

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
