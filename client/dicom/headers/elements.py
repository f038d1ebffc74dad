"""A header's elements by name, from scanned bytes or from a parsed dataset.

Both answer alike, and a test compares them on every file there is. What the scanned bytes cannot
answer exactly as pydicom would is refused by `UnusualHeader`, and the parsed dataset answers
instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from struct import Struct
from typing import Protocol

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.dicom.headers.wanted import B_VALUES, DIGITS_IN, PRIVATE, SHORTS
from client.dicom.reading.frame_times import FrameFacts, facts_of_frames
from client.dicom.reading.groups import as_integer, issuer_of, text_of
from client.dicom.reading.read import (
    ACQUIRED,
    SHAPES,
    Cosines,
    PixelShape,
    Position,
    acquired_of,
    geometry_of,
    shape_from,
    shape_of,
    single,
)
from client.dicom.reading.technique import (
    Technique,
    contrast_of,
    made_at,
    of_groups,
    private_b_value,
    text_of_groups,
)
from client.dicom.reading.tracer import Tracer, tracer_of

#: Character sets whose ASCII bytes are ASCII; with them, plain bytes need no decoder.
_PLAIN = frozenset(
    {
        b"",
        b"ISO_IR 6",
        b"ISO_IR 100",
        b"ISO_IR 101",
        b"ISO_IR 109",
        b"ISO_IR 110",
        b"ISO_IR 144",
        b"ISO_IR 127",
        b"ISO_IR 126",
        b"ISO_IR 138",
        b"ISO_IR 148",
        b"ISO_IR 192",
        b"GB18030",
    }
)
_PYTHON = {b"ISO_IR 100": "latin_1", b"ISO_IR 192": "utf_8"}
_DECIMAL = re.compile(rb" *[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})? *\0?\Z")
#: The one binary number among what is wanted (FD).
_DOUBLE = Struct("<d")
_INTEGER = re.compile(rb" *[+-]?\d{1,12} *\0?\Z")
#: A backslash parts values, escape switches the character set, the others need pydicom's eye.
_SPECIAL = re.compile(rb"[\\\x00-\x1f]")


class UnusualHeader(Exception):
    """The bytes are beyond the easy case; pydicom shall read the file."""


class Elements(Protocol):
    """A header's elements by keyword."""

    def text(self, keyword: str) -> str:
        """Return one value as text, stripped; empty where there is none."""

    def joined(self, keyword: str) -> str:
        """Return all values, joined by backslashes."""

    def integer(self, keyword: str) -> int:
        """Return a whole number; 0 where there is none."""

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """Return so many finite numbers, or none at all."""

    def geometry(self, frames: int) -> tuple[tuple[Position, ...], tuple[Cosines, ...]]:
        """Return position and orientation of each frame, or two empty tuples."""

    def shape(self) -> PixelShape:
        """Return what is told of a pixel's size and shape."""

    def acquired(self) -> tuple[float | None, ...]:
        """Return what tells slices of one place apart (read.ACQUIRED)."""

    def technique(self) -> Technique:
        """Return how the image was made, as far as rules for series ask."""

    def tracer(self) -> Tracer | None:
        """Return what a PET says of dose, patient and times; None for another image."""

    def each(self, frames: int) -> tuple[FrameFacts, ...]:
        """Return what each of several frames says of its time, echo or weighting."""

    def issuer(self) -> str:
        """Return who issued the PatientID: name, universal entity ID, type, by backslashes."""

    def holds(self, keyword: str) -> bool:
        """Return whether a sequence is there and has items."""


