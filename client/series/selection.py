"""Which series of a row's studies are the channels of a run, by its rules.

    one series fits a rule             it is the channel
    several fit                        `pick` says which; refuse, or a tie, leaves the study out
    none fits                          `missing` says: the study is left out, or zeros
    a part of a series fits            it is the channel if it shows every place of the series (one
                                       echo, one b-value); else the study is left out
    one series fits two rules          the study is left out
    a series broke that may fit        the study is left out; it is neither absent nor passed over
    one image fits, where it is to be  the study is left out, if nothing else fits: a transfer that
    a volume                           broke off looks like it; beside a volume it is passed over
    a rule of quality refuses it       the study is left out, if no other series fits

The series that gives the grid is looked for in all studies of a row; the others in its study.
Scouts are never looked at, nor secondary captures beside acquired images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from client.dicom.headers.checks import WITHOUT_PIXELS
from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.reading.phases import SLICED
from client.dicom.reading.time_axis import stack_of
from client.dicom.reasons import Reason
from client.series.fitting import NO_ALIASES, Aliases, fits, may_fit
from common.config.run_config import Images
from common.config.series import SeriesRule

#: How a rule fares with a patient.
Fared = Literal["matched", "ambiguous", "missing"]
Problem = tuple[Reason, str]
#: Why an image that fits is let into no cohort; None: it is.
Refusal = Callable[[Instance], Problem | None]

#: Files of these are no image of a series.
_NO_IMAGE = frozenset(
    {
        Reason.SEGMENTATION,
        Reason.DICOMDIR,
        Reason.NOT_DICOM,
        Reason.SLIDE_LABEL,
        Reason.WITHDRAWN,
        Reason.DUP_SOP_SAME,
    }
)
#: These are images, but none that could be taken in place of another.
_NO_RIVAL = frozenset({Reason.MOSAIC})
_NAMED = 5
#: Secondary Capture Image Storage and its multi-frame kinds (PS3.4 B.5).
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
#: Thicknesses and counts that differ by less are a tie.
_SAME = 0.01


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What of a row's studies cannot be read."""

    files: Sequence[Quarantined] = ()  # that say their study
    nameless: frozenset[str] = frozenset()  # studies beside which lie files that say nothing


@dataclass(frozen=True, kw_only=True)
class ChosenSeries:
    """The channels of one item, or why there is none."""

    study: str = ""  # StudyInstanceUID of the series that gives the grid
    channels: tuple[tuple[Instance, ...], ...] = ()  # of each rule; empty where it is absent
    fared: Mapping[str, Fared] = field(default_factory=dict)  # by rule
    problem: Problem | None = None


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """The images of one series, or of several that are one stack, that fit a rule."""

    study: str
    series: str
    images: tuple[Instance, ...]
    places: int  # that they show
    of: int  # places that the series shows


