"""Magnifications of whole slides: a run takes one.

A slide lies in its study at several, an object each (PS3.3 C.8.12.4, Image Type VOLUME): the same
tissue once in many tiles and once in few. Pixels are as large as their spacing says, in mm.

    pixels differ by more than a twentieth    two magnifications
    an object does not say its pixels' size   one of its own: nobody knows which
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from client.dicom.headers.checks import WHOLE_SLIDE
from client.dicom.headers.instance import Instance
from client.dicom.reasons import Reason

#: Modality of slides under a microscope.
SLIDE = "SM"
#: Pixels that differ in size by less than this part are of one magnification.
_SAME = 0.05
_MICRONS = 1e3


def several_magnifications(images: Iterable[Instance]) -> str:
    """Return the magnifications of slides where there are several; nothing where it is one."""
    slides = [image for image in images if _is_slide(image)]
    sizes = sorted({size for image in slides if (size := _pixel(image)) is not None})
    unsaid = any(_pixel(image) is None and image.sop_class == WHOLE_SLIDE for image in slides)
    kinds: list[list[float]] = []
    for size in sizes:
        if kinds and size <= kinds[-1][0] * (1 + _SAME):
            kinds[-1].append(size)
        else:
            kinds.append([size])
    named = [f"{kind[0] * _MICRONS:.3g}" for kind in kinds]
    if unsaid and len(slides) > 1:
        named.append("unknown")
    several = len(named) > 1 or "unknown" in named
    return f"{' and '.join(named)} microns a pixel" if several else ""


def at_several_magnifications(images: Iterable[Instance]) -> Iterator[tuple[Instance, Reason, str]]:
    """Yield the images of slides that one study of a patient holds at several magnifications."""
    studies: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for image in images:
        if _is_slide(image):
            studies[image.patient, image.study].append(image)
    for group in studies.values():
        if told := several_magnifications(group):
            yield from refused_slides(group, told)


def refused_slides(group: Sequence[Instance], told: str) -> Iterator[tuple[Instance, Reason, str]]:
    """Yield each slide's image of a group with the magnifications that there are."""
    for image in group:
        if _is_slide(image):
            yield image, Reason.SEVERAL_MAGNIFICATIONS, told


def _is_slide(image: Instance) -> bool:
    return image.modality == SLIDE or image.sop_class == WHOLE_SLIDE


def _pixel(image: Instance) -> float | None:
    """Return the size of a pixel in mm; None where it is not said."""
    if image.spacing is None or min(image.spacing) <= 0:
        return None
    return math.sqrt(image.spacing[0] * image.spacing[1])
