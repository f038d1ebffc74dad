"""What each number of a report was inferred from (PS3.16 TID 300, row 9, and TID 320).

A viewer shows a number where its coordinates are, so each has some: the line around what is drawn,
on the image that shows most of it, and beside it the segment that was measured. A number of the
images as a whole has the line around a whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from client.dicom.codec.decode import frames_of
from client.radiomics.outline import Points, whole
from client.results import codes
from client.results.codes import short

if TYPE_CHECKING:
    from highdicom.sr import ContentItem, ContentSequence, TimePointContext

    Group = TypeVar("Group", bound=ContentSequence)

_SOURCE = Code("121112", "DCM", "Source of Measurement")
#: By this name, before the first colon, viewers that are built on Cornerstone choose the tool
#: that shows a group; what comes after the second is ours.
_TOOLS = "Cornerstone3DTools@^0.1.0"
#: PS3.16 CID 280, by LongitudinalTemporalEventType (PS3.3 C.7.2.3).
_EVENTS = {
    "BASELINE": Code("121079", "DCM", "Baseline"),
    "ENROLLMENT": Code("C37948", "NCIt", "Enrollment"),
}


@dataclass(frozen=True, kw_only=True)
class NumberOrigin:
    """What numbers were inferred from."""

    image: Dataset  # header of the image that shows it
    frame: int  # of the image, from 0
    points: Points | None = None  # the closed line around it; None: the image as a whole
    segmentation: Dataset | None = None  # the SEG that holds it; None: none does
    segment: int = 0  # its number there
    frames: tuple[int, ...] = ()  # of the SEG, from 1; empty: all of the segment

    def called(self, words: str) -> str:
        """Return a group's tracking identifier, by which a viewer chooses how to show it."""
        tool = "RectangleROI" if self.points is None else "PlanarFreehandROI"
        return f"{_TOOLS}:{tool}:{short(words)}"


def infer(group: Group, origins: Sequence[NumberOrigin]) -> Group:
    """Add to each number of a group what it was inferred from, and return the group.

    Its templates are extensible; highdicom itself adds coordinates to no number of a segment.
    """
    from highdicom.sr import ContentSequence

    for item in group[0].ContentSequence:
        if item.ValueType == "NUM" and item.RelationshipType == "CONTAINS":
            held = list(item.ContentSequence) if "ContentSequence" in item else []
            places = [_coordinates(origin) for origin in origins]
            segments = [_segment(one) for one in origins if one.segmentation is not None]
            item.ContentSequence = ContentSequence([*held, *places, *segments])
    return group


def _coordinates(origin: NumberOrigin) -> ContentItem:
    from highdicom.sr import CoordinatesForMeasurement, GraphicTypeValues, SourceImageForRegion

    image, slide = origin.image, origin.image.get("TotalPixelMatrixRows")
    rows, columns = (
        (image.Rows, image.Columns) if slide is None else (slide, image.TotalPixelMatrixColumns)
    )
    frames = [origin.frame + 1] if slide is None and frames_of(image) > 1 else None
    found: ContentItem = CoordinatesForMeasurement(
        graphic_type=GraphicTypeValues.POLYLINE,
        graphic_data=whole(rows, columns) if origin.points is None else origin.points,
        source_image=SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID, frames),
        purpose=_SOURCE,
    )
    if slide is not None:
        found.add_new("PixelOriginInterpretation", "CS", "VOLUME")  # PS3.3 C.18.6.1.3
    return found


def _segment(origin: NumberOrigin) -> ContentItem:
    from highdicom.sr import ImageContentItem

    assert origin.segmentation is not None  # noqa: S101  # `infer` has seen to it
    return ImageContentItem(
        name=_SOURCE,
        referenced_sop_class_uid=origin.segmentation.SOPClassUID,
        referenced_sop_instance_uid=origin.segmentation.SOPInstanceUID,
        referenced_frame_numbers=list(origin.frames) or None,
        referenced_segment_numbers=None if origin.frames else origin.segment,
        relationship_type="INFERRED FROM",
    )


def time_point(header: Dataset) -> TimePointContext | None:
    """Return the visit that images belong to (TID 1502); None where their header names none.

    By the module Clinical Trial Study (PS3.3 C.7.2.3).
    """
    from highdicom.sr import LongitudinalTemporalOffsetFromEvent, TimePointContext

    name = str(header.get("ClinicalTrialTimePointID") or "").strip()
    words = str(header.get("ClinicalTrialTimePointDescription") or "").strip()
    if not name and not words:
        return None
    days = header.get("LongitudinalTemporalOffsetFromEvent")
    event = _EVENTS.get(str(header.get("LongitudinalTemporalEventType") or ""))
    return TimePointContext(
        time_point=words or name,
        protocol_time_point_identifier=name or None,
        temporal_offset_from_event=None
        if days is None or event is None
        else LongitudinalTemporalOffsetFromEvent(
            value=float(days), unit=codes.unit_of("d"), event_type=event
        ),
    )