@dataclass(frozen=True)
class Scanned:
    """Elements of a file of the easy case: bytes by keyword."""

    values: Mapping[str, bytes]

    def text(self, keyword: str) -> str:
        """Return one value as text, stripped."""
        raw = self.values.get(keyword)
        if not raw:
            return ""
        raw = raw.strip(b" \0")
        if raw.isascii() and self.values.get("SpecificCharacterSet", b"").strip() in _PLAIN:
            if _SPECIAL.search(raw):
                raise UnusualHeader
            return raw.decode("ascii")
        return self._decoded(raw)

    def _decoded(self, raw: bytes) -> str:
        name = _PYTHON.get(self.values.get("SpecificCharacterSet", b"").strip())
        if name is None or _SPECIAL.search(raw):
            raise UnusualHeader
        try:
            return raw.decode(name).strip(" \0")
        except UnicodeDecodeError as error:
            raise UnusualHeader from error

    def joined(self, keyword: str) -> str:
        """Return all values, joined by backslashes."""
        raw = self.values.get(keyword, b"")
        if not raw.isascii() or b"\0" in raw[:-1] or b"\x1b" in raw:
            raise UnusualHeader
        return "\\".join(part.strip(" \0") for part in raw.decode("ascii").split("\\"))

    def integer(self, keyword: str) -> int:
        """Return a whole number; 0 where there is none."""
        raw = self.values.get(keyword)
        if not raw:
            return 0
        if keyword in SHORTS:
            if len(raw) != 2:
                if keyword in PRIVATE:
                    return 0
                raise UnusualHeader
            return int.from_bytes(raw, "little")
        if not _INTEGER.match(raw):
            raise UnusualHeader
        return as_integer(int(raw.strip(b" \0")))

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """Return so many finite numbers, or none at all."""
        raw = self.values.get(keyword)
        if not raw or not raw.strip(b" \0"):
            return ()
        parts = raw.split(b"\\")
        if len(parts) == 1 and count > 1:
            raise UnusualHeader
        for part in parts:
            if not _DECIMAL.match(part):
                raise UnusualHeader
        found = tuple([float(part.strip(b" \0")) for part in parts])
        return found if len(found) == count and all(map(isfinite, found)) else ()

    def geometry(self, frames: int) -> tuple[tuple[Position, ...], tuple[Cosines, ...]]:
        """Return position and orientation of the one frame there is."""
        if frames != 1:
            raise UnusualHeader
        where = self.numbers("ImagePositionPatient", 3)
        cosines = self.numbers("ImageOrientationPatient", 6)
        if not where or not cosines:
            return (), ()
        x, y, z = where
        a, b, c, d, e, f = cosines
        return ((x, y, z),), ((a, b, c, d, e, f),)

    def shape(self) -> PixelShape:
        """Return what is told of a pixel's size and shape."""
        said = [self.numbers(name, 2) for name in SHAPES]
        found = said[0] or said[1]
        return shape_from((found[0], found[1]) if found else None, said, ())

    def acquired(self) -> tuple[float | None, ...]:
        """Return what tells slices of one place apart."""
        return tuple(map(self._single, ACQUIRED))

    def _single(self, keyword: str) -> float | None:
        raw = self.values.get(keyword)
        if raw and keyword in SHORTS:
            return float(self.integer(keyword))
        if not raw or keyword != "DiffusionBValue":
            return next(iter(self.numbers(keyword, 1)), None)
        if len(raw) != _DOUBLE.size:
            raise UnusualHeader
        (found,) = _DOUBLE.unpack(raw)
        return found if isfinite(found) else None

    def technique(self) -> Technique:
        """Return how the image was made."""
        return _technique(self, self._b_value())

    def _b_value(self) -> float | None:
        raw = {name: self.values.get(name, b"") for name in B_VALUES}
        siemens, ge = (
            raw[name].decode("ascii", "replace") for name in ("SiemensBValue", "GeBValue")
        )
        return private_b_value(self.text("Manufacturer"), siemens.strip(" \0"), ge.strip(" \0"))

    def number(self, keyword: str) -> float | None:
        """Return one number."""
        return self._single(keyword)

    def tracer(self) -> Tracer | None:
        """Return None; a PET is none of the easy case."""
        if self.values.get("Modality", b"").strip(b" \0") == b"PT":
            raise UnusualHeader
        return None

    def each(self, frames: int) -> tuple[FrameFacts, ...]:
        """Return nothing; several frames are none of the easy case."""
        if frames > 1:
            raise UnusualHeader
        return ()

    def issuer(self) -> str:
        """Return who issued the PatientID; qualifiers are none of the easy case."""
        return self.text("IssuerOfPatientID")

    def holds(self, keyword: str) -> bool:
        """Return False: a file with a sequence that matters here is none of the easy case."""
        del keyword
        return False


#: Fields of Technique that are numbers, and their elements.
_NUMBERS = {
    "echo_time": "EchoTime",
    "repetition_time": "RepetitionTime",
    "inversion_time": "InversionTime",
    "b_value": "DiffusionBValue",
}


