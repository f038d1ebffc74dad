"""Patient and study attributes that a result takes over from its source."""

from __future__ import annotations

import warnings

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import validate_value

#: Type 2 of the modules Patient and General Study (PS3.3 C.7.1.1, C.7.2.1): a result has them,
#: empty where the source lacks them.
_ALWAYS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
#: Type 3: taken over where they are, so that the PACS files the result beside its source.
_WHERE_THERE = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
)
#: As they are, even where they break their type: the PACS files by them.
_VERBATIM = frozenset({"PatientID", "PatientName"})
_SEXES = {"M", "F", "O", ""}
#: ACR-NEMA wrote 1997.04.24 and 14:04:38 (PS3.5 6.2, DA and TM).
_SEPARATORS = {"DA": ".", "TM": ":"}


def patient_and_study(header: Dataset) -> Dataset:
    """Return the attributes that a result shares with its source, in UTF-8.

    A value that breaks its type is emptied or, for dates and times of ACR-NEMA, mended: a
    result has to be valid even where its source is not.
    """
    found = Dataset()
    # UTF-8: labels are in the words of the run, names in those of the source.
    found.SpecificCharacterSet = "ISO_IR 192"
    for name in (*_ALWAYS, *_WHERE_THERE):
        element = _valid(header, name)
        if element is not None:
            found.add(element)
        elif name in _ALWAYS:
            setattr(found, name, "")
    found.StudyInstanceUID = header.StudyInstanceUID  # as it is: the PACS files by it
    if found.PatientSex not in _SEXES:
        found.PatientSex = ""
    return found


def _valid(header: Dataset, name: str) -> DataElement | None:
    """Return an element whose value its type allows; None where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            element = header[name]
            if element.VR == "SQ":
                return element
            value = "" if element.value is None else str(element.value)
            if isinstance(element.value, MultiValue):
                value = "\\".join(str(one) for one in element.value)
        except Exception:  # noqa: BLE001  # pydicom: each type raises its own kind on bad values
            return None
    representation = dictionary_VR(element.tag)  # what it should be, not what the file says
    value = value.replace(_SEPARATORS.get(representation, "\0"), "").strip("\0 ")
    try:
        if name not in _VERBATIM:
            validate_value(representation, value, config.RAISE)
    except ValueError:
        return None
    return DataElement(element.tag, representation, value)
