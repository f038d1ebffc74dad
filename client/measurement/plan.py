"""MEASURE.yaml: which masks are measured, what is in them, and what is made of several of them.

structures: {rv: [1], myocardium: [2], lv: [3]}   # values in the masks, as in a run's task
masks: {ed: mask_ed, es: mask_es}                 # columns of the table, by what they are of
ejection_fraction: {structures: [lv, rv], end_diastole: ed, end_systole: es}
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from common.config.parts.coded_concept import CodedStructure
from common.config.parts.section import Integer, Part

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,31}")


def _check_names(names: Mapping[str, object], what: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            message = (
                f"the {what} {name!r} becomes part of a column's name: expected up to 32 letters, "
                "digits, _ or -"
            )
            raise ValueError(message)


class FractionPlan(Part):
    """Of which structures an ejection fraction is had, and from which two masks."""

    structures: tuple[str, ...] = Field(min_length=1)
    end_diastole: str
    end_systole: str


class MeasurePlan(Part):
    """What is measured."""

    #: Structures by name: the segment numbers (DICOM SEG, RTSTRUCT) or values (NIfTI) that make
    #: them up; 0 means every one. They may overlap.
    structures: dict[str, tuple[Integer, ...]] = Field(min_length=1, max_length=200)
    #: What structures are called in reports, by a scheme that others know (SNOMED CT).
    codes: dict[str, CodedStructure] = Field(default_factory=dict)
    #: The table's column with the mask's path, where each row has one mask.
    mask: str = "mask"
    #: Or several columns, each by a name that stands in front of what is measured in it.
    masks: dict[str, str] = Field(default_factory=dict, max_length=20)
    ejection_fraction: FractionPlan | None = None
    #: files: the table's column `image` names each row's volume as a NIfTI, as a run's images do
    #: (cohort.images.format).
    format: Literal["dicom", "files"] = "dicom"
    #: Mean, percentiles and the like of the image's values within a structure.
    intensities: bool = True
    #: Of a study with several modalities, those that masks were drawn on; empty: any.
    modalities: tuple[str, ...] = ()

    @field_validator("structures")
    @classmethod
    def _named(cls, structures: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        _check_names(structures, "structure")
        for name, numbers in structures.items():
            if not numbers or min(numbers) < 0:
                message = f"{name} has the values {list(numbers)}, expected one or more from 0 on"
                raise ValueError(message)
        return structures

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_names(self.masks, "mask")
        for name in self.codes:
            if name not in self.structures:
                message = f"codes is of {name!r}, expected a name under structures"
                raise ValueError(message)
        if self.masks and "mask" in self.model_fields_set:
            message = "give mask or masks, not both"
            raise ValueError(message)
        wanted = self.ejection_fraction
        if wanted is None:
            return self
        for key, name in (
            ("end_diastole", wanted.end_diastole),
            ("end_systole", wanted.end_systole),
        ):
            if name not in self.masks:
                message = f"ejection_fraction.{key} is {name!r}, expected a name under masks"
                raise ValueError(message)
        if wanted.end_diastole == wanted.end_systole:
            message = "ejection_fraction takes two masks, and both are the same"
            raise ValueError(message)
        for name in wanted.structures:
            if name not in self.structures:
                message = f"ejection_fraction is of {name!r}, expected a name under structures"
                raise ValueError(message)
        return self

    @property
    def columns(self) -> Mapping[str, str]:
        """Columns of the table by the masks' names; the name of a single mask is empty."""
        return self.masks or {"": self.mask}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is measured."""
        said = json.dumps(self.model_dump(mode="json"))
        return hashlib.sha256(said.encode()).hexdigest()
