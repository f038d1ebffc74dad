"""Images whose pixels are never decoded (slide labels and the like), told by their header."""

from __future__ import annotations

from pydicom.dataset import Dataset

from client.dicom.reasons import Reason, UnusableFile

#: VL Microscopic, Slide-Coordinates and Whole Slide Microscopy Image Storage.
_SLIDES = tuple(f"1.2.840.10008.5.1.4.1.1.77.1.{n}" for n in ("2", "3", "6"))
#: Value 3 of a slide's Image Type, where it is no part of the tissue at a resolution for reading.
_OF_SLIDES = frozenset({"LABEL", "OVERVIEW", "LOCALIZER", "THUMBNAIL"})
#: Siemens; United Imaging's picture of all slices, whose own files are in private elements.
_MOSAICS = frozenset({"MOSAIC", "VFRAME"})


def check_slide(image_type: str, modality: str, sop_class: str, *, shows_label: bool) -> None:
    """Raise UnusableFile for a slide's pictures that may show a name, before any pixel is decoded.

    Label, overview and thumbnail (PS3.3 C.8.12.4.1.1), and whatever says that the label is in
    the image (SpecimenLabelInImage).
    """
    slide = modality == "SM" or sop_class.startswith(_SLIDES)
    named = _OF_SLIDES & set(image_type.upper().split("\\")[2:])
    if slide and (shows_label or named):
        detail = "SpecimenLabelInImage is YES" if shows_label else "".join(sorted(named)[:1])
        raise UnusableFile(Reason.SLIDE_LABEL, detail)


def check_mosaic(image_type: str) -> None:
    """Raise UnusableFile for many slices in one picture, as Image Type says it."""
    found = _MOSAICS & set(image_type.upper().split("\\"))
    if found:
        raise UnusableFile(Reason.MOSAIC, f"ImageType says {', '.join(sorted(found))}")


def check_pictured(dataset: Dataset) -> None:
    """Do what `check_slide` does for a dataset that was parsed."""
    kind = dataset.get("ImageType") or ""
    modality, sop_class, shown = (
        str(dataset.get(name) or "").strip(" \0")
        for name in ("Modality", "SOPClassUID", "SpecimenLabelInImage")
    )
    image_type = kind if isinstance(kind, str) else "\\".join(kind)
    check_slide(image_type, modality, sop_class, shows_label=shown == "YES")
