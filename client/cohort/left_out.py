"""Patients and images that a site lets into no cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.files.other_formats import other_formats
from client.labels.label_table import Labels
from common.platform.errors import CohortError


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Withdrawn patients, and images that the site's rules of quality refuse."""

    withdrawn: frozenset[str] = frozenset()  # PatientIDs
    #: By PatientID and SOP Instance UID: why, and what exactly, for the site's admin.
    images: Mapping[tuple[str, str], tuple[Reason, str]] = field(default_factory=dict)

    def check(self, patient: str, instance: str) -> None:
        """Raise UnusableFile for an image that is left out."""
        refused = self.images.get((patient, instance))
        if refused is not None:
            raise UnusableFile(*refused)


class NobodyUsable(CohortError):
    """Everything is there, and nobody of it can be used; `unusable` says why of each."""

    def __init__(
        self,
        message: str,
        unusable: Sequence[Unusable],
        fared: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None,
    ) -> None:
        super().__init__(message)
        self.unusable = tuple(unusable)
        self.fared = fared or {}  # as SiteCohort has it


class ColumnsUnusable(NobodyUsable):
    """A column that the run reads says nothing here, or the run cannot tell what it says."""


def whats_there(
    labels: Labels, images: int | None, problems: Sequence[Unusable], folder: Path
) -> str:
    """Return what was found where nobody can be used; it names no patient.

    `images` are those that can be used; None for a table alone.
    """
    counts = Counter(p.reason for p in problems).most_common(4)
    listed = "; ".join(f"{n} x {reason.name} ({reason.value})" for reason, n in counts)
    keys = sorted({key[0] for row in labels.rows if (key := labels.named_by(row)) is not None})
    held = f"the table of labels has {len(labels.rows)} usable rows"
    held += f" by {', '.join(keys)}" if keys else ""
    held += "." if images is None else f", the folder {images} usable images."
    hint = ""
    if images is not None and Reason.LABEL_MISSING in {reason for reason, _ in counts}:
        hint = "Compare the identifiers, zeros in front among them, with those in the images."
    # The detail of NO_IMAGE is an identifier.
    worst = counts[0][0] if counts and counts[0][0] is not Reason.NO_IMAGE else None
    first = next((p for p in problems if p.reason is worst and p.detail), None)
    example = f"First: {first.what}: {first.detail}." if first is not None else ""
    lonely = Reason.NO_IMAGE in {problem.reason for problem in problems}
    in_dicom = not labels.file_column
    instead = other_formats(folder, labels.rows) if lonely and in_dicom else ""
    return " ".join(part for part in (held, listed, example, hint, instead) if part)
