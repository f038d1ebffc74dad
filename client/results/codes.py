"""Coded names for results: the standard's where it has one, else our own scheme.

Codes of 99WARDROUND follow from their meaning, so that two sites code the same words alike.
A code's value has at most 16 characters and its meaning 64 (VR SH and LO, PS3.5 6.2).
"""

from __future__ import annotations

import hashlib
from enum import Enum

from pydicom.sr.coding import Code

from client.results.score import RATIO as NO_UNIT
from client.site.plain_text import shown
from common.config.parts.coded_concept import CodedConcept, CodedStructure

SCHEME = "99WARDROUND"
#: Stands in every result, word for word.
RESEARCH = "For research use only. Not for clinical decisions."

#: PS3.16 CID 7150.
_CATEGORIES = {
    "anatomy": Code("91723000", "SCT", "Anatomical Structure"),
    "tissue": Code("85756007", "SCT", "Tissue"),
    "abnormal": Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    "substance": Code("91720002", "SCT", "Body Substance"),
    "object": Code("260787004", "SCT", "Physical object"),
}

#: Names of structures -> SNOMED CT, as pydicom's dictionary of PS3.16 has them.
_ANATOMY = {
    "aorta": ("15825003", "Aorta"),
    "bladder": ("89837001", "Bladder"),
    "brain": ("12738006", "Brain"),
    "breast": ("76752008", "Breast"),
    "heart": ("80891009", "Heart"),
    "hippocampus": ("5366008", "Hippocampus"),
    "left ventricle": ("87878005", "Left ventricle"),
    "lv": ("87878005", "Left ventricle"),
    "left ventricle myocardium": ("49848007", "Left Ventricle Myocardium"),
    "right ventricle": ("53085002", "Right ventricle"),
    "rv": ("53085002", "Right ventricle"),
    "kidney": ("64033007", "Kidney"),
    "liver": ("10200004", "Liver"),
    "lung": ("39607008", "Lung"),
    "pancreas": ("15776009", "Pancreas"),
    "prostate": ("41216001", "Prostate"),
    "spleen": ("78961009", "Spleen"),
    "stomach": ("69695003", "Stomach"),
    "thyroid": ("69748006", "Thyroid"),
    "uterus": ("35039007", "Uterus"),
}
_ABNORMAL = {
    "cyst": ("367643001", "Cyst"),
    "edema": ("79654002", "Edema"),
    "lesion": ("52988006", "Lesion"),
    "necrosis": ("6574001", "Necrosis"),
    "nodule": ("27925004", "Nodule"),
    "tumor": ("108369006", "Tumor"),
    "tumour": ("108369006", "Tumor"),
}

#: No unit, that is of a probability or a share; UCUM.
RATIO = Code(NO_UNIT, "UCUM", "ratio")
PIXELS = Code("{pixels}", "UCUM", "Pixels")
MM2 = Code("mm2", "UCUM", "square millimeter")
MM3 = Code("mm3", "UCUM", "cubic millimeter")
VOLUME = Code("118565006", "SCT", "Volume")
AREA = Code("42798000", "SCT", "Area")
#: Of areas, one a slice: the largest.
MAXIMUM = Code("56851009", "SCT", "Maximum")
#: Names of units in words, of those that are likely; any other is its own name.
_UNITS = {
    NO_UNIT: "ratio",
    "1": "no units",
    "%": "Percent",
    "mm": "millimeter",
    "cm": "centimeter",
    "mm2": "square millimeter",
    "cm2": "square centimeter",
    "mm3": "cubic millimeter",
    "cm3": "cubic centimeter",
    "mL": "milliliter",
    "L": "liter",
    "g": "gram",
    "kg": "kilogram",
    "a": "year",
    "mo": "month",
    "d": "day",
    "s": "second",
    "ms": "millisecond",
    "mm[Hg]": "millimeter of mercury",
    "[hnsf'U]": "Hounsfield unit",
    "/mm": "per millimeter",
    "Bq/mL": "becquerel per milliliter",
    "g/mL": "gram per milliliter",
}
YES = Code("373066001", "SCT", "Yes")
NO = Code("373067005", "SCT", "No")
COMMENT = Code("121106", "DCM", "Comment")
#: A picture of a finding.
ILLUSTRATION = Code("121200", "DCM", "Illustration of ROI")
#: PS3.16 TID 1500, row 10.
EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")


#: PS3.16 CID 29, of what is likely to be scored.
MODALITIES = {
    value: Code(value, "DCM", meaning)
    for value, meaning in {
        "CR": "Computed Radiography",
        "CT": "Computed Tomography",
        "DX": "Digital Radiography",
        "ES": "Endoscopy",
        "MG": "Mammography",
        "MR": "Magnetic Resonance",
        "NM": "Nuclear Medicine",
        "OP": "Ophthalmic Photography",
        "OPT": "Ophthalmic Tomography",
        "PT": "Positron emission tomography",
        "RF": "Radiofluoroscopy",
        "RG": "Radiographic imaging",
        "SM": "Slide Microscopy",
        "US": "Ultrasound",
        "XA": "X-Ray Angiography",
        "XC": "External-camera Photography",
    }.items()
}


def short(text: str, most: int = 64) -> str:
    """Return text as an LO may hold it: of one line, without backslash, of so many characters."""
    plain = shown(text).replace("\\", "/").strip() or "unnamed"
    return plain if len(plain) <= most else plain[: most - 3].rstrip() + "..."


def own(meaning: str) -> Code:
    """Return our own code for words."""
    words = short(meaning)
    value = "W" + hashlib.sha256(words.encode()).hexdigest()[:12].upper()
    return Code(value, SCHEME, words)


class Own(Enum):
    """Concepts that the standard has no code for."""

    LOW = own("Lower end of the interval")
    HIGH = own("Upper end of the interval")
    RAW = own("Output of the network before calibration")
    SET = own("Prediction set")
    COVERAGE = own("Coverage that the prediction set promises")
    HELD = own("Part of patients whose number the interval holds")
    ANSWERED = own("The model answers")
    USUAL = own("Share of calibration images less usual than this one")
    NOTHING = own("Empty set")
    ATTRIBUTION = own("Integrated gradients")


def unit_of(code: str) -> Code:
    """Return a unit as UCUM codes it, such as %, mL or mm."""
    return Code(code, "UCUM", _UNITS.get(code, code))


def concept(given: CodedConcept | None, words: str) -> Code:
    """Return the code that the configuration gives, else our own for words."""
    return own(words) if given is None else Code(given.value, given.scheme, given.meaning)


def structure(name: str, given: CodedStructure | None) -> tuple[Code, Code]:
    """Return category and type of a structure (PS3.16 CID 7150 and 7151), as it was configured."""
    if given is not None:
        return _CATEGORIES[given.category], concept(given, name)
    key = name.strip().lower().replace("_", " ")
    if key in _ANATOMY:
        return _CATEGORIES["anatomy"], Code(_ANATOMY[key][0], "SCT", _ANATOMY[key][1])
    if key in _ABNORMAL:
        return _CATEGORIES["abnormal"], Code(_ABNORMAL[key][0], "SCT", _ABNORMAL[key][1])
    return _CATEGORIES["anatomy"], own(name)
