"""Burned-in text and faces that an image's header states or its kind makes likely."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID

#: Of these, pictures whose text is part of the image as a rule: screens, ultrasound, video.
OFTEN_WITH_TEXT = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in (
        "3",
        "3.1",
        "6",
        "6.1",
        "7",
        "7.1",
        "7.2",
        "7.3",
        "7.4",
        "12.2",
        "12.2.1",
        "77.1.1",
        "77.1.4",
        "77.1.5.1",
        "77.1.5.2",
    )
)


def may_show_who(source: Dataset, *, defaced: bool = False) -> str:
    """Return why a picture may show who its patient is; nothing where the header denies it.

    `defaced`: a face that was there is gone.
    """
    sop_class = UID(str(source.get("SOPClassUID") or ""))
    text = str(source.get("BurnedInAnnotation") or "").strip().upper()
    faces = str(source.get("RecognizableVisualFeatures") or "").strip().upper()
    if text not in {"NO", ""}:
        return "Its header says that text is burned into the picture"
    if not text and sop_class in OFTEN_WITH_TEXT:
        return f"{sop_class.name} often has text in the picture, and its header does not deny it"
    if faces not in {"NO", ""} and not defaced:
        return "Its header says that a face or the like can be recognised"
    return ""
