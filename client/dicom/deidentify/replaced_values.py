"""Values that are kept, each written anew from its meaning."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID
from pydicom.valuerep import DSfloat

from client.dicom.deidentify.attribute_table import ACTIONS, REPLACEMENTS, Action
from client.dicom.deidentify.defined_terms import TERMS, VENDORS
from client.site.pseudonyms import Pseudonyms

_WHOLE = frozenset({"IS", "US", "SS", "UL", "SL", "US or SS", "SV", "UV"})
#: Binary numbers, as struct packs them.
_PACKED = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
#: Significant digits to which fractions are rounded whose bytes could be a word: few enough to
#: break the word, enough for the number. Whole numbers of that kind are taken out.
_DIGITS = {"FL": 3, "FD": 6}
_WORD_BYTES = 6
#: Position decides what a value means, so one that goes leaves a word behind.
_BY_POSITION = frozenset({"ImageType", "FrameType"})
#: PS3.5 6.2: AS. Ages above 89 are rare enough to tell who it is; 90 stands for all of them.
_AGE = re.compile(r"(\d{3})([DWMY])")
_OLDEST = 90
_SCHEMES = frozenset({"DCM", "SCT", "UCUM"})


@cache
def _meanings(scheme: str) -> dict[str, str]:
    """Return code -> meaning of a scheme, as PS3.16 has them."""
    found: dict[str, str] = {}
    if scheme in _SCHEMES:
        for named in concepts[scheme].values():
            if isinstance(named, dict):
                found.update({str(value): str(entry[0]) for value, entry in named.items()})
    return found


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    """Return an item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


@dataclass(frozen=True, kw_only=True)
class Cleaner:
    """Makes a new dataset of one patient's."""

    names: Pseudonyms
    days: int | None  # by which dates go back; None: dates are taken out
    keep_characteristics: bool

    def dataset(self, source: Dataset) -> Dataset:
        """Return what may leave of a dataset or item."""
        found = Dataset()
        for tag in source.keys():  # noqa: SIM118  # iterating a Dataset would parse its values
            action = ACTIONS.get(int(tag))
            if action is None or BaseTag(tag).is_private:
                continue
            try:
                element = self._element(source, BaseTag(tag), action)
            except Exception:  # noqa: BLE001  # pydicom: each type raises its own kind
                element = None  # what breaks its type is taken out, as it could be anything
            if element is not None:
                found.add(element)
        return found

    def _element(self, source: Dataset, tag: BaseTag, action: Action) -> DataElement | None:
        """Return the new element; None where it is taken out."""
        name = keyword_for_tag(tag)
        # What the standard says it is; a file may say otherwise.
        representation = dictionary_VR(tag)
        element = source[tag]
        value = element.value
        if action in {Action.SEQUENCE, Action.CODES}:
            if element.VR != "SQ":
                return None
            items = [self.dataset(item) for item in value]
            if action is Action.CODES:
                items = [found for item in value for found in _known_code(item)]
            return DataElement(tag, "SQ", items)
        if action is Action.NUMBER:
            return _numbers(source, tag, representation, value)
        made: dict[Action, Callable[[], str | list[str] | None]] = {
            Action.TERM: lambda: _terms(name, value),
            Action.UID: lambda: self.names.uid(str(value)) if value else "",
            Action.KNOWN_UID: lambda: str(value) if registered(str(value)) else None,
            Action.DATE: lambda: self._date(str(value or "")),
            Action.DATETIME: lambda: self._date(str(value or "")[:8]) or None,
            Action.TIME: lambda: "000000" if value else "",
            Action.VENDOR: lambda: _vendor(str(value or "")),
            Action.REPLACE: lambda: REPLACEMENTS[name],
            Action.CHARACTERISTIC: lambda: self._characteristic(name, value),
        }
        if action is Action.EMPTY:
            return DataElement(tag, representation, [] if representation == "SQ" else "")
        if action is Action.KNOWN_TAG:
            return DataElement(tag, "AT", _known_tag(value))
        found = made[action]()
        return None if found is None else DataElement(tag, representation, found)

    def _date(self, text: str) -> str:
        """Return a date so many days before; empty where there is none or it is to be."""
        if self.days is None or not text:
            return ""
        try:
            day = datetime.strptime(text.strip().replace(".", ""), "%Y%m%d")  # noqa: DTZ007
        except ValueError:
            return ""
        return f"{day - timedelta(days=self.days):%Y%m%d}"

    def _characteristic(self, name: str, value: object) -> str | None:
        if not self.keep_characteristics:
            return "" if name == "PatientSex" else None
        text = str(value or "").strip()
        if name == "PatientSex":
            return text if text in {"M", "F", "O"} else ""
        if name == "PatientAge":
            age = _AGE.fullmatch(text)
            if age is None:
                return None
            old = age[2] == "Y" and int(age[1]) >= _OLDEST
            return f"{_OLDEST:03d}Y" if old else f"{int(age[1]):03d}{age[2]}"
        return str(_decimal(text))


