"""Readiness report: what was found, what can be used, and why the rest cannot.

For the site's own people: it names files and patients, so it stays here. What the coordinator
would be told of it is in it, too, exactly as it would be
(client/cohort_statistics/released_counts.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from client.cohort_statistics.account import StudyAccount
from client.dicom.reasons import Reason, Unusable
from client.readiness.pictures import SeenImage
from common.messages.cohort_statistics import CohortStatistics

#: Examples of a reason that are named; all of them are in the JSON.
EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much of one kind there is."""

    patients: int = 0
    studies: int = 0
    images: int = 0  # files that hold one


@dataclass(frozen=True, kw_only=True)
class ReasonRow:
    """Everything that one reason speaks against."""

    code: str
    meaning: str  # what it means, and how to mend it
    things: int  # files, series, lines or patients
    studies: int  # that are left out for it; 0 where it left none out
    examples: tuple[str, ...]  # what, and the detail


@dataclass(frozen=True, kw_only=True)
class KindRow:
    """One modality."""

    modality: str
    patients: int
    studies: int
    series: int
    images: int
    spacing: str  # mm, median and range
    size: str  # rows x columns, the most frequent
    makers: str


@dataclass(frozen=True, kw_only=True)
class Need:
    """One thing that a run asks for."""

    need: str
    asked: str
    here: str
    met: bool
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class CountTable:
    """Counts for people here: exact, with nothing held back."""

    name: str
    unit: str
    rows: tuple[tuple[str, int], ...]

    @property
    def largest(self) -> int:
        """The longest bar."""
        return max((count for _, count in self.rows), default=0)


@dataclass(frozen=True, kw_only=True)
class SeriesRow:
    """How one rule of the run for series fares here, in patients."""

    rule: str
    matched: int  # one series fits
    ambiguous: int  # several fit, or a part, or what cannot be read may fit
    missing: int  # none fits
    own_words: tuple[str, ...]  # of this site for it (site.yaml, series_aliases)


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """How well the table of labels and the images fit."""

    what: str
    count: int
    of: int


@dataclass(frozen=True, kw_only=True)
class MaskRow:
    """The mask that the last pull found for a row of the table, or why there is none."""

    row: str  # the row's keys
    column: str
    file: str
    why: str


@dataclass(frozen=True, kw_only=True)
class ColumnRow:
    """What the table holds in a column of numbers that the run takes, for a person to judge."""

    column: str
    unit: str  # as the site's schema or the run says; empty where neither does
    values: int  # rows that hold a number
    missing: int  # rows that hold none
    lowest: float | None  # None: no row holds a number
    median: float | None
    highest: float | None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured on this machine while the report was made."""

    files: int  # that were measured
    files_per_second: float
    megabytes_per_second: float
    cache_needed: int  # bytes of decoded pixels, when all images are prepared
    disk_free: int  # bytes where the cache lies


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """The whole report."""

    site: str
    made_at: str  # ISO time
    folder: str
    run: str  # name of the configuration; empty without one
    fingerprint: str
    stopped_by: str  # why nobody can be used; empty where somebody can
    found: Amount
    used: Amount
    left_out: Amount
    reasons: tuple[ReasonRow, ...]
    suspects: tuple[ReasonRow, ...]
    looked_at: tuple[int, int]  # images whose pixels were looked at, and all of them
    text_read: bool  # pictures were read for text
    remarks: tuple[tuple[str, int, str], ...]  # code, images, what was done
    kinds: tuple[KindRow, ...]
    needs: tuple[Need, ...]
    series: tuple[SeriesRow, ...]  # empty where the run has no rules for series
    labels: tuple[LabelRow, ...]
    unmatched: tuple[str, ...]  # likely causes why rows and images did not find each other
    masks: tuple[MaskRow, ...]  # of the PACS, by row of the table
    columns: tuple[ColumnRow, ...]
    questions: tuple[str, ...]  # what a person should look at in the table
    tables: tuple[CountTable, ...]  # outcomes, split, and histograms
    speed: Speed
    pictures: tuple[SeenImage, ...]  # of what the network sees; in the page alone
    told: CohortStatistics | None  # what the coordinator would be told; None without a run
    telling: str  # what the site's policy says of it, in a sentence

    @property
    def is_ready(self) -> bool:
        """Whether the run that it was made for can train here."""
        return not self.stopped_by and all(need.met for need in self.needs)

    @property
    def looking(self) -> str:
        """What was looked at for suspicions, and what makes it more."""
        done, all_ = self.looked_at
        text = f"Pixels were looked at in {done} of {all_} images"
        text += "; `wardround-site index` decodes the others." if done < all_ else "."
        if self.text_read:
            return f"{text} Pictures were read for text; no reader finds all of it."
        return f"{text} Text in pictures was not looked for (site.yaml, quality.read_text)."

    @property
    def summary(self) -> str:
        """The report in one sentence or two."""
        found, used = self.found, self.used
        text = f"{used.patients} of {found.patients} patients can be used"
        if found.studies:
            text = (
                f"{used.studies} of {found.studies} studies, of {used.patients} of "
                f"{found.patients} patients, can be used"
            )
        text += f" for {self.run}." if self.run else "."
        worst = next((row for row in self.reasons if row.studies or not self.run), None)
        if self.left_out.studies and worst is not None:
            most = "most of them" if self.left_out.studies > 1 else "it"
            are = "are" if self.left_out.studies > 1 else "is"
            text += f" {self.left_out.studies} {are} left out, {most} as {words(worst.code)}."
        if not self.run:
            return text
        unmet = [need.need for need in self.needs if not need.met]
        if self.stopped_by:
            return f"{text} The run cannot train here."
        return text + (
            f" What the run needs and is not here: {', '.join(unmet)}."
            if unmet
            else " The run can train here."
        )


def words(code: str) -> str:
    """Return a reason code as words."""
    return code.lower().replace("_", " ").replace("dicom", "DICOM")


def reason_rows(
    problems: Iterable[Unusable], studies: Iterable[StudyAccount] = ()
) -> tuple[ReasonRow, ...]:
    """Return the problems by reason, those that cost most studies first."""
    listed: dict[Reason, list[Unusable]] = {}
    for problem in problems:
        listed.setdefault(problem.reason, []).append(problem)
    lost: dict[Reason, int] = {}
    for study in studies:
        if study.reason is not None:
            lost[study.reason] = lost.get(study.reason, 0) + 1
            listed.setdefault(study.reason, [])
    rows = [
        ReasonRow(
            code=reason.name,
            meaning=reason.value,
            things=len(found),
            studies=lost.get(reason, 0),
            examples=_examples(found),
        )
        for reason, found in listed.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.studies, -row.things, row.code)))


def _examples(found: Sequence[Unusable]) -> tuple[str, ...]:
    return tuple(
        f"{problem.what}: {problem.detail}" if problem.detail else problem.what
        for problem in found[:EXAMPLES]
    )


def amount(studies: Iterable[StudyAccount]) -> Amount:
    """Return how much studies come to."""
    listed = tuple(studies)
    return Amount(
        patients=len({study.patient for study in listed}),
        studies=len(listed),
        images=sum(len(study.images) for study in listed),
    )
