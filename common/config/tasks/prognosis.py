"""Time to an event, or an outcome by a fixed horizon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from common.config.parts.ranges import UNKNOWN, bins
from common.config.parts.section import PositiveFloat
from common.config.tasks.forms import IncidenceCurves, LabelProbabilities, SurvivalCurve, TaskKind
from common.config.tasks.task_config import (
    Classes,
    ClassName,
    TaskConfig,
    check_once,
    each_by_itself,
)

#: Each has a table of its own risk.
_MOST_CAUSES = 10


class PrognosisTask(TaskConfig):
    """Time to an event by a discrete-time hazard, or an outcome by a fixed horizon."""

    kind: Literal["prognosis"]
    outcome: Literal["survival", "competing", "fixed_horizon"] = "survival"
    #: Column with 1 where the event was seen, 0 where follow-up ended first; competing: the name
    #: of the cause that came first, or `censored`.
    event: str = "event"
    #: Competing: what the event column holds of those who had one of several causes.
    causes: Classes = Field(default=(), exclude_if=lambda given: not given)
    #: Competing: what it holds where follow-up ended before any of them.
    censored: ClassName = Field(default="0", exclude_if=lambda given: given == "0")
    #: Column with the time to event or end of follow-up; optional for a fixed horizon.
    time: str | None = None
    unit: Literal["days", "weeks", "months", "years"] = "days"
    #: Right edges of the intervals in `unit`; public, never taken from the patients.
    intervals: tuple[PositiveFloat, ...] = ()
    #: survival, competing: one risk score (a cause) and a baseline per interval, or an output per
    #: interval.
    hazards: Literal["proportional", "free"] = "proportional"
    #: Fixed horizon, and the time at which survival is summarised, in `unit`.
    horizon: PositiveFloat | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> PrognosisTask:
        over_time = self.outcome in {"survival", "competing"}
        if over_time and (self.time is None or len(self.intervals) < 2):
            message = f"{self.outcome} needs time: COLUMN and intervals: [two or more right edges]"
            raise ValueError(message)
        self._check_causes()
        if list(self.intervals) != sorted(set(self.intervals)):
            message = f"intervals={list(self.intervals)} must rise"
            raise ValueError(message)
        if self.time is not None and self.outcome == "fixed_horizon" and self.horizon is None:
            message = "fixed_horizon with a time column needs horizon"
            raise ValueError(message)
        return self

    def _check_causes(self) -> None:
        if self.outcome != "competing":
            if self.causes or self.censored != "0":
                message = "causes and censored go with outcome: competing; remove them"
                raise ValueError(message)
            return
        if not 2 <= len(self.causes) <= _MOST_CAUSES:
            message = (
                "competing needs causes: what the event column holds, 2 to "
                f"{_MOST_CAUSES} of them; with one take outcome: survival"
            )
            raise ValueError(message)
        check_once("causes and censored", (*self.causes, self.censored))
        if self.horizon is not None and not self.horizon <= self.intervals[-1]:
            message = f"horizon={self.horizon:g} lies beyond the last of intervals"
            raise ValueError(message)

    @property
    def predicts(self) -> LabelProbabilities | SurvivalCurve | IncidenceCurves:
        """A curve over the intervals, one of each cause, or one probability."""
        match self.outcome:
            case "survival":
                return SurvivalCurve(event=self.event, times=self.intervals, unit=self.unit)
            case "competing":
                return IncidenceCurves(causes=self.causes, times=self.intervals, unit=self.unit)
            case "fixed_horizon":
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
        return () if self.outcome == "competing" else (self.event,)

    @property
    def named_values(self) -> Mapping[str, tuple[str, ...]]:
        """Of these, the ones that hold one of some values, and which."""
        competing = self.outcome == "competing"
        return {self.event: (self.censored, *self.causes)} if competing else {}

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Of these, the ones that hold a number."""
        return () if self.time is None else (self.time,)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a prediction's entries."""
        ends = tuple(f"{edge:g} {self.unit}" for edge in self.intervals)
        match self.outcome:
            case "survival":
                return ends
            case "competing":
                return tuple(f"{cause} by {end}" for cause in self.causes for end in ends)
            case "fixed_horizon":
                return (self.event,)

    @property
    def meaning(self) -> str:
        """What a prediction is, in words."""
        if self.outcome == "survival":
            return "probability of no event until each time"
        if self.outcome == "competing":
            return "probability of each cause by each time, before any other"
        return f"probability of the event{self._within}"

    @property
    def wordings(self) -> tuple[str, ...]:
        """What each entry of a prediction is, in words."""
        if self.outcome == "survival":
            return tuple(f"probability of no event until {name}" for name in self.labels)
        if self.outcome == "competing":
            return tuple(f"probability of {name}" for name in self.labels)
        return tuple(f"probability of {name}{self._within}" for name in self.labels)

    @property
    def question(self) -> str:
        """What is asked, in words."""
        by = f", by {self.time}" if self.time else ""
        if self.causes:
            return f"prognosis: predicts {self.event} ({' or '.join(self.causes)}){by}"
        return f"prognosis: predicts {self.event}{self._within}{by}"

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Classes of which exactly one is true of a patient: each gets a prediction set."""
        return each_by_itself(self.labels) if self.outcome == "fixed_horizon" else ()

    @property
    def outcome_tables(self) -> Mapping[str, tuple[str, ...]]:
        """Rows of each table in which patients are counted by outcome."""
        if self.outcome != "fixed_horizon":
            return {
                f"outcome {self.event}": (*(self.causes or ("event",)), "no event"),
                f"follow-up ({self.unit})": bins((0.0, *self.intervals)),
            }
        return {f"outcome {self.event}": ("event", "no event", UNKNOWN)}

    @property
    def noised_rows(self) -> int:
        """Rows of noised counts of one evaluation: each patient is in one cell of each."""
        return 1 + len(self.causes)

    @property
    def _within(self) -> str:
        return f" within {self.horizon:g} {self.unit}" if self.horizon else ""
