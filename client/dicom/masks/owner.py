"""Check that a DICOM mask was drawn on the image that the table names it for.

A mask says of itself which patient, which images and which frame of reference it is of. Where
that contradicts the image it is refused, however well its grid fits: two scans of one protocol
have the same grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydicom import dcmread
from pydicom.dataset import Dataset

from client.dicom.quiet import quiet
from client.dicom.reading.groups import issuer_of, text_of, two_issuers
from client.dicom.reading.read import SEGMENTATIONS
from client.dicom.reasons import Reason, UnusableFile

_TAGS = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"]
_ISSUER = ["IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"]


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose image a mask is for; texts are empty where the image says nothing."""

    patient: str  # PatientID
    issuer: str  # of the PatientID (groups.issuer_of)
    study: str  # StudyInstanceUID
    series: str  # SeriesInstanceUID
    frame_of_reference: str  # UID
    instances: frozenset[str]  # SOPInstanceUIDs
    flat: bool  # a 2-D image, on which nothing is placed by millimetres


def owner_of(path: Path, instances: frozenset[str], *, flat: bool) -> Owner:
    """Return whose image a file is, as the file itself says it."""
    with quiet():
        found = dcmread(path, force=True, stop_before_pixels=True, specific_tags=[*_TAGS, *_ISSUER])
        patient, study, series, frame = (text_of(found, name) for name in _TAGS)
        issuer = issuer_of(found)
    return Owner(
        patient=patient,
        issuer=issuer,
        study=study,
        series=series,
        frame_of_reference=frame,
        instances=instances,
        flat=flat,
    )


def check_owner(mask: Dataset, owner: Owner) -> None:
    """Raise MASK_UNUSABLE for a SEG or structure set of another patient, study or place.

    What references images (PS3.3 C.8.20.2, C.12.4) must name these, with one exception: a
    segmentation for a volume may be drawn on another series of the study, as both lie in one
    frame of reference, by which it is placed (PS3.3 C.7.4.1).
    """
    _check_patient(mask, owner)
    frame = text_of(mask, "FrameOfReferenceUID")
    if frame and owner.frame_of_reference and frame != owner.frame_of_reference:
        _refuse("drawn in another frame of reference")
    if str(mask.get("SOPClassUID") or "") not in SEGMENTATIONS:
        return  # a structure set: its series and frames of reference are checked by region
    instances, series = referenced(mask)
    if instances & owner.instances:
        return
    if instances and owner.flat:
        _refuse("drawn on another image")
    if owner.series in series:
        return
    same_study = text_of(mask, "StudyInstanceUID") == owner.study != ""
    same_place = frame == owner.frame_of_reference != ""
    if not instances and not series:
        if not same_study and not same_place:
            _refuse("names neither images, study nor frame of reference of its image")
    elif not same_study:
        _refuse("drawn on another study")
    elif owner.flat or not same_place:
        _refuse("drawn on another series, and no frame of reference says that both lie alike")


def _check_patient(mask: Dataset, owner: Owner) -> None:
    patient = text_of(mask, "PatientID")
    if patient and owner.patient and patient != owner.patient:
        _refuse("drawn on another patient's image")
    if two_issuers({issuer_of(mask), owner.issuer}):
        _refuse("drawn on the image of a patient of another issuer (0010,0021 or 0010,0024)")


def parts_of(mask: Dataset) -> dict[int, str]:
    """Return number -> label of a SEG's segments, or of a structure set's regions."""
    if str(mask.get("SOPClassUID") or "") in SEGMENTATIONS:
        items = mask.get("SegmentSequence") or ()
        return {int(i.SegmentNumber): text_of(i, "SegmentLabel") for i in items if i.SegmentNumber}
    items = mask.get("StructureSetROISequence") or ()
    return {int(item.ROINumber): text_of(item, "ROIName") for item in items}


def plain_name(name: str) -> str:
    """Return a label without capitals, blanks and signs, as people write them differently."""
    return "".join(c for c in name.casefold() if c.isalnum())


def referenced(mask: Dataset) -> tuple[set[str], set[str]]:
    """Return the instances and series that a segmentation or structure set was drawn on."""
    instances: set[str] = set()
    series: set[str] = set()
    studies = mask.get("StudiesContainingOtherReferencedInstancesSequence") or ()
    for holder in (mask, *studies):
        for item in holder.get("ReferencedSeriesSequence") or ():
            series.add(text_of(item, "SeriesInstanceUID"))
            instances |= _instances(item.get("ReferencedInstanceSequence"))
    for frame in mask.get("ReferencedFrameOfReferenceSequence") or ():  # PS3.3 C.8.8.5
        for study in frame.get("RTReferencedStudySequence") or ():
            for item in study.get("RTReferencedSeriesSequence") or ():
                series.add(text_of(item, "SeriesInstanceUID"))
                instances |= _instances(item.get("ContourImageSequence"))
    instances |= _instances(mask.get("SourceImageSequence"))
    for derivation in _derivations(mask):
        instances |= _instances(derivation.get("SourceImageSequence"))
    return instances - {""}, series - {""}


def _derivations(mask: Dataset) -> Iterator[Dataset]:
    groups = (
        *(mask.get("SharedFunctionalGroupsSequence") or ()),
        *(mask.get("PerFrameFunctionalGroupsSequence") or ()),
    )
    for group in groups:
        yield from group.get("DerivationImageSequence") or ()


def _instances(items: Iterable[Dataset] | None) -> set[str]:
    return {text_of(item, "ReferencedSOPInstanceUID") for item in items or ()}


def _refuse(detail: str) -> NoReturn:
    raise UnusableFile(Reason.MASK_UNUSABLE, detail)
