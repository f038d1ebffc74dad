"""The split that the rows of a table give a patient, and where they disagree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from client.cohort.split import Part, part_named
from client.dicom.reasons import Reason
from client.labels.label_table import Labels


def given_splits(
    labels: Labels, joined: Sequence[tuple[str, int, int]], column: str | None
) -> dict[str, set[Part | None]]:
    """Return what all rows of each patient say of its split, those without an image too."""
    found: dict[str, set[Part | None]] = defaultdict(set)
    if column is not None:
        for row in labels.rows:
            if row.get("PatientID"):
                found[row["PatientID"]].add(part_named(row[column]))
        for patient, place, _ in joined:
            found[patient].add(part_named(labels.rows[place][column]))
    return found


def split_problem(named: set[Part | None] | None) -> Reason | None:
    """Return why a patient's given split cannot be used, or None."""
    if named is None:
        return None
    if None in named:
        return Reason.SPLIT_UNKNOWN
    return Reason.PATIENT_IN_TWO_SPLITS if len(named) > 1 else None
