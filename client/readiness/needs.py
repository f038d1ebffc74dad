"""Needs of a run compared with what is here, and how the table fits the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from client.cohort.join_report import join_report
from client.cohort_statistics.account import CohortFacts, StudyAccount
from client.dicom.headers.instance import Instance
from client.dicom.reasons import Reason, UnusableFile
from client.files.other_formats import other_formats
from client.labels.csv_text import KEYS
from client.labels.label_table import Labels, after_outcome, dicom_keys, read_labels
from client.labels.pacs_masks import read_masks
from client.labels.schema import number_in
from client.readiness.report import ColumnRow, LabelRow, MaskRow, Need
from common.config.run_config import Images, NumberColumn, RunConfig
from common.platform.errors import CohortError


def needs_of(
    config: RunConfig, used: Sequence[StudyAccount], facts: CohortFacts, rows: Sequence[Instance]
) -> tuple[Need, ...]:
    """Return every need of a run with what is here."""
    train = len(facts.parts.get("train", ()))
    least = config.cohort.smallest_cohort
    found = [
        Need(
            need="training patients",
            asked=f"{least} or more",
            here=str(train),
            met=train >= least,
            fix="" if train >= least else Reason.TOO_FEW_PATIENTS.value,
        ),
        _measured(config, facts),
    ]
    images = config.cohort.images
    if images is not None and config.cohort.in_dicom:
        found += _of_images(images, used, rows)
    elif images is not None:
        found.append(_without_headers())
    if config.task.outlines:
        found.append(_masks(facts))
    return tuple(found)


def _measured(config: RunConfig, facts: CohortFacts) -> Need:
    """Return whether there are enough test patients for their counts to be told."""
    test, least = len(facts.parts.get("test", ())), config.evaluation.smallest_cell
    return Need(
        need="test patients",
        asked=f"{least} or more to be measured",
        here=str(test),
        met=test >= least,
        fix="" if test >= least else "Add patients, or let the split give more to the test.",
    )


def _without_headers() -> Need:
    """Say what is not known of images in files: all that rules of quality ask of headers."""
    return Need(
        need="what headers say",
        asked="modality, part of the body, side, pixel spacing, burned-in text",
        here="not known: the images are files without DICOM headers",
        met=True,
        fix="",
    )


def _of_images(
    images: Images, used: Sequence[StudyAccount], rows: Sequence[Instance]
) -> list[Need]:
    found: list[Need] = []
    if images.modalities:
        here = sorted({row.modality for row in rows if row.modality})
        found.append(
            Need(
                need="modality",
                asked=", ".join(images.modalities),
                here=", ".join(here) or "none",
                met=bool(set(images.modalities) & set(here)),
                fix=Reason.WRONG_MODALITY.value,
            )
        )
    if images.body_parts:
        here = sorted({row.body_part for row in rows if row.body_part})
        fits = {p.upper() for p in images.body_parts} & {p.upper() for p in here}
        found.append(
            Need(
                need="part of the body",
                asked=", ".join(images.body_parts),
                here=", ".join(here) or "not told by the headers",
                met=bool(fits) or not here,
                fix=Reason.WRONG_BODYPART.value,
            )
        )
    if images.spacing is not None:
        found.append(_spacing(images.spacing, used))
    sizes = sorted((row.rows, row.columns) for row in rows)
    if sizes and images.patch is None:
        middle = sizes[len(sizes) // 2]
        wanted = images.size[-2:]
        found.append(
            Need(
                need="picture size",
                asked=f"{wanted[0]} x {wanted[1]} after resizing",
                here=f"{middle[0]} x {middle[1]} (median)",
                met=True,
            )
        )
    return found


def _spacing(wanted: tuple[float, float, float], used: Sequence[StudyAccount]) -> Need:
    """Compare the grid that volumes are resampled to with what was acquired."""
    distances = [study.slice_distance for study in used if study.slice_distance]
    here = median(distances) if distances else None
    coarse = here is not None and here > 3 * wanted[0]
    fix = "Slices are much thicker than the run's: send thinner reconstructions."
    return Need(
        need="slice distance",
        asked=f"{wanted[0]:g} mm after resampling",
        here=f"{here:.3g} mm (median)" if here else "not known",
        met=not coarse,
        fix=fix if coarse else "",
    )


def _masks(facts: CohortFacts) -> Need:
    refused = (Reason.MASK_MISSING, Reason.MASK_UNUSABLE, Reason.MASK_LOST)
    found = [p.reason for p in facts.unusable if p.reason in refused]
    lost, cut = len(found), sum(p.reason is Reason.MASK_CUT for p in facts.unusable)
    return Need(
        need="masks",
        asked="one for every image",
        here=f"{lost} missing or unusable" + (f", {cut} in part" if cut else ""),
        met=lost == 0,
        fix=max(refused, key=found.count).value if lost else "",
    )


def label_rows(table: Path, rows: Sequence[Instance]) -> tuple[LabelRow, ...]:
    """Return how many images have a row, and rows an image; empty where the table is unusable."""
    try:
        labels = read_labels(table, (), with_images=True)
    except CohortError:
        return ()
    studies: dict[str, list[Instance]] = {}
    for row in rows:
        studies.setdefault(row.study or str(row.path), []).append(row)
    places = {key: _row(labels, images[0]) for key, images in studies.items()}
    hit = {place for place in places.values() if place is not None}
    named = [column for column in KEYS if any(row.get(column) for row in labels.rows)]
    late = len(after_outcome(labels))
    found = [
        LabelRow(
            what="studies with a row in the table",
            of=len(studies),
            count=sum(place is not None for place in places.values()),
        ),
        LabelRow(what="rows with an image", count=len(hit), of=len(labels.rows)),
        LabelRow(what="rows that disagree", count=len(labels.conflicts), of=len(labels.rows)),
        LabelRow(what="values taken after the outcome", count=late, of=len(labels.rows)),
    ]
    if named:
        keyed = sum(any(row.get(c) for c in named) for row in labels.rows)
        name = f"rows keyed by {', '.join(reversed(named))}"
        found.append(LabelRow(what=name, count=keyed, of=len(labels.rows)))
    return tuple(found)


def causes(folder: Path, table: Path, rows: Sequence[Instance]) -> tuple[str, ...]:
    """Return the likely causes of rows without images and images without rows."""
    try:
        labels = read_labels(table, (), with_images=True)
    except CohortError:
        return ()
    report = join_report(labels, (dicom_keys(row.header) for row in rows))
    found = [f"{cause} ({count} x)" for cause, count in report.causes().most_common()]
    instead = other_formats(folder, labels.rows) if report.unmatched_rows else ""
    return (*found, instead) if instead else tuple(found)


def mask_rows(table: Path) -> tuple[MaskRow, ...]:
    """Return what the last pull found of masks in the PACS, those without one first."""
    found = [
        MaskRow(
            row=" ".join(k for k in one.keys if k), column=one.column, file=one.file, why=one.why
        )
        for one in read_masks(table)
    ]
    return tuple(sorted(found, key=lambda row: not row.why))


def files_named(table: Path) -> frozenset[str]:
    """Return every text in a cell of the table: the masks in use are among them."""
    try:
        rows = read_labels(table, (), with_images=True).rows
    except CohortError:
        return frozenset()
    return frozenset(text for row in rows for text in row.values())


def column_rows(table: Path, config: RunConfig | None) -> tuple[ColumnRow, ...]:
    """Return range and gaps of each column of numbers that a run takes, over the whole table."""
    if config is None or config.cohort.table is None:
        return ()
    numbers = config.cohort.table.numbers
    try:
        columns = [number.column for number in numbers]
        images = config.cohort.images is not None
        labels = read_labels(
            table,
            columns,
            with_images=images,
            numbers=columns,
            file_column=config.cohort.file_column,
        )
    except CohortError:  # said above
        return ()
    return tuple(_column(labels, number) for number in numbers)


def _column(labels: Labels, number: NumberColumn) -> ColumnRow:
    found = [number_in(row[number.column]) for row in labels.rows]
    values = [value for value in found if value is not None]
    rules = labels.schema.columns.get(number.column)
    return ColumnRow(
        column=number.column,
        unit=(rules.unit if rules else None) or number.unit or "",
        values=len(values),
        missing=len(found) - len(values),
        lowest=min(values, default=None),
        highest=max(values, default=None),
        median=median(values) if values else None,
    )


def _row(labels: Labels, image: Instance) -> int | None:
    try:
        return labels.find(dicom_keys(image.header))
    except UnusableFile:
        return None
