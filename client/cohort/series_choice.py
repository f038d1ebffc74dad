"""Series that a row of the table may mean: those of one kind, unless the row names it.

A row that names a patient, study or accession number finds every image of it. T1, T2 and FLAIR of
one study are not three scans with one label, nor is the mask of one of them a mask of all; so where
a row's images are of several kinds, none of them is used (AMBIGUOUS_SERIES, which names them) until
a row's SeriesInstanceUID says which. A row that does is always clear.

    volumes (3-D)             one series a study; several studies of a patient only if alike
    CT, MR, PET, NM (2-D)     the same
    other pictures (2-D)      as many as there are, of one modality: views of a mammogram, X-rays
    beside acquired pictures  a secondary capture is left out
    an outline as PNG (2-D)   one picture
    whole slides              one magnification (client/series/magnification.py), named or not;
                              all levels where the run takes them as slides (cohort.images.slide)

What is left out for another reason (scouts, other modalities, PET in other units, raw X-rays, what
a site's rules of quality refuse) is no kind. A series of which files cannot be read is one: what is
used must not follow from what broke. Only images of the row's own patient are compared, so that
one patient's files never decide over another's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from client.cohort.image_quality import ImageRequirements, Suspect, localizers, unwanted
from client.cohort.left_out import LeftOut
from client.dicom.contained import contained
from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.reading.phases import SLICED
from client.dicom.reading.read import Header, ImageKey
from client.dicom.reading.time_axis import joined_name, stack_of
from client.dicom.reading.uptake import BECQUEREL, GRAMS_PER_ML, SUV, check_tracer
from client.dicom.reasons import Reason, UnusableFile
from client.dicom.remarks import Remark
from client.labels.label_table import Labels, dicom_keys, key_of_row
from client.series.by_row import RuledImages
from client.series.fitting import plane_of
from client.series.magnification import (
    SLIDE,
    at_several_magnifications,
    refused_slides,
    several_magnifications,
)
from client.series.selection import is_image_of_series, is_secondary_capture, named_series
from common.config.run_config import Images

_PET = "PT"
#: patient, or nobody where all are looked at together; study.
_Study = tuple[str, str]


def check_kind(header: Header, rules: Images) -> None:
    """Raise UnusableFile for PET in other units and X-rays of the other kind than a run uses."""
    wanted = rules.presentation or "for_presentation"
    if header.presentation and header.presentation != wanted:
        raise UnusableFile(
            Reason.WRONG_PRESENTATION, f"the image is {header.presentation.replace('_', ' ')}"
        )
    if header.modality == _PET:
        _check_units(header, rules.units or BECQUEREL)


def _check_units(header: Header, units: str) -> None:
    """Raise UnusableFile for a PET in other units; Bq/ml become SUV where the header allows it."""
    given = header.units.upper()
    allowed = {BECQUEREL, GRAMS_PER_ML} if units == SUV else {units}
    if given not in allowed:
        held = f"Units is {header.units}" if header.units else "Units is not said"
        raise UnusableFile(Reason.WRONG_UNITS, f"{held}, the run uses {units}")
    if units == SUV and given == BECQUEREL:
        check_tracer(header)


def check_fits(header: Header, rules: Images) -> None:
    """Raise UnusableFile for an image of another modality or kind than a run uses."""
    if rules.modalities and header.modality not in rules.modalities:
        raise UnusableFile(Reason.WRONG_MODALITY, header.modality)
    if rules.slide is not None and header.modality != SLIDE:
        raise UnusableFile(Reason.WRONG_MODALITY, f"{header.modality}, the run takes whole slides")
    check_kind(header, rules)


def _fits(header: Header, rules: Images) -> bool:
    try:
        check_fits(header, rules)
    except UnusableFile:
        return False
    return True


def beside_an_answer(found: Sequence[Instance], rules: Images) -> LeftOut:
    """Return what of a study is no part of a model's answer, as it is of no cohort.

    Other parts of the body, the other side and scouts; secondary captures beside acquired pictures.
    """
    wanted = ImageRequirements(body_parts=rules.body_parts, laterality=rules.laterality)
    refused = [*unwanted(found, wanted), *localizers(found)]
    gone = {suspect.row.path for suspect in refused}
    fitting = [one for one in found if one.path not in gone and _fits(one.header, rules)]
    if rules.dimensions == 2 and not all(map(is_secondary_capture, fitting)):
        detail = "a secondary capture beside the study's images"
        refused += [
            Suspect(row=one, reason=Reason.DERIVED, detail=detail)
            for one in fitting
            if is_secondary_capture(one)
        ]
    return LeftOut(images={(s.row.patient, s.row.instance): (s.reason, s.detail) for s in refused})


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The images that their rows do not choose among."""

    refused: Mapping[ImageKey, tuple[Reason, str]]
    ruled: RuledImages | None = None  # by the rules of cohort.images.series, where there are any

    def check(self, header: Header) -> None:
        """Raise UnusableFile for an image that is not clearly the one that its row means."""
        found = self.refused.get(header.key)
        if found is not None:
            raise UnusableFile(*found)


