"""Quality rules on the index's rows: readable images that should still not train.

A rule is a function from all rows to suspects, so that it can compare them; which of them are
left out is the site's decision (client/site/quality_section.py). What needs pixels is in
pixel_quality.py; what needs the table of labels comes in as `ImageRequirements`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from client.dicom.headers.instance import Instance
from client.dicom.reading.groups import two_issuers
from client.dicom.reasons import Reason
from client.dicom.remarks import Remark
from client.series.selection import is_scout, is_secondary_capture
from client.site.quality_section import Action, QualityRules

#: Series of one modality below which nobody is an outlier.
_FEWEST_SERIES = 10
#: Least deviation of the logarithm: series of one scanner have none, and 2 % is no outlier.
_LEAST_DEVIATION = 0.02


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One image that a rule speaks against; stays at the site."""

    row: Instance
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageRequirements:
    """What a run asks of its images, beside their modality."""

    body_parts: tuple[str, ...] = ()  # BodyPartExamined (0018,0015); empty takes every one
    laterality: str | None = None  # L or R
    #: The side that the table names for an image: L, R, or nothing.
    side_in_table: Callable[[Instance], str] = lambda _row: ""


@dataclass(frozen=True, kw_only=True)
class QualityVerdict:
    """What the rules found, by what becomes of it."""

    left_out: tuple[Suspect, ...]  # at most one an image
    warned: tuple[Suspect, ...]

    def refused(self) -> dict[tuple[str, str], Suspect]:
        """Return what is left out, by PatientID and SOP Instance UID."""
        return {(s.row.patient, s.row.instance): s for s in self.left_out}


def judge(
    rows: Sequence[Instance],
    rules: QualityRules,
    wanted: ImageRequirements,
    more: Mapping[Action, Iterable[Suspect]] | None = None,
) -> QualityVerdict:
    """Apply every rule; `more` are suspects that were found elsewhere, by what becomes of them."""
    found: dict[Action, list[Suspect]] = {"leave_out": [], "warn": [], "off": []}
    found["leave_out"] += several_people(rows)
    found["leave_out"] += unwanted(rows, wanted)
    for action, look in (
        (rules.two_patient_ids, two_patient_ids),
        (rules.localizers, localizers),
        (rules.derived, derived),
        (rules.burned_in_text, declared_text),
        (rules.pixel_shape, two_shapes),
        (rules.spacing_outliers, lambda r: spacing_outliers(r, rules.spacing_deviations)),
        (rules.laterality, lambda r: other_side(r, wanted)),
    ):
        if action != "off":
            found[action] += look(rows)
    for action, suspects in (more or {}).items():
        found[action] += suspects
    first: dict[str, Suspect] = {}
    for suspect in found["leave_out"]:
        first.setdefault(str(suspect.row.path), suspect)
    return QualityVerdict(left_out=tuple(first.values()), warned=tuple(found["warn"]))


def several_people(rows: Iterable[Instance]) -> Iterator[Suspect]:
    """Yield all images of a PatientID that stands for several people, as its own files tell.

    An identifier belongs to its issuer (0010,0021 and its qualifiers 0010,0024): of another issuer
    it is another person. A person has one date of birth and one sex. What is left empty says
    nothing.
    """
    by_patient: dict[str, list[Instance]] = defaultdict(list)
    for row in rows:
        if row.patient:
            by_patient[row.patient].append(row)
    for group in by_patient.values():
        issuers = {row.issuer for row in group} - {""}
        born = {row.birth_date for row in group if _is_date(row.birth_date)}
        sexes = {row.patient_sex.upper() for row in group} & {"M", "F", "O"}
        if two_issuers(issuers):
            named = " and ".join(sorted(i.strip("\\").replace("\\", " ") for i in issuers))
            detail = f"IssuerOfPatientID is {named}"
            yield from (
                Suspect(row=r, reason=Reason.PATIENT_TWO_ISSUERS, detail=detail) for r in group
            )
        elif len(born) > 1 or len(sexes) > 1:
            what = "birth dates" if len(born) > 1 else "sexes"
            detail = f"{what} {' and '.join(sorted(born if len(born) > 1 else sexes))}"
            yield from (
                Suspect(row=r, reason=Reason.PATIENT_CONFLICT, detail=detail) for r in group
            )


def _is_date(text: str) -> bool:
    return len(text) == 8 and text.isascii() and text.isdigit() and text != "00000000"


def two_patient_ids(rows: Iterable[Instance]) -> Iterator[Suspect]:
    """Yield images whose SOP Instance UID, or whose study, stands under two PatientIDs."""
    listed = [row for row in rows if row.patient]
    yield from _under_two(listed, lambda row: row.instance, "SOP Instance UID")
    yield from _under_two(listed, lambda row: row.study, "Study Instance UID")


def _under_two(
    rows: Iterable[Instance], key: Callable[[Instance], str], name: str
) -> Iterator[Suspect]:
    groups: dict[str, list[Instance]] = defaultdict(list)
    for row in rows:
        if key(row):
            groups[key(row)].append(row)
    for group in groups.values():
        patients = sorted({row.patient for row in group})
        if len(patients) > 1:
            detail = f"one {name} under {', '.join(patients)}"
            yield from (Suspect(row=r, reason=Reason.PATIENT_TWO_IDS, detail=detail) for r in group)


