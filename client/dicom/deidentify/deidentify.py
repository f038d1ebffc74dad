"""De-identification of a DICOM image (PS3.15 annex E).

Guarantee: of the source's attributes nothing stays but what `deidentify_table` names, at any
depth; of those that stay, only numbers, defined terms, registered UIDs and codes of PS3.16, each
written anew from its meaning; identifiers by a key that stays here. Preamble, file meta
information and pixel data are written anew as well, so that nothing rides in padding, in unused
bits, in a codec's comments or behind the end. tests/client/dicom/deidentify/test_deidentify.py
plants canaries in all of these places and searches the bytes that come out.

Not guaranteed: what can be seen in the pixels. Text in the picture is refused where the header
or the kind of image makes it likely, unless a person has looked (blanked_text.py helps); a face in
a CT or MR of the head can be rebuilt from it, unless it is taken away (defaced_series.py). Nor is
a patient hidden from somebody who has the same image: its pixels and its acquisition's numbers are
as they were.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from client.dicom.deidentify.attribute_table import IMAGES
from client.dicom.deidentify.burned_in_header import may_show_who
from client.dicom.deidentify.pixel_data import Change, clean_pixels
from client.dicom.deidentify.replaced_values import Cleaner, code
from client.dicom.quiet import quiet
from client.dicom.reading.never_decoded import check_pictured
from client.dicom.reading.read import read_dataset
from client.dicom.reasons import UnusableFile
from client.site.pseudonyms import Pseudonyms

#: Without one of these there is no picture.
_PICTURE = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation", "PixelData"),
)


class Dates(Enum):
    """What becomes of dates; times of day are taken out either way."""

    SHIFT = "shift"  # by a number of days that is the patient's own, so that intervals stay
    REMOVE = "remove"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a person decided about what leaves."""

    dates: Dates = Dates.SHIFT
    keep_characteristics: bool = False  # sex, age, size, weight
    pixels_checked: bool = False  # a person looked, and there is no text in the pictures
    change: Change | None = None  # of the pixels, such as text that is blanked
    deface: Change | None = None  # of the pixels, before that: the face taken away
    faces_checked: bool = False  # a person looked at what became of the faces


class Withheld(Exception):
    """The object cannot be de-identified and stays; the message says why and what helps."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """An object that may leave."""

    patient: str  # pseudonym
    instance: str  # its new SOPInstanceUID
    content: bytes  # of the file


def deidentify(path: Path, names: Pseudonyms, profile: Profile) -> Released:
    """Return a file's de-identified twin; Withheld says why there is none."""
    with quiet():
        try:
            source = read_dataset(path)
            _check(source)
            dataset = _cleaned(source, names, profile)
            _check_pictures(source, profile)
            released = Released(
                patient=str(dataset.PatientID),
                instance=str(dataset.SOPInstanceUID),
                content=_encoded(dataset),
            )
            _check_released(source, released)
        except Withheld:
            raise
        except UnusableFile as problem:
            raise Withheld(f"{problem.reason.value} {problem.detail}".strip()) from problem
        except Exception as error:
            # Whatever a broken file makes pydicom raise: what is not understood stays here.
            message = f"An attribute breaks its type ({type(error).__name__}); export it again."
            raise Withheld(message) from error
        return released


def _check(source: Dataset) -> None:
    """Refuse what no table can clean."""
    sop_class = UID(str(source.get("SOPClassUID") or ""))
    if not sop_class:
        raise Withheld(_lacking("SOPClassUID"))
    if sop_class not in IMAGES:
        message = (
            f"Objects of the class {sop_class.name} are not released: only images are, "
            "as reports, documents and waveforms name people where no rule finds it."
        )
        raise Withheld(message)
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not source.get(name):
            message = f"It has no {name}, so it belongs nowhere. Export it again from the PACS."
            raise Withheld(message)
    for name in _PICTURE:
        if name not in source:
            raise Withheld(_lacking(name))
    if source.get("ModalityLUTSequence"):
        message = "Its values go through a table (Modality LUT), which could hold anything."
        raise Withheld(message)
    check_pictured(source)


def _lacking(name: str) -> str:
    return f"It has no {name}; the file may be cut off. Send it again from the PACS."


def _check_pictures(source: Dataset, profile: Profile) -> None:
    """Withhold what may show who it is; last, so that a person is shown what was blanked."""
    if profile.deface is not None and not profile.faces_checked:
        message = (
            "Its face was taken away. Look at each head in the page; if no face is left and no "
            "brain is gone, give --faces-checked."
        )
        raise Withheld(message)
    why = may_show_who(source, defaced=profile.deface is not None)
    if why and not profile.pixels_checked:
        message = f"{why}. Look at it; if nobody can be recognised, give --pixels-checked."
        raise Withheld(message)


def _cleaned(source: Dataset, names: Pseudonyms, profile: Profile) -> Dataset:
    # A patient without an ID is known by the study alone.
    patient = str(source.get("PatientID") or "").strip() or str(source.StudyInstanceUID)
    cleaner = Cleaner(
        names=names,
        days=names.days(patient) if profile.dates is Dates.SHIFT else None,
        keep_characteristics=profile.keep_characteristics,
    )
    dataset = cleaner.dataset(source)
    clean_pixels(source, dataset, [one for one in (profile.deface, profile.change) if one])
    dataset.PatientID = dataset.PatientName = names.patient(patient)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = ["Wardround: named attributes only", "PS3.15 2026c annex E"]
    dataset.DeidentificationMethodCodeSequence = list(_codes(profile))
    shifted = profile.dates is Dates.SHIFT
    dataset.LongitudinalTemporalInformationModified = "MODIFIED" if shifted else "REMOVED"
    if profile.pixels_checked:
        dataset.BurnedInAnnotation = "NO"
    if profile.deface is not None:
        dataset.RecognizableVisualFeatures = "NO"
    return dataset


def _codes(profile: Profile) -> Iterator[Dataset]:
    """Yield profile and options (PS3.16 CID 7050)."""
    yield code("113100", "Basic Application Confidentiality Profile")
    if profile.change is not None:
        yield code("113101", "Clean Pixel Data Option")
    if profile.deface is not None:
        yield code("113102", "Clean Recognizable Visual Features Option")
    if profile.dates is Dates.SHIFT:
        yield code("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
    if profile.keep_characteristics:
        yield code("113108", "Retain Patient Characteristics Option")


def _encoded(dataset: Dataset) -> bytes:
    """Return the file's bytes: an empty preamble, and no more meta information than needed."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


#: Identifiers that are searched in what was written, as a second look; shorter ones may stand
#: there by chance.
_SEARCHED = (
    "PatientID",
    "PatientName",
    "AccessionNumber",
    "OtherPatientIDs",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
)
_SHORTEST = 6


def _check_released(source: Dataset, released: Released) -> None:
    header, _, _ = released.content.partition(b"\xe0\x7f\x10\x00")  # what is before the pixels
    for name in _SEARCHED:
        value = source.get(name)
        texts = [str(value)] if isinstance(value, str | UID) else [str(v) for v in value or ()]
        if name == "PatientName":
            texts = str(value or "").replace("=", "^").split("^")
        for text in texts:
            whole = rb"(?<![0-9A-Za-z.])" + re.escape(text.encode()) + rb"(?![0-9A-Za-z.])"
            if len(text) >= _SHORTEST and re.search(whole, header):
                message = f"Its {name} is still in what was written, which is a fault of ours."
                raise Withheld(message)
