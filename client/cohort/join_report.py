"""Report of the join of table and images: why some rows or images find no partner.

The report is about identifiers, so it stays at the site; its counts may be shown elsewhere.

Labels that conflict are found by row in client/labels/label_table.py, and by patient in
client/cohort/assemble.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.dicom.index.index import Index
from client.dicom.reasons import NOTICES, Reason, Unusable, UnusableFile
from client.labels.csv_text import KEYS
from client.labels.label_table import Labels, dicom_keys, key_of_row

#: Letters that people write for figures, when they copy an identifier by hand or by eye.
_LOOKALIKES = str.maketrans("oil", "011")
#: AccessionNumber (VR SH) has at most so many characters; longer ones were cut (PS3.5 6.2).
_LONGEST_SH = 16
_NAMED = 20

Keys = Mapping[str, str]  # DICOM key -> value, of one image or series


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """A row without an image, or an image without a row."""

    what: str  # line of the table, or by which key the images were looked for
    value: str  # the identifier
    cause: str  # the likely one; empty where none suggests itself


@dataclass(frozen=True, kw_only=True)
class JoinReport:
    """How a table and the images found each other."""

    rows: int  # of the table, usable
    matched_rows: int
    images: int  # or series, as they were counted
    matched_images: int
    by_key: Mapping[str, int]  # matched images by the key that found their row
    rows_by_key: Mapping[str, int]  # rows by the most specific key that they fill
    duplicate_rows: int  # rows that repeat another's key and agree with it
    conflicting_keys: int  # keys whose rows disagree; their images have no row
    unmatched_rows: tuple[Unmatched, ...]
    unmatched_images: tuple[Unmatched, ...]

    def causes(self) -> Counter[str]:
        """Return how often each likely cause stands behind what was not matched."""
        all_of_them = (*self.unmatched_rows, *self.unmatched_images)
        return Counter(one.cause for one in all_of_them if one.cause)

    def lines(self) -> list[str]:
        """Return the report as a person reads it."""
        keys = ", ".join(f"{n} by {key}" for key, n in self.by_key.items() if n)
        text = f"{self.matched_rows} of {self.rows} rows of the table have images; "
        text += f"{self.matched_images} of {self.images} images have a row"
        found = [f"{text} ({keys})." if keys else f"{text}."]
        if self.duplicate_rows:
            found.append(f"{self.duplicate_rows} rows repeat another row; each counts once.")
        if self.conflicting_keys:
            found.append(f"{self.conflicting_keys} identifiers have rows that disagree.")
        found += [f"Likely cause: {cause} ({n} x)." for cause, n in self.causes().most_common()]
        return found


def join_report(labels: Labels, images: Iterable[Keys]) -> JoinReport:
    """Compare the table with the keys of all images; patients who were withdrawn are no part."""
    wanted = [keys for keys in images if keys["PatientID"] not in labels.withdrawn]
    by_key: Counter[str] = Counter()
    used: set[int] = set()
    missing: dict[tuple[str, ...], Keys] = {}
    matched = 0
    for keys in wanted:
        try:
            row = labels.find(keys)
        except UnusableFile as problem:
            if problem.reason is Reason.LABEL_MISSING:
                missing.setdefault(tuple(keys[k] for k in KEYS), keys)
            continue
        key = key_of_row(labels.rows[row])
        by_key[key[0] if key else ""] += 1
        matched += 1
        used.add(row)
    rows_by_key = Counter(key[0] for row in labels.rows if (key := key_of_row(row)) is not None)
    column = max(rows_by_key, key=lambda k: rows_by_key[k], default="PatientID")
    lonely = [row for row in sorted(set(labels.index.values())) if row not in used]
    same = Counter(key_of_row(row) for row in labels.rows)
    return JoinReport(
        rows=len(labels.rows),
        matched_rows=len(used),
        images=len(wanted),
        matched_images=matched,
        by_key=dict(by_key),
        rows_by_key=dict(rows_by_key),
        duplicate_rows=sum(n - 1 for key, n in same.items() if key not in labels.conflicts),
        conflicting_keys=len(labels.conflicts & set(same)),
        unmatched_rows=_rows_without(labels, lonely, wanted),
        unmatched_images=_images_without(labels, list(missing.values()), column),
    )


#: No picture that was looked for is refused with these, so it may be missing all the same.
_NO_PICTURE = frozenset(
    {
        Reason.DICOMDIR,
        Reason.NO_PIXELS,
        Reason.SEGMENTATION,
        Reason.SLIDE_LABEL,
        Reason.LOCALIZER,
        Reason.LABEL_MISSING,
        Reason.WITHDRAWN,
        *NOTICES,
    }
)


def rows_of_refused(
    folder: Path, labels: Labels, problems: Iterable[Unusable], index: Path, rows: Collection[int]
) -> set[int]:
    """Return which of these rows have images that are listed among the problems."""
    refused = {
        problem.what.partition(" frame ")[0]
        for problem in problems
        if problem.reason not in _NO_PICTURE
    }
    if not rows or not refused:
        return set()
    found: set[int] = set()
    with Index(index) as known:
        for image in known.instances(folder):
            if {_below(image.path, folder), image.series} & refused:
                found |= _row_of(labels, dicom_keys(image.header))
        for odd in known.quarantined(folder):
            if odd.patient and _below(Path(odd.what), folder) in refused:
                found |= _row_of(
                    labels,
                    {
                        "SeriesInstanceUID": odd.series,
                        "StudyInstanceUID": odd.study,
                        "AccessionNumber": "",
                        "PatientID": odd.patient,
                    },
                )
    return found & set(rows)


def _row_of(labels: Labels, keys: Keys) -> set[int]:
    try:
        return {labels.find(keys)}
    except UnusableFile:
        return set()


def _below(path: Path, folder: Path) -> str:
    folder = folder.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _rows_without(
    labels: Labels, rows: Sequence[int], images: Sequence[Keys]
) -> tuple[Unmatched, ...]:
    held = {column: {keys[column] for keys in images} - {""} for column in KEYS}
    index = {column: _by_likeness(values) for column, values in held.items()}
    found: list[Unmatched] = []
    for row in rows:
        column, value = key_of_row(labels.rows[row]) or ("PatientID", "")
        cause = cause_of(value, column, index[column]) or _other_column(value, column, held)
        what = f"line {labels.lines[row]}"
        found.append(Unmatched(what=what, value=value, cause=cause))
    return tuple(found)


def _images_without(labels: Labels, images: Sequence[Keys], column: str) -> tuple[Unmatched, ...]:
    rows = [key for row in labels.rows if (key := key_of_row(row)) is not None]
    index = _by_likeness({value for name, value in rows if name == column})
    found: dict[str, Unmatched] = {}
    for keys in images:
        value = keys[column]
        cause = cause_of(value, column, index) if value else f"the images have no {column}"
        found[value] = Unmatched(what=f"images by {column}", value=value, cause=cause)
    return tuple(found.values())


def near(value: str, others: Collection[str]) -> tuple[str, ...]:
    """Return the identifiers that differ from a value only as people and programs alter them."""
    return tuple(sorted(_by_likeness(set(others) - {value}).get(_likeness(value), ())))


def alike_pairs(values: Collection[str]) -> list[tuple[str, str]]:
    """Return the identifiers of which another differs only as people and programs alter them."""
    groups = (names for names in _by_likeness(values).values() if len(names) > 1)
    return [(names[0], other) for names in groups for other in names[1:]]


def cause_of(value: str, column: str, others: Mapping[str, Sequence[str]]) -> str:
    """Return why an identifier may have found nothing: how the nearest one differs."""
    if column == "AccessionNumber" and len(value) > _LONGEST_SH:
        return f"AccessionNumber has more than {_LONGEST_SH} characters, which DICOM cuts off"
    if re.fullmatch(r"\d(\.\d+)?[Ee]\+?\d+", value):
        return "a spreadsheet rounded the identifier; format the column as text"
    other = next((o for o in others.get(_likeness(value), ()) if o != value), None)
    return "" if other is None else difference(value, other)


def difference(value: str, other: str) -> str:
    """Return in what two identifiers differ that are the same but for that."""
    steps = (
        ("how accents are written (Unicode's forms)", lambda t: unicodedata.normalize("NFKC", t)),
        ("upper and lower case", str.casefold),
        ("blanks or signs between the characters", lambda t: re.sub(r"[\W_]+", "", t)),
        ("the point and zero of a number (12345.0)", lambda t: re.sub(r"\.0+$", "", t)),
        ("zeros in front", lambda t: t.lstrip("0")),
        ("O for 0, or I or l for 1", lambda t: t.casefold().translate(_LOOKALIKES)),
    )
    for name, plain in steps:
        if plain(value) == plain(other):
            return name
    return "several small differences, such as case, zeros in front or blanks"


def _likeness(value: str) -> str:
    """Return what stays of an identifier when all that is often altered is taken off."""
    plain = re.sub(r"\.0+$", "", unicodedata.normalize("NFKC", value).strip())
    return re.sub(r"[\W_]+", "", plain).casefold().translate(_LOOKALIKES).lstrip("0")


def _by_likeness(values: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for value in sorted(values):
        found[_likeness(value)].append(value)
    return found


def _other_column(value: str, column: str, held: Mapping[str, Collection[str]]) -> str:
    for name, values in held.items():
        if name != column and value in values:
            return f"{column} holds what is {name} in the images"
    return ""
