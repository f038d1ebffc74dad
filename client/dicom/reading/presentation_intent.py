"""Presentation intent: whether an image is for presentation or for processing.

MONOCHROME1 and rescaling are in client/dicom/reading/rescale.py.
"""

from __future__ import annotations

from pydicom.uid import UID


def units_of(units: str, suv_type: str) -> str:
    """Return the Units of a PET (0054,1001), with SUV Type (0054,1006) where it is no usual one.

    SUV by body weight (BW) is what a type that is not said means (PS3.3 C.8.9.1.1.3); by lean body
    mass or body surface they are other numbers under the same Units.
    """
    kind = suv_type.strip().upper()
    return units if kind in {"", "BW"} or not units else f"{units} by SUVType {kind}"


def presentation_of(intent: str, sop_class: str) -> str:
    """Return for_presentation, for_processing, or nothing where neither is said.

    By Presentation Intent Type (0008,0068; PS3.3 C.8.11.1.1.2) and by the SOP Class, whose name
    says it for mammograms, digital X-rays, dental ones and others. One that is for processing by
    either is: its values follow the dose, often the other way round.
    """
    said = f"{intent.strip().upper()} {UID(sop_class).name.upper() if sop_class else ''}"
    if "FOR PROCESSING" in said:
        return "for_processing"
    return "for_presentation" if "FOR PRESENTATION" in said else ""
