"""The rules of `cohort.images.series` for the rows of a site's table.

What becomes of a patient follows from that PatientID's images alone where each patient is looked
at alone (`Rows.by_patient`); files that do not say whose they are are nobody's then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.dicom.contained import contained
from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.reading.read import ImageKey
from client.dicom.reasons import Reason, UnusableFile
from client.series.fitting import Aliases
from client.series.selection import ChosenSeries, Fared, Lost, Refusal, choose_series, is_scout
from common.config.run_config import Images

#: patient, study.
Study = tuple[str, str]
_DICOM_NAMES = frozenset({"", ".dcm", ".dicom", ".ima"})
#: The worse of two ways in which a rule fares with one patient.
_WORSE: Mapping[Fared, int] = {"matched": 0, "missing": 1, "ambiguous": 2}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a table, as far as rules for series ask."""

    of: Callable[[Instance], int | None]  # an image's row; None: no row finds it
    lines: Sequence[int]  # of each row in the file, for messages
    names_series: Callable[[int], bool]  # whether a row names a series, which is always clear
    by_patient: bool  # each patient is looked at alone


@dataclass(frozen=True, kw_only=True)
class SeriesRules:
    """The rules of a run, and a site's own words for them."""

    images: Images
    aliases: Aliases = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RuledImages:
    """What the rules say of each image that rows find."""

    refused: Mapping[ImageKey, tuple[Reason, str]] = field(default_factory=dict)
    channel: Mapping[ImageKey, int] = field(default_factory=dict)  # of those that are used
    absent: Mapping[Study, frozenset[int]] = field(default_factory=dict)  # channels of zeros
    #: By rule, by how it fared: patients, each once.
    fared: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


def choose_by_rules(
    images: Iterable[Instance],
    lost: Sequence[Quarantined],
    rows: Rows,
    rules: SeriesRules,
    refusal: Refusal,
) -> RuledImages:
    """Return the channels of each row, or why its images are none."""
    by_row: dict[tuple[int, str], list[Instance]] = defaultdict(list)
    rows_of: dict[Study, set[int | None]] = defaultdict(set)
    for image in images:
        row = rows.of(image)
        rows_of[image.patient, image.study].add(row)
        if row is not None:
            by_row[row, image.patient].append(image)
    alone = _alone_in_folders([i for group in by_row.values() for i in group])
    nameless = frozenset() if rows.by_patient else _beside(lost, alone)
    found = _Ruling(rules.images)
    for (row, patient), group in by_row.items():
        own = [
            file for file in lost if file.study and (file.patient == patient or not rows.by_patient)
        ]
        chosen = _of_row(row, group, Lost(files=own, nameless=nameless), rows, rules, refusal)
        if chosen.problem is None and len(rules.images.series) > 1:
            chosen = _within_one_row(chosen, rows_of[patient, chosen.study], rows)
        found.take(group, chosen, f"line {rows.lines[row]}")
    return found.ended()


def choose_of_study(
    images: Sequence[Instance], lost: Sequence[Quarantined], rules: SeriesRules, refusal: Refusal
) -> RuledImages:
    """Return the channels of one study, as a model takes it; UnusableFile says why there are none.

    All files are the study's, also those that do not say whose they are.
    """
    studies = {image.study for image in images}
    nameless = studies if any(_may_be_image(file) for file in lost) else set()
    told = Lost(files=[f for f in lost if f.study], nameless=frozenset(nameless))
    chosen = choose_series(images, told, rules.images, refusal, rules.aliases)
    if chosen.problem is not None:
        raise UnusableFile(*chosen.problem)
    found = _Ruling(rules.images)
    if images:
        found.take(images, chosen, "")
    return found.ended()


def _of_row(
    row: int,
    group: Sequence[Instance],
    lost: Lost,
    rows: Rows,
    rules: SeriesRules,
    refusal: Refusal,
) -> ChosenSeries:
    names = [rule.name for rule in rules.images.series]
    if len(names) > 1 and rows.names_series(row):
        detail = f"the row names one series, the run takes {', '.join(names)}; name the study"
        return ChosenSeries(problem=(Reason.AMBIGUOUS_SERIES, detail))
    try:
        with contained():
            return choose_series(group, lost, rules.images, refusal, rules.aliases)
    except UnusableFile as problem:
        return ChosenSeries(problem=(problem.reason, problem.detail))