def choose_series(
    images: Sequence[Instance],
    lost: Lost,
    rules: Images,
    refusal: Refusal,
    aliases: Aliases = NO_ALIASES,
) -> ChosenSeries:
    """Return which series of a row's images are its channels."""
    seen = [image for image in images if not is_scout(image)]
    reference = rules.series[rules.reference]
    first = _Search(seen, lost, rules, refusal, aliases).of(reference)
    studies = {image.study for image in first.images}
    within = [image for image in seen if not studies or image.study in studies]
    search = _Search(within, lost, rules, refusal, aliases)
    found = [first if rule is reference else search.of(rule) for rule in rules.series]
    problems = [one.problem for one in found if one.problem is not None]
    problems += _shared(rules, found)
    reason = problems[0][0] if problems else None
    return ChosenSeries(
        study=next(iter(studies), ""),
        channels=tuple(one.images for one in found),
        fared={rule.name: one.fared for rule, one in zip(rules.series, found, strict=True)},
        problem=None if reason is None else (reason, "; ".join(detail for _, detail in problems)),
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    fared: Fared
    images: tuple[Instance, ...] = ()
    problem: Problem | None = None


@dataclass(frozen=True)
class _Search:
    """Looks for the series of one rule after the other."""

    images: Sequence[Instance]
    lost: Lost
    rules: Images
    refusal: Refusal
    aliases: Aliases

    def of(self, rule: SeriesRule) -> _Found:
        """Return the series that fits a rule."""
        fitting = [i for i in self.images if fits(rule, i, self.aliases)]
        fitting = acquired(fitting)
        if self.rules.dimensions == 2 and not any(i.modality in SLICED for i in fitting):
            return self._pictures(rule, fitting)
        found = self._candidates(fitting)
        candidates = [c for c in found if self._may_be_volume(c)]
        refused = [(c, why) for c in candidates if (why := self._refused(c)) is not None]
        gone_too = {(c.study, c.series) for c, _ in refused}
        clean = [c for c in candidates if (c.study, c.series) not in gone_too]
        rivals, gone = self._broken(rule)
        if clean and rivals:
            text = f"{_named(clean)}, and {len(rivals)} that cannot be read may be it"
            return _Found(fared="ambiguous", problem=_ambiguous(rule, text))
        if not clean:
            alone = [c for c in found if c not in candidates]
            return self._none(rule, refused, [*rivals, *gone], alone)
        if len(clean) > 1:
            clean = _picked(rule, clean) or clean
        if len(clean) > 1:
            text = f"{len(clean)} series: {_named(clean)}"
            return _Found(fared="ambiguous", problem=_ambiguous(rule, text))
        (one,) = clean
        if one.places < one.of:
            text = f"{one.places} of {one.of} places of {_named(clean)}"
            return _Found(fared="ambiguous", problem=_ambiguous(rule, text))
        return _Found(fared="matched", images=one.images)

    def _pictures(self, rule: SeriesRule, fitting: Sequence[Instance]) -> _Found:
        """Return the pictures that fit, which lie nowhere in the patient and are no one series."""
        if len(self.rules.series) > 1 and fitting:
            detail = f"{fitting[0].modality} pictures have no place in the patient, so none is a "
            detail += f"channel of another (series {rule.name})"
            return _Found(fared="matched", problem=(Reason.NO_GEOMETRY, detail))
        if not fitting:
            return self._none(rule, [], [name for names in self._broken(rule) for name in names])
        return _Found(fared="matched", images=tuple(fitting))

    def _candidates(self, fitting: Iterable[Instance]) -> list[_Candidate]:
        series: dict[tuple[str, str], list[Instance]] = defaultdict(list)
        whole: dict[tuple[str, str], list[Instance]] = defaultdict(list)
        # Series that the run joins to one stack count as the first of them.
        join = "none" if self.rules.time is None else self.rules.time.join
        stacks: dict[tuple[object, ...], str] = {}
        for image in self.images:
            name = stacks.setdefault(stack_of(image.header, join), image.series)
            whole[image.study, name].append(image)
        for image in fitting:
            series[image.study, stacks[stack_of(image.header, join)]].append(image)
        return [
            _Candidate(
                study=study,
                series=name,
                images=tuple(group),
                places=_places(group),
                of=_places(whole[study, name]),
            )
            for (study, name), group in sorted(series.items())
        ]

    def _may_be_volume(self, candidate: _Candidate) -> bool:
        """Return whether a series shows places enough; one whose other files broke counts."""
        if self.rules.dimensions == 2 and len(self.rules.series) == 1:
            return True  # each slice is an image of its own
        broken = {(file.study, file.series) for file in self.lost.files}
        return candidate.places > 1 or bool(broken & _series_of(candidate))

    def _refused(self, candidate: _Candidate) -> Problem | None:
        """Return why a site lets an image of a series into no cohort."""
        found = (self.refusal(image) for image in candidate.images)
        return next((why for why in found if why is not None), None)

    def _broken(self, rule: SeriesRule) -> tuple[list[str], list[str]]:
        """Return series none of whose files can be read, that may fit; and what is no rival."""
        studies = {image.study for image in self.images}
        known = {(image.study, image.series) for image in self.images}
        rivals: dict[str, None] = {}
        gone: dict[str, None] = {}
        for file in self.lost.files:
            place = (file.study, file.series)
            if file.study not in studies or place in known or not is_image_of_series(file):
                continue
            if may_fit(rule, file.description, self.aliases):
                (gone if file.reason in _NO_RIVAL else rivals)[file.series] = None
        return list(rivals), list(gone)

    def _none(
        self,
        rule: SeriesRule,
        refused: Sequence[tuple[_Candidate, Problem]],
        broken: list[str],
        alone: Sequence[_Candidate] = (),
    ) -> _Found:
        """Return what a rule that nothing fits comes to: only what is absent may be zeros."""
        if refused:
            candidate, (reason, detail) = refused[0]
            told = f"series {rule.name} ({_named([candidate])}): {detail or reason.value}"
            return _Found(fared="missing", problem=(reason, told))
        if broken:
            detail = f"{len(broken)} series of the study cannot be read, and may be {rule.name}"
            return _Found(fared="missing", problem=(Reason.INCOMPLETE_SERIES, detail))
        # A secondary capture is a picture beside the images, and never was a volume.
        if cut := [c for c in alone if not all(map(is_secondary_capture, c.images))]:
            detail = f"one place is all that is there of series {rule.name}: {_named(cut)}"
            return _Found(fared="missing", problem=(Reason.TOO_FEW_SLICES, detail))
        if rule.missing == "zero":
            if self.lost.nameless & {image.study for image in self.images}:
                detail = f"files beside the study cannot be read, and may be series {rule.name}"
                return _Found(fared="missing", problem=(Reason.INCOMPLETE_SERIES, detail))
            return _Found(fared="missing")
        return _Found(fared="missing", problem=(Reason.MISSING_SERIES, f"none fits {rule.name}"))


def _series_of(candidate: _Candidate) -> set[tuple[str, str]]:
    return {(image.study, image.series) for image in candidate.images}


def _shared(rules: Images, found: Sequence[_Found]) -> list[Problem]:
    """Return that rules fit the same images."""
    named = list(zip(rules.series, found, strict=True))
    told: list[Problem] = []
    for (one, first), (other, second) in combinations(named, 2):
        taken = {image.path for image in first.images}
        if both := [image for image in second.images if image.path in taken]:
            detail = f"rules {one.name} and {other.name} fit the same: {named_series(both)}"
            told.append((Reason.AMBIGUOUS_SERIES, detail))
    return told


def _ambiguous(rule: SeriesRule, text: str) -> Problem:
    return Reason.AMBIGUOUS_SERIES, f"rule {rule.name} fits {text}"


def _picked(rule: SeriesRule, candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Return the candidates that a rule would take: one, or several where it cannot tell."""
    match rule.pick:
        case "refuse":
            return list(candidates)
        case "most_slices":
            return _best(candidates, lambda c: float(c.places))
        case "thinnest":
            return _best(candidates, lambda c: _negative(_thickness(c)))
        case "newest" | "oldest":
            made = [_made(candidate) for candidate in candidates]
            if not all(made):
                return list(candidates)
            best = max(made) if rule.pick == "newest" else min(made)
            return [c for c, at in zip(candidates, made, strict=True) if at == best]


def _best(
    candidates: Sequence[_Candidate], value: Callable[[_Candidate], float | None]
) -> list[_Candidate]:
    """Return the candidates of the largest value; all where one has none."""
    values = [value(candidate) for candidate in candidates]
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return list(candidates)
    best = max(known)
    return [c for c, v in zip(candidates, known, strict=True) if best - v <= _SAME * abs(best)]


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _thickness(candidate: _Candidate) -> float | None:
    """Return how far apart slices lie, else how thick they are, in mm."""
    image = candidate.images[0]
    places = [place for one in candidate.images for place in one.positions]
    if len(places) > 1 and image.orientations:
        a, b, c, d, e, f = image.orientations[0]
        normal = (b * f - c * e, c * d - a * f, a * e - b * d)
        along = sorted(sum(n * x for n, x in zip(normal, place, strict=True)) for place in places)
        if along[-1] > along[0]:
            return (along[-1] - along[0]) / (len(along) - 1)
    return image.slice_thickness


def _made(candidate: _Candidate) -> str:
    """Return when the first image was made; empty where one does not say it."""
    return min(image.technique.made for image in candidate.images)


def acquired(images: Sequence[Instance]) -> list[Instance]:
    """Return the images without secondary captures, where there are others."""
    found = [image for image in images if not is_secondary_capture(image)]
    return found or list(images)


def is_secondary_capture(image: Instance) -> bool:
    """Return whether the object is a picture of unknown making, one frame or several."""
    named = image.sop_class
    return named == _SECONDARY_CAPTURE or named.startswith(f"{_SECONDARY_CAPTURE}.")


def is_image_of_series(file: Quarantined) -> bool:
    """Return whether a file that cannot be used is an image of a series all the same."""
    if file.reason is Reason.NO_PIXELS:
        return file.detail == WITHOUT_PIXELS
    return bool(file.series) and file.reason not in _NO_IMAGE


def is_scout(image: Instance) -> bool:
    """Return whether an image is a localizer, as any value of its Image Type says it."""
    return "LOCALIZER" in image.image_type.upper().split("\\")


def _places(images: Iterable[Instance]) -> int:
    """Return how many places images show; those without one count each."""
    placed = {tuple(round(x, 2) for x in place) for image in images for place in image.positions}
    return len(placed) + sum(image.frames for image in images if not image.positions)


def _named(candidates: Sequence[_Candidate]) -> str:
    return named_series([image for one in candidates for image in one.images])


def named_series(images: Iterable[Instance]) -> str:
    """Return series by description, modality, count and UID."""
    counts: dict[str, int] = defaultdict(int)
    first: dict[str, Instance] = {}
    for image in images:
        counts[image.series] += 1
        first.setdefault(image.series, image)
    listed = [
        f"{one.series_description or 'no description'} ({one.modality}, {counts[name]} "
        f"file{'s' * (counts[name] != 1)}, {name or 'no UID'})"
        for name, one in sorted(first.items())
    ]
    more = f"; and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return "; ".join(listed[:_NAMED]) + more
