"""Series of which the face is taken away, each as one volume; what cannot be, and why.

Guarantee: where faces are to go, an image leaves only if its series was seen as a volume of a
head and what lies in front of and below the brain is background in all of its frames, or if it is
a segmentation of something else than the face. Everything else stays, with a reason: single
slices, localizers, projections, photographs, other parts of the body, what has no place in the
patient. A series in which the brain's edge is not told from its own values takes the face's
place from another series of its study in the same frame of reference.

Not guaranteed: that nobody can be recognised, nor that no brain is lost. A person looks at each
series before and after (`--faces-checked`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID, SegmentationStorage

from client.dicom.deidentify.deidentify import Withheld
from client.dicom.deidentify.face_pictures import Picture, views_of
from client.dicom.deidentify.face_region import (
    FaceRegion,
    HeadGrid,
    HeadVolume,
    check_head,
    face_region,
    grid_of,
)
from client.dicom.deidentify.pixel_data import Change
from client.dicom.quiet import quiet
from client.dicom.reading.groups import text_of
from client.dicom.reading.read import Header, is_localizer, read_dataset, read_header, read_pixels
from client.dicom.reading.rescale import Pixels
from client.dicom.reading.volume import Float, Geometry, order_slices
from client.dicom.reasons import UnusableFile

#: CT and MR images, enhanced and converted ones among them.
_VOLUMES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "2.1", "2.2", "4", "4.1", "4.4")
)
#: Words of ImageType (PS3.3 C.8.16.1, and vendors') for pictures of a volume that are none.
_PROJECTED = frozenset(
    {"PROJECTION IMAGE", "MAX_IP", "MIN_IP", "MIP", "MINIP"}
    | {"VOLUME_RENDER", "SURFACE_RENDER", "VRT", "SSD"}
)
#: Beginnings of words in BodyPartExamined that a volume of the head may have, in some languages.
_HEAD_WORDS = """
HEAD BRAIN SKULL CRANI CRANE CRÂNE CEREB ENCEPH FACE FACIAL ORBIT EYE SINUS EAR IAC JAW TMJ MANDIB
MAXILL NECK NOSE PITUI SCALP KOPF HIRN NEURO SCHADEL SCHAEDEL SCHÄDEL TETE TÊTE CABEZA TESTA
WHOLEBODY
"""
_HEADS = tuple(_HEAD_WORDS.split())
#: Words for segments that draw the face, and labels that alone may mean the whole head.
_FACES = frozenset(
    {"FACE", "FACIAL", "SKIN", "SCALP", "NOSE", "MOUTH", "LIPS", "EYE", "EYES", "EAR", "EARS"}
    | {"SKULL", "JAW", "MANDIBLE", "SOFT"}
)
_WHOLE = frozenset({"HEAD", "BODY", "SURFACE", "EXTERNAL", "PATIENT", "TISSUE"})
_LEAST_SLICES, _LEAST_HEIGHT = 10, 60.0  # mm
#: Positions along the slices' normal that differ by less are one place, mm.
_ONE_PLACE = 0.01


@dataclass(frozen=True, kw_only=True)
class DefacedSeries:
    """A series of which the face was taken away, for a person to look at."""

    name: str  # patient, study's number of images and description, of this hospital
    images: int
    before: Picture
    after: Picture
    borrowed: str  # of which series the face's place is, where not of its own


@dataclass(frozen=True, kw_only=True)
class FaceVerdict:
    """What becomes of a file's pixels."""

    change: Change | None = None  # None: nothing
    withheld: str = ""  # why the file stays


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    header: Header


@dataclass(frozen=True, kw_only=True)
class _Head:
    """A series as a volume."""

    files: tuple[_File, ...]
    scales: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]  # a file's slope, intercept
    grid: HeadGrid
    region: FaceRegion | None
    why: str  # there is no region

    @property
    def name(self) -> str:
        first = self.files[0].header
        return " ".join(filter(None, (first.patient, first.description or first.series)))