def _within_one_row(chosen: ChosenSeries, held: set[int | None], rows: Rows) -> ChosenSeries:
    """Refuse channels of a study that several rows share: what is another's looks absent."""
    if len(held) == 1:
        return chosen
    named = " and ".join(f"line {rows.lines[row]}" for row in held if row is not None)
    detail = f"images of the study belong to {named}, or to none; name the study in one"
    return ChosenSeries(
        study=chosen.study, fared=chosen.fared, problem=(Reason.AMBIGUOUS_SERIES, detail)
    )


class _Ruling:
    """Gathers what is said of the rows one after the other."""

    def __init__(self, rules: Images) -> None:
        self._rules = rules
        self._refused: dict[ImageKey, tuple[Reason, str]] = {}
        self._channel: dict[ImageKey, int] = {}
        self._absent: dict[Study, frozenset[int]] = {}
        self._fared: dict[str, dict[str, Fared]] = {rule.name: {} for rule in rules.series}

    def take(self, group: Sequence[Instance], chosen: ChosenSeries, line: str) -> None:
        """Note what was chosen of a row's images."""
        patient = group[0].patient
        for name, fared in chosen.fared.items():
            before = self._fared[name].get(patient, fared)
            self._fared[name][patient] = max(before, fared, key=_WORSE.__getitem__)
        if chosen.problem is not None:
            reason, detail = chosen.problem
            told = reason, f"{line}: {detail}"
            self._refused |= {image.key: told for image in group}
            return
        taken = {i.path: n for n, images in enumerate(chosen.channels) for i in images}
        for image in group:
            channel = taken.get(image.path)
            if channel is None and is_scout(image):
                self._refused[image.key] = Reason.LOCALIZER, ""
            elif channel is None:
                detail = image.series_description or "no description"
                self._refused[image.key] = Reason.OTHER_SERIES, detail
            else:
                self._channel[image.key] = channel
        lacking = frozenset(n for n, images in enumerate(chosen.channels) if not images)
        self._absent[patient, chosen.study] = lacking

    def ended(self) -> RuledImages:
        """Return what was gathered."""
        fared: dict[str, dict[Fared, list[str]]] = {}
        for name, patients in self._fared.items():
            fared[name] = {way: [] for way in _WORSE}
            for patient, way in sorted(patients.items()):
                fared[name][way].append(patient)
        return RuledImages(
            refused=self._refused,
            channel=self._channel,
            absent=self._absent,
            fared={
                name: {way: tuple(people) for way, people in ways.items()}
                for name, ways in fared.items()
            },
        )


def _alone_in_folders(images: Iterable[Instance]) -> dict[Path, str]:
    """Return the folders, and those above, that hold images of one study, with the study."""
    studies: dict[Path, set[str]] = defaultdict(set)
    for image in images:
        for folder in image.path.parents:
            if image.study in studies[folder]:
                break
            studies[folder].add(image.study)
    return {folder: next(iter(held)) for folder, held in studies.items() if len(held) == 1}


def _beside(lost: Iterable[Quarantined], alone: Mapping[Path, str]) -> frozenset[str]:
    """Return the studies in whose folders lie files that say nothing, and may be theirs."""
    found: set[str] = set()
    for file in lost:
        if _may_be_image(file):
            found |= {alone[folder] for folder in Path(file.what).parents if folder in alone}
    return frozenset(found)


def _may_be_image(file: Quarantined) -> bool:
    """Return whether a file that does not say its study may be an image all the same."""
    if file.study or file.reason in {Reason.WITHDRAWN, Reason.DICOMDIR, Reason.SEGMENTATION}:
        return False
    named = Path(file.what).suffix.lower() in _DICOM_NAMES
    return named or file.reason is not Reason.NOT_DICOM
