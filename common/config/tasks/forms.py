"""Forms of a prediction: what shows, calibrates or explains one goes by these.

LabelProbabilities    diagnosis, by a horizon, extension   (items, labels)
SurvivalCurve         prognosis over time                  (items, times)
IncidenceCurves       prognosis of competing risks         (items, causes x times)
LabelMap              segmentation                         (items, *size)
BoundedNumber         regression                           (items, 1)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from common.config.parts.coded_concept import CodedConcept, CodedStructure


@dataclass(frozen=True, kw_only=True)
class LabelProbabilities:
    """A probability of each label, (items, labels); a target is 0, 1 or nan of each."""

    exclusive: bool  # labels exclude each other, so that the probabilities add up to 1
    ordered: bool = False  # such labels are grades, from the lowest to the highest
    codes: Mapping[str, CodedConcept] = field(default_factory=dict)  # by label, where given


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
    codes: Mapping[str, CodedStructure]  # by name, of those that have one


@dataclass(frozen=True, kw_only=True)
class BoundedNumber:
    """A number between public ends, (items, 1)."""

    low: float  # in `unit`, as `high` is
    high: float
    unit: str  # UCUM's code of it, such as %, mL or mm
    code: CodedConcept | None  # what it is
    center: float  # what an output of 0 means
    scale: float  # by how much one more of the output moves it


@dataclass(frozen=True, kw_only=True)
class IncidenceCurves:
    """The probability of each cause by each time, (items, causes x times), a cause after another.

    Each curve rises; together they stay below 1.
    """

    causes: tuple[str, ...]
    times: tuple[float, ...]  # in `unit`, rising
    unit: str


Prediction = LabelProbabilities | SurvivalCurve | IncidenceCurves | LabelMap | BoundedNumber
#: Kinds of task that an extension's network or loss says it is made for.
TaskKind = Literal["diagnosis", "prognosis", "segmentation", "regression"]
