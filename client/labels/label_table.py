"""labels.csv: one row a patient, study, series or image, found by the most specific key."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.dicom.contained import contained
from client.dicom.reading.read import Header
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.labels.csv_text import KEYS
from client.labels.pacs_masks import Keys, filled, read_masks
from client.labels.schema import LabelSchema, check_columns, checked, read_schema, schema_path
from client.labels.table_files import read_table
from client.labels.table_shape import FEWER, MORE, misshapen, two_notations, with_causes
from common.data.cell_values import Notation
from common.platform.errors import CohortError

Row = Mapping[str, str]
Key = tuple[str, str]  # key column, value


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The rows of a site's table, by key."""

    rows: tuple[Row, ...]
    lines: tuple[int, ...]  # of each row in the file, for messages
    index: Mapping[Key, int]  # most specific key of a row -> row
    conflicts: frozenset[Key]  # keys whose rows disagree, and all keys of their patients
    unusable: tuple[Unusable, ...]
    withdrawn: frozenset[str] = frozenset()  # PatientIDs whose rows and images are left out
    schema: LabelSchema = field(default_factory=LabelSchema)  # what the columns hold
    by_patient: bool = False  # a patient's images find its own rows alone
    #: Why the table as a whole cannot be right, where a run with privacy goes on; else empty.
    doubt: str = ""
    #: Column that names each row's image, where images are files and no DICOM; else empty.
    file_column: str = ""
    #: Cells that held something which is not used: line, column; they are empty in `rows`.
    refused: frozenset[tuple[int, str]] = frozenset()
    sign: str = field(default="", compare=False)  # that parts the cells of a CSV
    #: Masks that `pull` found in the PACS: keys of a row and column -> file.
    masks: Mapping[tuple[Keys, str], str] = field(default_factory=dict, compare=False)

    def find(self, keys: Mapping[str, str]) -> int:
        """Return an image's row, by the most specific key that the table has for it.

        UnusableFile with LABEL_MISSING, LABEL_CONFLICT or WITHDRAWN.
        """
        if keys["PatientID"] in self.withdrawn:
            raise UnusableFile(Reason.WITHDRAWN)
        for column, value in self._keys_of(keys):
            key = self._key(keys["PatientID"], column, value)
            if key in self.conflicts:
                raise UnusableFile(Reason.LABEL_CONFLICT)
            if key in self.index:
                return self.index[key]
        raise UnusableFile(Reason.LABEL_MISSING)

    def _keys_of(self, keys: Mapping[str, str]) -> list[Key]:
        """Return by what an image's row is looked for, the most specific first.

        A row that names files is a study of its own (client/cohort/files.py).
        """
        if self.file_column:
            return [(self.file_column, keys["StudyInstanceUID"])]
        return [(column, keys[column]) for column in KEYS]

    def named_by(self, row: Row) -> Key | None:
        """Return the most specific key that a row fills in."""
        if not self.file_column:
            return key_of_row(row)
        return (self.file_column, row[self.file_column]) if row[self.file_column] else None

    def key_of(self, row: Row) -> Key:
        """Return the most specific key of a row, within its patient where `by_patient`."""
        column, value = self.named_by(row) or ("", "")
        return self._key(row.get("PatientID", ""), column, value)

    def _key(self, patient: str, column: str, value: str) -> Key:
        return column, f"{patient}\0{value}" if self.by_patient else value

    def distinct(self, needed: Sequence[str]) -> list[int]:
        """Return the rows that say something new of their patient, for tables without images."""
        seen: dict[tuple[str, ...], int] = {}
        for place, row in enumerate(self.rows):
            seen.setdefault((row["PatientID"], *(row[c] for c in needed)), place)
        return list(seen.values())


