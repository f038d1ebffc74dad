"""Outlines, in 2-D or 3-D."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from common.config.parts.coded_concept import CodedStructure
from common.config.parts.section import Integer, NonNegativeFloat
from common.config.tasks.forms import LabelMap, TaskKind
from common.config.tasks.task_config import TaskConfig


class SegmentationTask(TaskConfig):
    """Outlines, in 2-D or 3-D, by Dice and cross-entropy."""

    kind: Literal["segmentation"]
    #: Column of labels.csv with the mask's file, relative to the site's folder.
    mask: str = "mask"
    #: Structures by name: the segment numbers (DICOM SEG) or grey values (PNG, 0 = every
    #: non-zero value) that make them up, e.g. {anterior: [1], posterior: [2]}.
    structures: dict[str, tuple[Integer, ...]] = Field(default={"lesion": (0,)}, min_length=1)
    #: What structures are, by name, as SEG, SR and FHIR say it; names alone where none is given.
    codes: dict[str, CodedStructure] = Field(default={}, exclude_if=lambda given: not given)
    #: Weight of cross-entropy beside Dice.
    cross_entropy_weight: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _codes_are_of_structures(self) -> SegmentationTask:
        for name in self.codes:
            if name not in self.structures:
                known = ", ".join(self.structures)
                message = f"codes names {name}, which is none of structures: {known}"
                raise ValueError(message)
        return self

    @property
    def predicts(self) -> LabelMap:
        """The number of a structure at each voxel."""
        return LabelMap(mask=self.mask, structures=self.structures, codes=self.codes)

    @property
    def network_kind(self) -> TaskKind:
        """Kind of task whose networks fit."""
        return self.kind

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns of labels.csv that are learned to be predicted."""
        return (self.mask,)

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
