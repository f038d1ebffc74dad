"""Section `task`: diagnosis, prognosis or segmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.config.part import Integer, NonNegativeFloat, Part, PositiveFloat


class DiagnosisTask(Part):
    """Classes from images, a table, or both."""

    kind: Literal["diagnosis"]
    type: Literal["binary", "multiclass", "multilabel"] = "binary"
    #: Column of labels.csv (binary, multiclass), or one 0/1 column per label (multilabel).
    target: str | tuple[str, ...]
    #: Multiclass: the values of the target column, in order. Binary: (negative, positive), by
    #: default 0 and 1.
    classes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> DiagnosisTask:
        if (self.type == "multilabel") != isinstance(self.target, tuple):
            message = "target is a list of columns when type is multilabel, else one column"
            raise ValueError(message)
        if self.type == "multiclass" and len(self.classes) < 2:
            message = "multiclass needs classes: the values of the target column, two or more"
            raise ValueError(message)
        if self.type == "binary" and len(self.classes) not in {0, 2}:
            message = "binary takes no classes, or two: [negative, positive]"
            raise ValueError(message)
        return self


class PrognosisTask(Part):
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


class SegmentationTask(Part):
    """Outlines, in 2-D or 3-D, by Dice and cross-entropy."""

    kind: Literal["segmentation"]
    #: Column of labels.csv with the mask's file, relative to the site's folder.
    mask: str = "mask"
    #: Structures by name: the segment numbers (DICOM SEG) or grey values (PNG, 0 = every
    #: non-zero value) that make them up, e.g. {anterior: [1], posterior: [2]}.
    structures: dict[str, tuple[Integer, ...]] = Field(default={"lesion": (0,)}, min_length=1)
    #: Weight of cross-entropy beside Dice.
    cross_entropy_weight: NonNegativeFloat = 1.0


Task = Annotated[DiagnosisTask | PrognosisTask | SegmentationTask, Field(discriminator="kind")]