def deface(
    files: Sequence[Path], show: Callable[[DefacedSeries], None]
) -> Mapping[Path, FaceVerdict]:
    """Return what becomes of each file; each series that is defaced is shown."""
    found: dict[Path, FaceVerdict] = {}
    series: dict[tuple[str, str], list[_File]] = defaultdict(list)
    for path in files:
        try:
            header = _header_of(path)
        except (Withheld, UnusableFile, OSError) as why:
            found[path] = FaceVerdict(withheld=_said(why))
            continue
        if header is None:
            found[path] = FaceVerdict()
        else:
            series[header.study, header.series].append(_File(path=path, header=header))
    for heads in _by_study(series, found):
        for head in heads:
            found |= _defaced(head, heads, show)
    return found


def _by_study(
    series: Mapping[tuple[str, str], Sequence[_File]], found: dict[Path, FaceVerdict]
) -> Iterator[list[_Head]]:
    """Yield the heads of one study after another; what is none is withheld."""
    studies: dict[str, list[Sequence[_File]]] = defaultdict(list)
    for (study, _), files in series.items():
        studies[study].append(files)
    for several in studies.values():
        heads = []
        for files in several:
            try:
                heads.append(_head_of(files))
            except (Withheld, UnusableFile, OSError) as why:
                found |= {one.path: FaceVerdict(withheld=_said(why)) for one in files}
        yield heads


def _said(why: Exception) -> str:
    if isinstance(why, UnusableFile):
        place = f"{why.reason.value} {why.detail}".strip()
        return f"Its face cannot be taken away, as its series is no volume: {place}."
    return str(why)


def _header_of(path: Path) -> Header | None:
    """Return the header of an image of a volume; None for what shows no face."""
    with quiet():
        dataset = read_dataset(path)
        kind = UID(str(dataset.get("SOPClassUID") or ""))
        if kind == SegmentationStorage:
            _check_segments(dataset)
            return None
        if kind not in _VOLUMES:
            message = (
                f"{kind.name or 'An object without a class'} is no volume of CT or MR, so a face "
                "in it cannot be taken away. Look at it, and release it without --deface."
            )
            raise Withheld(message)
        header = read_header(dataset)
        _check_kind(dataset, header)
        return header


def _check_kind(dataset: Dataset, header: Header) -> None:
    """Refuse what no volume of a head can be made of."""
    words = set(header.image_type.upper().split("\\"))
    if is_localizer(header.image_type):
        message = "A localizer is too few slices for its face to be found. It stays."
        raise Withheld(message)
    if words & _PROJECTED:
        told = ", ".join(sorted(words & _PROJECTED))
        message = (
            f"It is a picture of a volume ({told}), in which a face cannot be found. It stays."
        )
        raise Withheld(message)
    if int(dataset.SamplesPerPixel) != 1 or dataset.PhotometricInterpretation != "MONOCHROME2":
        message = "It is in colour or inverted, which --deface does not know. It stays."
        raise Withheld(message)
    part = text_of(dataset, "BodyPartExamined").upper()
    if part and not any(word.startswith(_HEADS) for word in re.findall(r"\w+", part)):
        message = (
            f"BodyPartExamined is {part[:20]}, so it is no head and no face is taken away. Release "
            "what shows no face without --deface."
        )
        raise Withheld(message)
    if not header.positions:
        message = (
            "Its frames have no position or orientation in the patient, so front and back of a "
            "head are not known. Export it again from the PACS."
        )
        raise Withheld(message)


def _check_segments(dataset: Dataset) -> None:
    """Withhold a segmentation that draws the face itself."""
    for item in dataset.get("SegmentSequence") or ():
        kinds = item.get("SegmentedPropertyTypeCodeSequence") or [Dataset()]
        texts = (item.get("SegmentLabel"), kinds[0].get("CodeMeaning"))
        said = [frozenset(re.findall(r"\w+", str(text or "").upper())) for text in texts]
        drawn = [words for words in said if words & _FACES or (words and words <= _WHOLE)]
        if drawn:
            word = min(drawn[0] & (_FACES | _WHOLE)).lower()
            message = f"It has a segment of {word}, which may be the face. It stays."
            raise Withheld(message)


def _head_of(files: Sequence[_File]) -> _Head:
    """Return a series as a volume, with where its face is; Withheld says why it is none."""
    chosen, geometry = _places(files)
    pixels: dict[int, Pixels] = {}
    for part in range(len(files)):
        pixels[part] = read_pixels(read_dataset(files[part].path))
    values = np.stack([_quantities(pixels[part], frame) for part, frame in chosen])
    if values.ndim != 3:
        message = "It is in colour, which --deface does not know. It stays."
        raise Withheld(message)
    hounsfield = files[0].header.modality == "CT"
    grid = grid_of(HeadVolume(values=values, affine=geometry.affine, hounsfield=hounsfield))
    check_head(grid)
    region, why = None, ""
    try:
        region = face_region(grid, hounsfield=hounsfield)
    except Withheld as fault:
        why = str(fault)
    scales = tuple((pixels[part].slope, pixels[part].intercept) for part in range(len(files)))
    return _Head(files=tuple(files), scales=scales, grid=grid, region=region, why=why)