def choose(
    images: Iterable[Instance],
    lost: Iterable[Quarantined],
    rules: Images,
    labels: Labels,
    mask: str | None = None,
    ruled: RuledImages | None = None,
) -> Choice:
    """Compare the images of each row, which a run would take; `mask` is its column of masks.

    `lost` are files that cannot be used: series of them count. Where rules chose series, they
    counted there already, and only what gives an item its grid is compared here.
    """
    if ruled is not None:
        lost = ()
        images = [i for i in images if ruled.channel.get(i.key) == rules.reference]
    seen = list(images)
    by_row = _by_row(seen, labels)
    # Series by study, and by patient where each is looked at alone: a file that does not say whose
    # it is then decides over nobody's.
    broken: dict[_Study, set[str]] = defaultdict(set)
    for file in lost:
        named = file.patient or not labels.by_patient
        # A mosaic has a reason of its own.
        counts = is_image_of_series(file) and file.reason is not Reason.MOSAIC
        if file.series and file.study and named and counts:
            broken[file.patient if labels.by_patient else "", file.study].add(file.series)
    refused: dict[ImageKey, tuple[Reason, str]] = {} if ruled is None else dict(ruled.refused)
    for (row, _), group in by_row.items():
        name = labels.rows[row][mask] if mask is not None else None
        own = group[0].patient if labels.by_patient else ""
        lacking = {study: series for (whose, study), series in broken.items() if whose == own}
        try:
            with contained():
                judged = list(_judged(group, lacking, rules, name))
        except UnusableFile as problem:
            judged = [(image, problem.reason, problem.detail) for image in group]
        for image, reason, detail in judged:
            told = f"line {labels.lines[row]}: {detail}"
            refused[image.key] = reason, told
    # Levels of a slide are one series, so a row that names it does not choose among them.
    for image, reason, detail in at_several_magnifications(seen) if rules.slide is None else ():
        refused.setdefault(image.key, (reason, detail))
    return Choice(refused=refused, ruled=ruled)


def _by_row(images: Iterable[Instance], labels: Labels) -> dict[tuple[int, str], list[Instance]]:
    """Return the images that rows find, but of rows that name a series."""
    found: dict[tuple[int, str], list[Instance]] = defaultdict(list)
    for image in images:
        try:
            row = labels.find(dicom_keys(image.header))
        except UnusableFile:
            continue
        key = key_of_row(labels.rows[row])
        if key is not None and key[0] != "SeriesInstanceUID":
            found[row, image.patient].append(image)
    return found