def read_labels(
    path: Path,
    needed: Sequence[str],
    *,
    with_images: bool,
    withdrawn: frozenset[str] = frozenset(),
    numbers: Sequence[str] = (),
    by_patient: bool = False,
    file_column: str = "",
) -> Labels:
    """Read a table and the schema beside it; CohortError names the file and what it lacks.

    Columns of `numbers` are brought to one way of writing numbers (common/data/cell_values.py),
    each cell by itself. With images, rows of one key must agree in the needed columns, since an
    image has one row; without, every row names its patient. `by_patient`, as a run with privacy
    wants it, every row names its patient, and no row has a say about another's images: a study that
    two patients' rows name is looked up in each one's own. No row stops such a run: `doubt` says
    it. With `file_column` every row names its patient, and its image there.
    """
    schema = read_schema(path)
    needed = (*needed, file_column) if file_column else needed
    text = read_table(path, schema.sheet, line_by_line=by_patient)
    header, *cells = text.lines or ((1, ()),)
    columns = [name.strip() for name in header[1]]
    there = [*columns, *(name for name in schema.of_pacs if name not in columns)]
    try:
        _check_columns(
            path, there, needed, with_images=with_images and not (by_patient or file_column)
        )
    except CohortError as error:
        cause = _misplaced(columns, cells)
        if cause:
            message = f"The header of {path} {cause}"
        elif text.other_sheets:
            message = (
                f"{error} This was the first sheet; there is also {', '.join(text.other_sheets)}: "
                f"name the right one in {schema_path(path).name} beside the table, as sheet: NAME"
            )
        else:
            raise
        raise CohortError(message) from error
    check_columns(schema, path, columns)
    notation: Notation = schema.decimal or ("semicolons" if text.sign == ";" else "unknown")
    found = Labels(
        rows=(),
        lines=(),
        index={},
        conflicts=frozenset(),
        unusable=text.unusable,
        withdrawn=withdrawn,
        schema=schema,
        by_patient=by_patient,
        file_column=file_column if with_images else "",
        sign=text.sign,
        masks={(m.keys, m.column): m.file for m in read_masks(path)} if schema.of_pacs else {},
    )
    found = _filled(found, columns, cells, notation, numbers, with_images=with_images)
    found = replace(found, unusable=with_causes(found.unusable, text.sign))
    doubt = misshapen(path, found.unusable, text)
    if text.sign and notation == "unknown":
        read = {*numbers, *(name for name, r in schema.columns.items() if r.type == "number")}
        doubt = doubt or two_notations(path, columns, cells, read)
    if doubt and not by_patient:
        raise CohortError(doubt)
    found = replace(found, doubt=doubt)
    return _indexed(found, needed) if with_images else found


def _filled(
    empty: Labels,
    columns: Sequence[str],
    cells: Sequence[tuple[int, tuple[str, ...]]],
    notation: Notation,
    numbers: Sequence[str],
    *,
    with_images: bool,
) -> Labels:
    """Return the table with its rows as declared, and a list of what is not."""
    rows: list[Row] = []
    lines: list[int] = []
    unusable: list[Unusable] = list(empty.unusable)
    refused: set[tuple[int, str]] = set()
    optional = with_images and not (empty.by_patient or empty.file_column)
    for line, values in cells:
        try:
            with contained():
                own = filled(_row(columns, values), empty.masks, empty.schema.of_pacs)
                row, problems, odd = checked(own, empty.schema, line, notation, numbers)
            if key_of_row(row) is None or not (optional or row["PatientID"]):
                raise UnusableFile(Reason.NO_KEY)
            if empty.named_by(row) is None:
                raise UnusableFile(Reason.NO_IMAGE, f"column {empty.file_column} is empty")
        except UnusableFile as problem:
            unusable.append(problem.listed(f"line {line}"))
            continue
        if row.get("PatientID") not in empty.withdrawn:
            rows.append(row)
            lines.append(line)
            unusable += problems
            refused |= {(line, column) for column in odd}
    return replace(
        empty,
        rows=tuple(rows),
        lines=tuple(lines),
        unusable=tuple(unusable),
        refused=frozenset(refused),
    )


def after_outcome(labels: Labels) -> list[Unusable]:
    """Return the values that were taken after the outcome, as the table's schema tells.

    They count as missing already; see client/labels/schema.py.
    """
    return [one for one in labels.unusable if one.reason is Reason.LABEL_AFTER_OUTCOME]


