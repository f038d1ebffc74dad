"""Join: each image with the row of the table that means it, or each row by itself.

The fifth step from a folder to tensors (client/cohort/loading.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.cohort.join_report import rows_of_refused
from client.cohort.prepare import Prepared
from client.dicom.reasons import Reason, Unusable
from client.files.other_formats import other_formats
from client.labels.label_table import Labels


@dataclass(frozen=True, kw_only=True)
class JoinedItem:
    """One image with its row, or one row; its label is not looked at yet."""

    patient: str  # PatientID
    row: int  # of the table
    image: int = 0  # position among the prepared images; 0 without images


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The items of a site, and the rows and images that found nothing."""

    items: tuple[JoinedItem, ...]
    problems: tuple[Unusable, ...] = ()


def join_rows(labels: Labels, needed: Sequence[str]) -> Joined:
    """Return each row by itself, for a run without images; equal rows of a patient are one."""
    rows = labels.distinct(needed)
    return Joined(
        items=tuple(JoinedItem(patient=labels.rows[row]["PatientID"], row=row) for row in rows)
    )


def join_images(site: Path, prepared: Prepared, labels: Labels, index: Path | None) -> Joined:
    """Return images with their rows, and list rows without an image.

    A row whose images are there and were refused is told by their reasons alone: `index` says
    which images there are. None: images are files, each of which its row names and was told of.
    """
    items: list[JoinedItem] = []
    problems: list[Unusable] = []
    used: set[int] = set()
    for image, keys in enumerate(prepared.keys):
        row = labels.find(keys)
        used.add(row)
        if labels.rows[row].get("PatientID") not in {None, "", keys["PatientID"]}:
            problems.append(
                Unusable(
                    reason=Reason.PATIENT_MISMATCH,
                    what=keys["source"],
                    detail=f"line {labels.lines[row]}",
                    patient=keys["PatientID"],
                )
            )
            continue
        items.append(JoinedItem(patient=keys["PatientID"], row=row, image=image))
    unseen = set(labels.index.values()) - used if index is not None else set()
    if index is not None:
        unseen -= rows_of_refused(site, labels, prepared.problems, index, unseen)
    lonely = sorted(unseen)
    instead = other_formats(site, labels.rows) if lonely else ""
    for row in lonely:
        line, key = f"line {labels.lines[row]}", " ".join(labels.named_by(labels.rows[row]) or ())
        detail = f"{key}. {instead}" if instead else key
        whose = labels.rows[row].get("PatientID", "")
        problems.append(Unusable(reason=Reason.NO_IMAGE, what=line, detail=detail, patient=whose))
    return Joined(items=tuple(items), problems=tuple(problems))