def _judged(
    group: Sequence[Instance], broken: Mapping[str, set[str]], rules: Images, mask: str | None
) -> Iterator[tuple[Instance, Reason, str]]:
    """Yield the images of a row that cannot be told to be meant."""
    if rules.dimensions == 3:
        chosen = _volumes(group)
    else:
        acquired = [image for image in group if not is_secondary_capture(image)]
        chosen = acquired or list(group)
        for image in group if acquired else ():
            if is_secondary_capture(image):
                yield image, Reason.DERIVED, "a secondary capture beside the row's images"
    if rules.slide is None and (told := several_magnifications(chosen)):
        yield from refused_slides(chosen, told)
        return
    why = _why(chosen, broken, rules, mask) if chosen else ""
    if why:
        series = named_series(chosen)
        for image in chosen:
            yield image, Reason.AMBIGUOUS_SERIES, f"{why}: {series}"


def _volumes(images: Sequence[Instance]) -> list[Instance]:
    """Return the images of series that may be volumes: no scouts, and two places or more."""
    places: dict[str, int] = defaultdict(int)
    for image in images:
        places[image.series] += len(image.positions)
    return [i for i in images if places[i.series] > 1 and Remark.LOCALIZER not in i.remarks]


def _why(
    images: Sequence[Instance], broken: Mapping[str, set[str]], rules: Images, mask: str | None
) -> str:
    """Return why a row's images are not one kind; nothing where they are."""
    modalities = {image.modality for image in images}
    if len(modalities) > 1:
        return f"the row fits images of {len(modalities)} modalities"
    sliced = rules.dimensions == 3 or bool(modalities & SLICED)
    join = "none" if rules.time is None else rules.time.join
    if sliced and (several := _several(images, broken, mask, join)):
        return several
    kinds = {_kind(image, sliced=sliced, join=join) for image in images}
    if len(kinds) > 1:
        return f"the row fits pictures of {len(kinds)} kinds"
    if mask is not None and mask.lower().endswith(".png") and len(images) > 1:
        return f"the row's mask fits {len(images)} pictures"
    return ""


def several_kinds(images: Sequence[Instance]) -> str:
    """Return of which kinds pictures are that are no slices; nothing where it is one."""
    modalities = sorted({image.modality for image in images})
    if len(modalities) > 1:
        return f"{len(modalities)} modalities ({', '.join(modalities)})"
    kinds = {_kind(image, sliced=False) for image in images}
    return f"{len(kinds)} kinds (tomosynthesis beside others)" if len(kinds) > 1 else ""


def _several(
    images: Sequence[Instance], broken: Mapping[str, set[str]], mask: str | None, join: str
) -> str:
    """Return that a study has several series, or a mask; nothing where neither has.

    Series that are slices of one stack count as the first of them.
    """
    studies: dict[str, set[str]] = defaultdict(set)
    stacks: dict[tuple[object, ...], str] = {}
    for image in images:
        series = stacks.setdefault(stack_of(image.header, join), image.series)
        studies[image.study].add(series)
    held = {study: found | broken.get(study, set()) for study, found in studies.items()}
    most = max(held, key=lambda study: len(held[study]))
    if len(held[most]) > 1:
        lost = len(held[most] - studies[most])
        text = f"the row fits {len(held[most])} series of one study"
        return text + (f", {lost} of which cannot be read" if lost else "")
    if len(held) > 1 and mask is not None:
        return f"the row's mask fits {len(held)} studies"
    return ""


def _kind(image: Instance, *, sliced: bool, join: str = "none") -> tuple[object, ...]:
    """Return what images of several studies must have in common, to be more of the same."""
    words = image.image_type.upper().split("\\")
    made = bool({"GENERATED_2D", "TOMO_2D", "TOMOSYNTHESIS"} & set(words))
    if not sliced:
        return len(image.positions) > 1, made
    named = image.series_description.casefold()
    named = named if join == "none" else joined_name(named)
    text = "".join(c for c in named if c.isalnum())
    return text, plane_of(image), words[0], image.sop_class if image.modality == "NM" else ""
