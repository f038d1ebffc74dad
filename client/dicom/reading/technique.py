"""How an image was made, as far as rules for series ask (cohort.images.series).

Values that a functional group of an enhanced object says count as the object's where all of its
frames say the same (PS3.3 C.8.13.5); numbers that differ are not said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.dicom.reading.groups import group_item, text_of

#: GE adds multiples of this to a b-value.
_GE_OFFSET = 1e6
#: Element, sequence of the functional group that holds it, its name there.
_IN_GROUPS = {
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
}
#: Frames of an enhanced object that are looked at; one that has more says nothing here.
_MOST_FRAMES = 10_000


@dataclass(frozen=True, kw_only=True)
class Technique:
    """How an image was made; texts are empty and numbers None where it is not said."""

    protocol: str = ""  # ProtocolName
    sequence_name: str = ""
    scanning_sequence: str = ""  # values joined by backslashes: SE, IR, GR
    contrast: str = ""  # ContrastBolusAgent, or the meaning of its code
    kernel: str = ""  # ConvolutionKernel, values joined by backslashes
    view: str = ""  # ViewPosition: CC, MLO, PA
    made: str = ""  # date and time of acquisition, else of the series: YYYYMMDDHHMMSS
    echo_time: float | None = None  # ms
    repetition_time: float | None = None  # ms
    inversion_time: float | None = None  # ms
    b_value: float | None = None  # s/mm2

    def values(self) -> list[str | float | None]:
        """Return the values in the order of the fields, for the index."""
        return list(astuple(self))


def technique_from(values: Iterable[str | float | None]) -> Technique:
    """Return what `Technique.values` gave."""
    return Technique(**dict(zip(Technique.__dataclass_fields__, values, strict=True)))  # type: ignore[arg-type]  # in the order of the fields


def private_b_value(manufacturer: str, siemens: str, ge: str) -> float | None:
    """Return the b-value of Siemens' (0019,100C) or GE's (0043,1039) private element.

    GE's first value counts, without the multiples of a million that it adds.
    """
    maker = manufacturer.strip().upper()
    found = _number(siemens) if maker.startswith("SIEMENS") else None
    if found is None and maker.startswith("GE"):
        found = _number(ge.split("\\", maxsplit=1)[0])
        found = None if found is None else found % _GE_OFFSET
    return found if found is not None and found >= 0 else None


def made_at(*pairs: tuple[str, str]) -> str:
    """Return the first date and time of which both are said, YYYYMMDDHHMMSS and fractions."""
    for date, time in pairs:
        if len(date) == 8 and date.isascii() and date.isdigit() and time[:1].isdigit():
            return date + time.replace(":", "")
    return ""


def of_groups(dataset: Dataset, name: str) -> float | None:
    """Return a number that all frames' functional groups say alike; None where they do not."""
    found = {_single(item, inner) for item, inner in _items(dataset, name)}
    return found.pop() if len(found) == 1 else None


def text_of_groups(dataset: Dataset, name: str) -> str:
    """Return a text that all frames' functional groups say alike; empty where they do not."""
    found = {text_of(item, inner) for item, inner in _items(dataset, name)}
    return found.pop() if len(found) == 1 else ""


def _items(dataset: Dataset, name: str) -> Iterable[tuple[Dataset, str]]:
    if "SharedFunctionalGroupsSequence" not in dataset:
        return
    sequence, inner = _IN_GROUPS[name]
    frames = len(dataset.get("PerFrameFunctionalGroupsSequence") or []) or 1
    for frame in range(frames if frames <= _MOST_FRAMES else 0):
        yield group_item(dataset, frame, sequence) or Dataset(), inner


def _single(item: Dataset, name: str) -> float | None:
    try:
        value = item.get(name)
        several = value if isinstance(value, MultiValue) else [value]
        (only,) = several
        return _number(str(only))
    except ValueError:  # several values, or what pydicom cannot convert
        return None


def contrast_of(dataset: Dataset) -> str:
    """Return the meaning of the codes of contrast agents (PS3.3 C.8.13.7, Enhanced)."""
    codes = dataset.get("ContrastBolusAgentSequence") or []
    return ", ".join(filter(None, (text_of(code, "CodeMeaning") for code in codes)))


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