def _numbers(
    source: Dataset, tag: BaseTag, representation: str, value: object
) -> DataElement | None:
    """Return the numbers, from what they are worth and not from how they were written."""
    if value is None or value == "":
        return DataElement(tag, _vr(source, representation), None)
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    values = list(value) if isinstance(value, Iterable) and several else [value]
    if any(isinstance(v, bytes) for v in values):
        return None
    vr = _vr(source, representation)
    found: list[int] | list[float] | list[DSfloat]
    if vr in _WHOLE:
        found = [_whole(v) for v in values]
    elif vr == "DS":
        found = [_decimal(v) for v in values]
    else:
        found = [_finite(v) for v in values]
    if vr in _PACKED and _reads_as_text(vr, found):
        if vr not in _DIGITS:
            return None
        found = [float(f"{v:.{_DIGITS[vr]}g}") for v in found]
    return DataElement(tag, vr, found if several or len(found) != 1 else found[0])


def _reads_as_text(vr: str, values: Iterable[float]) -> bool:
    """Return whether the bytes of binary numbers could be a word."""
    data = b"".join(struct.pack(f"<{_PACKED[vr]}", value) for value in values)
    return len(data) >= _WORD_BYTES and all(0x20 <= byte < 0x7F for byte in data)


def _vr(source: Dataset, representation: str) -> str:
    if representation != "US or SS":
        return representation
    return "SS" if source.get("PixelRepresentation") == 1 else "US"


def _whole(value: object) -> int:
    number = _finite(value)
    if number != int(number):
        message = "no whole number"
        raise ValueError(message)
    return int(number)


def _finite(value: object) -> float:
    number = float(str(value))
    if not math.isfinite(number):
        message = "no number"
        raise ValueError(message)
    return number


def _decimal(value: object) -> DSfloat:
    return DSfloat(_finite(value), auto_format=True)


def _terms(name: str, value: object) -> str | list[str] | None:
    """Return the defined terms among the values; None where there are none."""
    given = [value] if isinstance(value, str) or value is None else list(_each(value))
    if given in ([None], [""], []):
        return ""
    texts = [str(v or "").strip() for v in given]
    if name in _BY_POSITION:
        return [text if not text or text in TERMS[name] else "OTHER" for text in texts]
    return [text for text in texts if text in TERMS[name]] or ""


def _vendor(text: str) -> str:
    """Return the maker's name in our own writing."""
    said = f"{text.upper()} "
    return next((name for part, name in VENDORS.items() if part in said), "REMOVED")


def _each(value: object) -> Iterator[object]:
    if isinstance(value, Iterable):
        yield from value


def _known_tag(value: object) -> list[BaseTag]:
    """Return attribute tags that PS3.6 registers."""
    values = [value] if isinstance(value, int) else list(_each(value))
    found = [Tag(v) for v in values if isinstance(v, int)]
    if not found or not all(dictionary_has_tag(tag) and not tag.is_private for tag in found):
        message = "not a registered attribute"
        raise ValueError(message)
    return found


def _known_code(item: Dataset) -> Iterator[Dataset]:
    """Yield a code that PS3.16 uses, with the meaning from there; nothing for any other."""
    scheme, value = str(item.get("CodingSchemeDesignator")), str(item.get("CodeValue"))
    if scheme in {"SRT", "SNM3", "99SDM"}:  # SNOMED as it was before (PS3.16 8.1)
        scheme, value = "SCT", mapping["SRT"].get(value, "")
    meaning = _meanings(scheme).get(value)
    if meaning is not None:
        # What is released names no character set, so it is written in ASCII; VR LO.
        yield code(value, meaning.encode("ascii", "ignore").decode()[:64], scheme)


def registered(uid: str) -> bool:
    """Return whether PS3.6 registers a UID."""
    return UID(uid).name != uid
