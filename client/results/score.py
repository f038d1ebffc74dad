"""A model's score of one study, before it becomes DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.radiomics.measured import MeasuredStructure
from common.config.parts.coded_concept import CodedConcept, CodedStructure
from common.config.parts.units import after_number
from common.metrics.shown_probability import shown_probability

#: No unit, that is of a probability or a share; UCUM.
RATIO = "{ratio}"


@dataclass(frozen=True, kw_only=True)
class ModelName:
    """Which model spoke, so that a result can be traced to its run."""

    name: str  # of the run
    fingerprint: str  # SHA-256 of the run's configuration
    weights: str  # SHA-256 of model.safetensors


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number that the model gives, with what is known of its error."""

    label: str  # class, label, or time ("365 days")
    meaning: str  # in words: "probability of malignant", "probability of no event until 365 days"
    value: float  # calibrated where the site has a calibration
    raw: float  # as the network gives it
    low: float | None = None  # interval of the local calibration; None without one
    high: float | None = None
    unit: str = RATIO  # UCUM's code; a probability or share has none
    #: Part of patients like the calibration's whose true number the interval holds; None: it is
    #: what other calibration patients would have led to.
    promise: float | None = None
    code: CodedConcept | None = None  # of what it is; None: `meaning` alone says it
    finding: CodedConcept | None = None  # of the label that it is the probability of

    @property
    def words(self) -> str:
        """The number with its unit and interval."""
        if self.low is None or self.high is None:
            return self._shown(self.value)
        ends = f"{self._shown(self.low)} to {self._shown(self.high)}"
        holds = "" if self.promise is None else f": holds the truth {self.promise:.0%} of the time"
        return f"{self._shown(self.value)} ({ends}{holds})"

    def _shown(self, value: float) -> str:
        if self.unit == RATIO:
            return shown_probability(value)
        return f"{value:.4g}{after_number(self.unit)}"


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """A label map on the grid of the source frames, as they were sent."""

    labels: NDArray[np.uint8]  # (source frames, rows, columns) in the order of Score.sources
    structures: tuple[str, ...]  # names of 1, 2, ...
    codes: Mapping[str, CodedStructure] = field(default_factory=dict)  # by name, where given
    measured: tuple[MeasuredStructure, ...] = ()  # of a volume: of each structure


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Where the network looked, on the grid of one source frame."""

    values: NDArray[np.float32]  # (rows, columns), 0 to 1
    source: int  # position in Score.sources
    frame: int  # of that object, from 0
    method: str  # such as "Grad-CAM"
    label: str  # the quantity that it explains
    #: Of a whole slide, which no frame shows: its small picture, (rows, columns, 3), that the
    #: values lie on.
    picture: NDArray[np.uint8] | None = None


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """How much a clinical column moved a quantity, by integrated gradients."""

    column: str
    value: float  # signed, on the scale of the network's output


@dataclass(frozen=True, kw_only=True)
class Score:
    """A model's answer for one image or series of a study."""

    model: ModelName
    kind: str  # the task's: diagnosis, prognosis, segmentation, regression
    sources: tuple[Path, ...]  # DICOM files that were scored; a series in the order of its slices
    quantities: tuple[Quantity, ...]  # empty for segmentation
    prediction_set: tuple[str, ...] | None  # split conformal's; None: no calibration
    coverage: float | None  # what that set promises, such as 0.9
    abstained: str | None  # why no answer is given; None where it answers
    unlike_training: float | None  # p-value-like: share of calibration images less usual than this
    beside: tuple[Path, ...] = ()  # other files that were read: of other series, times or images
    outlines: Outlines | None = None
    heatmap: Heatmap | None = None
    codes: Mapping[str, CodedConcept] = field(
        default_factory=dict
    )  # of members of the set, by name
    attributions: tuple[Attribution, ...] = ()