def _row(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Return a line's cells by column, or raise ROW_MALFORMED."""
    values = list(cells)
    while len(values) > len(columns) and not values[-1].strip():
        values.pop()  # some exports end every line with a comma
    if not any(columns[len(values) :]):  # or the header alone
        values += [""] * (len(columns) - len(values))
    if len(values) != len(columns):
        kind = MORE if len(values) > len(columns) else FEWER
        raise UnusableFile(Reason.ROW_MALFORMED, f"{kind}: {len(values)}, not {len(columns)}")
    return dict(zip(columns, (v.strip() for v in values), strict=True))


def dicom_keys(header: Header) -> dict[str, str]:
    """Return what labels.csv may name an image by."""
    return {
        "SeriesInstanceUID": header.series,
        "StudyInstanceUID": header.study,
        "AccessionNumber": header.accession,
        "PatientID": header.patient,
    }


def key_of_row(row: Row) -> Key | None:
    """Return the most specific key that a row fills in."""
    return next(((column, row[column]) for column in KEYS if row.get(column)), None)


def _indexed(labels: Labels, needed: Sequence[str]) -> Labels:
    """Return the table with its rows by key, without those that disagree."""
    index: dict[Key, int] = {}
    disagree: list[tuple[int, int, str]] = []
    for place, row in enumerate(labels.rows):
        key = labels.key_of(row)
        first = index.setdefault(key, place)
        column = next((c for c in needed if row[c] != labels.rows[first][c]), None)
        if column is not None:
            disagree.append((first, place, column))
    keys = {labels.key_of(labels.rows[place]) for _, place, _ in disagree}
    patients = {labels.rows[place].get("PatientID", "") for _, place, _ in disagree} - {""}
    conflicts = {
        key
        for key, place in index.items()
        if key in keys or labels.rows[place].get("PatientID", "") in patients
    }
    listed = tuple(
        Unusable(
            reason=Reason.LABEL_CONFLICT,
            what=f"line {labels.lines[place]}",
            detail=f"{column} is not as in line {labels.lines[first]}",
            patient=labels.rows[place].get("PatientID", ""),
        )
        for first, place, column in disagree
    )
    return replace(
        labels,
        index={key: place for key, place in index.items() if key not in conflicts},
        conflicts=frozenset(conflicts),
        unusable=labels.unusable + listed,
    )


def _check_columns(
    path: Path, columns: Sequence[str], needed: Sequence[str], *, with_images: bool
) -> None:
    if not columns:
        message = f"{path} is empty. Its first line names the columns, PatientID among them."
        raise CohortError(message)
    twice = sorted(name for name, count in Counter(columns).items() if count > 1 and name)
    if twice:
        message = f"{path} has the column {twice[0]} twice. Rename one of them."
        raise CohortError(message)
    if not set(KEYS if with_images else ["PatientID"]) & set(columns):
        wanted = " or ".join(reversed(KEYS)) if with_images else "PatientID"
        message = f"{path} has no column {wanted}.{_near('PatientID', columns)}"
        raise CohortError(message)
    for name in needed:
        if name not in columns:
            message = f"{path} has no column {name}.{_near(name, columns)}"
            raise CohortError(message)


def _misplaced(columns: Sequence[str], cells: Sequence[tuple[int, tuple[str, ...]]]) -> str:
    """Return why a header without any key is none, where its names stand elsewhere."""
    if set(KEYS) & set(columns):
        return ""
    parts = re.split("[,;|\t]", columns[0]) if len(columns) == 1 else []
    if set(KEYS) & {part.strip() for part in parts}:
        return (
            "is one cell: its line stands in quotes as a whole. Save the table without quotes "
            "around its lines."
        )
    below = next((n for n, row in cells[:20] if set(KEYS) & {c.strip() for c in row}), None)
    if below is None:
        return ""
    return f"is not in its first line; line {below} looks like it. Take what stands above it out."


def _near(name: str, columns: Sequence[str]) -> str:
    by_lower = {column.lower(): column for column in columns}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {' or '.join(by_lower[n] for n in near)}?"
    more = ", ..." if len(columns) > 12 else "."
    return f" It has {', '.join(columns[:12])}{more}"