def _technique(elements: Scanned | Parsed, private: float | None) -> Technique:
    """Return what the object itself says of how it was made."""
    acquired, series = (
        (elements.text(f"{name}Date"), elements.text(f"{name}Time"))
        for name in ("Acquisition", "Series")
    )
    b_value = elements.number("DiffusionBValue")
    return Technique(
        protocol=elements.text("ProtocolName"),
        sequence_name=elements.text("SequenceName"),
        scanning_sequence=elements.joined("ScanningSequence"),
        contrast=elements.text("ContrastBolusAgent"),
        kernel=elements.joined("ConvolutionKernel"),
        view=elements.text("ViewPosition"),
        made=made_at(acquired, series),
        echo_time=elements.number("EchoTime"),
        repetition_time=elements.number("RepetitionTime"),
        inversion_time=elements.number("InversionTime"),
        b_value=private if b_value is None else b_value,
    )


@dataclass(frozen=True)
class Parsed:
    """Elements of a dataset that pydicom parsed."""

    dataset: Dataset

    def text(self, keyword: str) -> str:
        """Return one value as text, stripped."""
        if keyword in PRIVATE:
            value = self._private(keyword)
            return (
                value.decode("ascii", "replace").strip(" \0")
                if isinstance(value, bytes)
                else (str(value or "").strip(" \0"))
            )
        return text_of(self.dataset, keyword)

    def joined(self, keyword: str) -> str:
        """Return all values, joined by backslashes."""
        value = self.dataset.get(keyword)
        if value is None:
            return ""
        parts = [value] if isinstance(value, str) else value
        return "\\".join(str(part).strip(" \0") for part in parts)

    def integer(self, keyword: str) -> int:
        """Return a whole number; 0 where there is none."""
        if keyword in PRIVATE:
            value = self._private(keyword)
            if isinstance(value, bytes):
                return int.from_bytes(value, "little") if len(value) == 2 else 0
            return value if isinstance(value, int) else 0
        return as_integer(int(self.dataset.get(keyword) or 0))

    def _private(self, keyword: str) -> object:
        """Return a private element's value; bytes where nothing says what they are."""
        tag = PRIVATE[keyword]
        return self.dataset[tag].value if tag in self.dataset else None

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """Return so many finite numbers, or none at all."""
        value = self.dataset.get(keyword)
        if value is None or value == "":
            return ()
        found = [float(value)] if count == 1 else [float(part) for part in value]
        return tuple(found) if len(found) == count and np.isfinite(found).all() else ()

    def geometry(self, frames: int) -> tuple[tuple[Position, ...], tuple[Cosines, ...]]:
        """Return position and orientation of each frame, or two empty tuples."""
        return geometry_of(self.dataset, frames)

    def shape(self) -> PixelShape:
        """Return what is told of a pixel's size and shape."""
        return shape_of(self.dataset)

    def acquired(self) -> tuple[float | None, ...]:
        """Return what tells slices of one place apart."""
        return acquired_of(self.dataset)

    def technique(self) -> Technique:
        """Return how the image was made; where the object does not say it, by its groups."""
        found, data = _technique(self, self._b_value()), self.dataset
        echo, repetition, inversion, b_value = (
            of_groups(data, keyword) if getattr(found, field) is None else getattr(found, field)
            for field, keyword in _NUMBERS.items()
        )
        return replace(
            found,
            contrast=found.contrast or contrast_of(data),
            kernel=found.kernel or text_of_groups(data, "ConvolutionKernel"),
            echo_time=echo,
            repetition_time=repetition,
            inversion_time=inversion,
            b_value=b_value,
        )

    def _b_value(self) -> float | None:
        siemens, ge = (self._digits(name) for name in ("SiemensBValue", "GeBValue"))
        return private_b_value(self.text("Manufacturer"), siemens, ge)

    def _digits(self, keyword: str) -> str:
        """Return what lies in the file, which pydicom might refuse to convert."""
        tag = PRIVATE[keyword]
        found = self.dataset.get_item(tag) if tag in self.dataset else None
        if found is None or found.VR not in DIGITS_IN:
            return ""
        value = found.value
        if isinstance(value, bytes):
            return value.decode("ascii", "replace").strip(" \0")
        return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value or "")

    def number(self, keyword: str) -> float | None:
        """Return one number."""
        return single(self.dataset, keyword)

    def tracer(self) -> Tracer | None:
        """Return what a PET says of dose, patient and times."""
        return tracer_of(self.dataset)

    def each(self, frames: int) -> tuple[FrameFacts, ...]:
        """Return what each of several frames says of its time, echo or weighting."""
        return facts_of_frames(self.dataset, frames)

    def issuer(self) -> str:
        """Return who issued the PatientID."""
        return issuer_of(self.dataset)

    def holds(self, keyword: str) -> bool:
        """Return whether a sequence is there and has items."""
        return bool(self.dataset.get(keyword))