def _places(files: Sequence[_File]) -> tuple[list[tuple[int, int]], Geometry]:
    """Return one (file, frame) of each place in order, and where they lie.

    Repetitions of a place, as of another time or echo, are left to the first of them here; the
    face is taken out of all.
    """
    slices = [(n, frame) for n, one in enumerate(files) for frame in range(one.header.frames)]
    first = files[0].header
    normal = np.cross(first.orientations[0][:3], first.orientations[0][3:])
    levels = np.array([files[n].header.positions[frame] for n, frame in slices]) @ normal
    order = np.argsort(levels, kind="stable")
    new = np.diff(levels[order], prepend=-np.inf) > _ONE_PLACE
    kept = [slices[i] for i in order[new].tolist()]
    if len(kept) < _LEAST_SLICES or float(np.ptp(levels)) < _LEAST_HEIGHT:
        message = (
            f"{len(kept)} slices over {np.ptp(levels):.0f} mm are too few to find a face in, "
            f"expected {_LEAST_SLICES} over {_LEAST_HEIGHT:.0f} mm. Look at it; where it shows no "
            "face, release it without --deface."
        )
        raise Withheld(message)
    along, geometry = order_slices([(files[n].header, frame) for n, frame in kept])
    return [kept[i] for i in along], geometry


def _quantities(pixels: Pixels, frame: int) -> NDArray[np.float32]:
    scaled = pixels.stored[frame] * pixels.slope[frame] + pixels.intercept[frame]
    return np.asarray(scaled, np.float32)


def _defaced(
    head: _Head, others: Sequence[_Head], show: Callable[[DefacedSeries], None]
) -> dict[Path, FaceVerdict]:
    """Return what takes the face out of each file of a series, and show it; or why it stays."""
    lender = head if head.region is not None else _lender(head, others)
    if lender is None or lender.region is None:
        return {one.path: FaceVerdict(withheld=head.why) for one in head.files}
    region, grid = lender.region, head.grid
    gone = region.on(grid)
    outside = ~grid.head & ~gone
    background = float(np.median(grid.values[outside])) if outside.any() else grid.values.min()
    show(
        DefacedSeries(
            name=head.name,
            images=len(head.files),
            before=views_of(grid, np.zeros_like(gone)).strip,
            after=views_of(grid, gone).strip,
            borrowed="" if lender is head else lender.name,
        )
    )
    return {
        one.path: FaceVerdict(change=_change(one.header, region, background, scale))
        for one, scale in zip(head.files, head.scales, strict=True)
    }


def _lender(head: _Head, others: Sequence[_Head]) -> _Head | None:
    """Return a series that knows the face's place, of the same study and frame of reference."""
    frame = head.files[0].header.frame_of_reference
    return next(
        (
            other
            for other in others
            if frame and other.files[0].header.frame_of_reference == frame and other.region
        ),
        None,
    )


def _change(
    header: Header,
    region: FaceRegion,
    background: float,
    scale: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Change:
    """Return what gives a face the background's value in a file's frames."""

    def change(frames: NDArray[np.generic]) -> NDArray[np.generic]:
        changed = frames.copy()
        for number, frame in enumerate(changed):
            stored = (background - scale[1][number]) / scale[0][number]
            value = np.clip(np.rint(stored), float(frame.min()), float(frame.max()))
            frame[region.holds(*_lattice(header, number))] = value.astype(frame.dtype)
        return changed

    return change


def _lattice(header: Header, frame: int) -> tuple[Sequence[float], list[Float], tuple[int, int]]:
    """Return a frame's first pixel, the steps to the next row and column, and their numbers."""
    rows, columns = header.spacing or (1.0, 1.0)
    cosines = np.array(header.orientations[frame])
    steps = [cosines[3:] * rows, cosines[:3] * columns]
    return header.positions[frame], steps, header.shape