def localizers(rows: Iterable[Instance]) -> Iterator[Suspect]:
    """Yield scouts (PS3.3 C.7.6.1.1.2, value 3 of Image Type)."""
    for row in rows:
        if is_scout(row):
            yield Suspect(row=row, reason=Reason.LOCALIZER)


def derived(rows: Iterable[Instance]) -> Iterator[Suspect]:
    """Yield secondary captures and what Image Type calls SECONDARY.

    DERIVED with PRIMARY is how radiographs and mammograms are stored for presentation.
    """
    for row in rows:
        kind = row.image_type.upper().split("\\")
        if is_secondary_capture(row):
            yield Suspect(row=row, reason=Reason.DERIVED, detail="secondary capture")
        elif "SECONDARY" in kind[1:2]:
            yield Suspect(row=row, reason=Reason.DERIVED, detail=row.image_type)


def declared_text(rows: Iterable[Instance]) -> Iterator[Suspect]:
    """Yield images whose header says that text stands in the picture (0028,0301)."""
    for row in rows:
        if row.burned_in.upper() == "YES":
            detail = "BurnedInAnnotation is YES"
            yield Suspect(row=row, reason=Reason.BURNED_IN_SUSPECT, detail=detail)


def two_shapes(rows: Iterable[Instance]) -> Iterator[Suspect]:
    """Yield images whose header gives pixels several shapes, so that one of them is wrong."""
    for row in rows:
        if Remark.TWO_SHAPES in row.remarks:
            detail = "spacing, aspect ratio or ultrasound regions differ in height over width"
            yield Suspect(row=row, reason=Reason.PIXEL_SHAPE, detail=detail)


def unwanted(rows: Iterable[Instance], wanted: ImageRequirements) -> Iterator[Suspect]:
    """Yield images of another part of the body or another side than the run uses.

    A header that does not say counts as fitting: many scanners leave it empty.
    """
    parts = {part.upper() for part in wanted.body_parts}
    for row in rows:
        part, side = row.body_part.upper(), row.laterality.upper()
        if parts and part and part not in parts:
            yield Suspect(row=row, reason=Reason.WRONG_BODYPART, detail=row.body_part)
        elif wanted.laterality and side in {"L", "R"} and side != wanted.laterality:
            detail = f"the image is {side}, the run uses {wanted.laterality}"
            yield Suspect(row=row, reason=Reason.WRONG_LATERALITY, detail=detail)


def other_side(rows: Iterable[Instance], wanted: ImageRequirements) -> Iterator[Suspect]:
    """Yield images that the table places on the other side."""
    for row in rows:
        side = row.laterality.upper()
        told = side_of(wanted.side_in_table(row)) if side in {"L", "R"} else ""
        if told and told != side:
            detail = f"the image is {side}, its row says {told}"
            yield Suspect(row=row, reason=Reason.WRONG_LATERALITY, detail=detail)


def side_of(text: str) -> str:
    """Return L or R for what a table may write, else nothing."""
    word = text.strip().lower()
    if word in {"l", "left", "links", "gauche", "li", "sin", "sinister"}:
        return "L"
    return "R" if word in {"r", "right", "rechts", "droite", "re", "dex", "dexter"} else ""


def spacing_outliers(rows: Iterable[Instance], deviations: float) -> Iterator[Suspect]:
    """Yield series whose pixels or slices are of another size than nearly all of their modality.

    Robust: the logarithm of a series' spacing is compared with the median of this site's series
    by their median absolute deviation, so a few odd ones do not hide each other.
    """
    by_series: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for row in rows:
        by_series[row.modality, row.series or str(row.path)].append(row)
    for name, size in (("pixel spacing", _pixel_size), ("slice thickness", _slice_size)):
        known: dict[str, list[tuple[float, list[Instance]]]] = defaultdict(list)
        for (modality, _), series in by_series.items():
            value = size(series[0])
            if value:
                known[modality].append((math.log(value), series))
        for sized in known.values():
            yield from _far_off(sized, name, deviations)


def _far_off(
    sized: Sequence[tuple[float, list[Instance]]], name: str, deviations: float
) -> Iterator[Suspect]:
    if len(sized) < _FEWEST_SERIES:
        return
    middle = median(value for value, _ in sized)
    spread = max(median(abs(value - middle) for value, _ in sized), _LEAST_DEVIATION)
    for value, series in sized:
        if abs(value - middle) > deviations * spread:
            detail = f"{name} {math.exp(value):.3g} mm, mostly {math.exp(middle):.3g} mm here"
            for row in series:
                yield Suspect(row=row, reason=Reason.SPACING_OUTLIER, detail=detail)


def _pixel_size(row: Instance) -> float | None:
    return row.spacing[0] if row.spacing and row.spacing[0] > 0 else None


def _slice_size(row: Instance) -> float | None:
    thickness = row.slice_thickness
    return thickness if thickness is not None and thickness > 0 else None
