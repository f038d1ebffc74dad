"""Codes by which results name what a run finds: SNOMED CT, LOINC, DICOM or UMLS.

    structures: {tumour: [1]}
    codes: {tumour: {value: "108369006", meaning: Tumor, category: abnormal}}

A code is public and part of the configuration, so that results of all sites say the same.

Public: CodedConcept, CodedStructure.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints, model_validator

from common.config.parts.section import Part

#: Verhoeff's check digit (SNOMED CT release file specifications, 5.5): products in the group of
#: the pentagon, and what the digits' places are permuted by.
_PRODUCTS = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
_PERMUTED = "1576283094"
_FORMS = {
    "SCT": (re.compile("[1-9][0-9]{5,15}"), "6 to 16 digits"),
    "LN": (re.compile("[1-9][0-9]{0,6}-[0-9]"), "digits, a hyphen and a check digit"),
    "DCM": (re.compile("[0-9]{1,16}"), "digits"),
    "UMLS": (re.compile("C[0-9]{7}"), "C and 7 digits"),
}


def _plain(meaning: str) -> str:
    # VR LO (PS3.5 6.2): one line without backslash.
    if meaning != meaning.strip() or "\\" in meaning or not meaning.isprintable():
        message = "expected one line of text, without backslash and blanks at its ends"
        raise ValueError(message)
    return meaning


class CodedConcept(Part):
    """What a number or a structure is, by a scheme that others know."""

    #: Code Value; text, so that no digit is lost.
    value: str
    #: Coding Scheme Designator (PS3.16 8): SNOMED CT, LOINC, DICOM, UMLS.
    scheme: Literal["SCT", "LN", "DCM", "UMLS"] = "SCT"
    #: Code Meaning, as results show it.
    meaning: Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_plain)]

    @model_validator(mode="after")
    def _is_a_code(self) -> CodedConcept:
        form, words = _FORMS[self.scheme]
        if not form.fullmatch(self.value):
            message = f"value={self.value!r} is no code of {self.scheme}: expected {words}"
            raise ValueError(message)
        if self.scheme == "SCT" and not _checks(self.value):
            message = (
                f"value={self.value!r} is no code of SNOMED CT: its last digit does not check "
                "(Verhoeff), so a digit is wrong or two are swapped"
            )
            raise ValueError(message)
        return self


def _checks(digits: str) -> bool:
    """Return whether the last digit is the one that the others ask for."""
    found = 0
    for place, digit in enumerate(reversed(digits)):
        turned = int(digit)
        for _ in range(place % 8):
            turned = int(_PERMUTED[turned])
        found = int(_PRODUCTS[found][turned])
    return found == 0


class CodedStructure(CodedConcept):
    """What an outlined structure is."""

    #: Segmented Property Category (PS3.16 CID 7150).
    category: Literal["anatomy", "tissue", "abnormal", "substance", "object"] = "anatomy"
