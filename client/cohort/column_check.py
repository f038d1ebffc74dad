"""Check before training that the columns which a run reads hold values at this site.

A column that is missing for everybody, or whose cells are mostly none of what the run expects, is
a fault of writing (a decimal comma, another code, another spelling), not a finding: the site stops
with one sentence that names the cause, in `index`, in the report and as a refusal of the run.

What a cell means never depends on other rows (common/data/cell_values.py); whether the site
stops does, and the run chooses the columns. So a private run goes on, with noise alone if need be,
and the site's admin reads the sentence in `index`, in the report and in the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.cohort.join_report import alike_pairs, difference
from client.labels.label_table import Labels, read_labels
from client.labels.schema import MISSING
from common.config.run_config import RunConfig
from common.data.cell_values import expected_one_of, number_of, one_of, yes_or_no
from common.platform.errors import CohortError

#: Cells of another code that are mistakes of writing: beyond this part and number, they are a code.
_FEW, _FEWEST = 0.05, 5
_SHOWN = 4

#: The value that a cell means, or nothing.
Meaning = Callable[[str], str | None]


@dataclass(frozen=True, kw_only=True)
class _Column:
    name: str
    meaning: Meaning
    expected: Callable[[str], str]  # in place of a text
    values: tuple[str, ...] = ()  # all that may stand there; empty for numbers
    is_outcome: bool = False


def faults(labels: Labels, rows: Sequence[int], config: RunConfig) -> list[str]:
    """Return what is wrong with the columns that a run reads in these rows, a sentence each."""
    chosen = sorted(set(rows))
    if not chosen:
        return []
    found = [
        _question(labels, chosen, column) or _unread(labels, chosen, column)
        for column in _columns(config)
    ]
    return [fault for fault in found if fault is not None]


def doubt_of(labels: Labels, rows: Sequence[int], config: RunConfig, table: Path) -> str:
    """Return why a run cannot learn from the columns here, or nothing.

    A run with privacy goes on all the same, with noise alone if need be: whether a site stops
    would tell of its patients, and the run chooses the columns that are asked for.
    """
    stops = [*filter(None, [labels.doubt]), *faults(labels, rows, config)]
    return f"Run {config.name} cannot use {table}: {' '.join(stops)}" if stops else ""


def questions_about(table: Path, config: RunConfig) -> list[str]:
    """Return sentences on a table that may be right, and that a person has to look at."""
    return [*one_sided(table, config), *alike(table, config)]


def alike(table: Path, config: RunConfig) -> list[str]:
    """Return a sentence where PatientIDs may be one person's who is counted twice.

    They are two people to every run: whether 12 and 0012 are one, only the hospital knows.
    """
    labels = _read(table, (), config)
    if labels is None:
        return []
    lines: dict[str, int] = {}
    for line, row in zip(labels.lines, labels.rows, strict=True):
        lines.setdefault(row.get("PatientID", ""), line)
    pairs = alike_pairs(lines.keys() - {""})
    if not pairs:
        return []
    one, other = sorted(lines[name] for name in pairs[0])
    said = (
        f"PatientIDs differ in {difference(*pairs[0])} alone ({len(pairs)} x, such as in lines "
        f"{one} and {other}): they are different people to a run. Where they are one person, "
        "write them alike."
    )
    return [said]


def one_sided(table: Path, config: RunConfig) -> list[str]:
    """Return a sentence on each outcome that is 1 in every row of a table, for a person to look at.

    It may be true. It is also what R's coding looks like where nobody has died yet.
    """
    columns = config.task.two_valued
    labels = _read(table, columns, config)
    if labels is None:
        return []
    found: list[str] = []
    for column in columns:
        cells = [row[column] for row in labels.rows if row[column].lower() not in MISSING]
        if cells and {yes_or_no(cell) for cell in cells} == {1.0}:
            found.append(
                f"Every row holds {cells[0]} in column {column}, which is read as the event. Where "
                f"it means that there was none, say so: {_remedy(column, cells[:1])}"
            )
    return found


def _read(table: Path, columns: Sequence[str], config: RunConfig) -> Labels | None:
    """Return a table as a run reads it; None where it cannot be, which is said elsewhere."""
    images, private = config.cohort.images is not None, config.privacy != "none"
    try:
        return read_labels(
            table,
            columns,
            with_images=images,
            by_patient=private,
            file_column=config.cohort.file_column,
        )
    except CohortError:
        return None


def numbers_of(config: RunConfig) -> tuple[str, ...]:
    """Return the columns that a run reads as numbers."""
    table, task = config.cohort.table, config.task
    names = [number.column for number in table.numbers] if table is not None else []
    return (*names, *task.number_columns)


def _columns(config: RunConfig) -> Iterator[_Column]:
    table, task = config.cohort.table, config.task
    for name in task.two_valued:
        yield _Column(
            name=name,
            meaning=_zero_or_one,
            expected=lambda _: "0 or 1",
            values=("0", "1"),
            is_outcome=True,
        )
    for name, values in task.named_values.items():
        yield _one_of(name, values, is_outcome=True)
    for name in numbers_of(config):
        yield _Column(
            name=name,
            meaning=lambda t: None if number_of(t) is None else t,
            expected=lambda _: "a number such as 12.5",
        )
    for category in table.categories if table is not None else ():
        yield _one_of(category.column, category.values)


def _zero_or_one(text: str) -> str | None:
    value = yes_or_no(text)
    return None if value is None else f"{value:g}"


def _one_of(name: str, values: tuple[str, ...], *, is_outcome: bool = False) -> _Column:
    return _Column(
        name=name,
        meaning=lambda t: one_of(t, values),
        values=values,
        expected=lambda t: expected_one_of(t, values),
        is_outcome=is_outcome,
    )


def _unread(labels: Labels, rows: Sequence[int], column: _Column) -> str | None:
    """Return that a column is missing for everybody, or mostly not what the run expects."""
    texts = [labels.rows[row][column.name] for row in rows]
    refused = [row for row in rows if (labels.lines[row], column.name) in labels.refused]
    filled = [text for text in texts if text.lower() not in MISSING]
    odd = [text for text in filled if column.meaning(text) is None]
    lost, held = len(odd) + len(refused), len(filled) + len(refused)
    if not held:
        if column.is_outcome:
            return None
        return (
            f"Column {column.name} is empty in all {len(rows)} rows that the run would use. Fill "
            "it, or ask the coordinator to leave it out."
        )
    if 2 * lost <= held or (column.is_outcome and lost == held):
        return None  # an outcome that nobody has is told with the reasons of all rows
    first = next((r for r in rows if r in refused or labels.rows[r][column.name] in odd), rows[0])
    line = f"line {labels.lines[first]}"
    text = labels.rows[first][column.name]
    why = next(
        (p.detail for p in labels.unusable if p.what == line and f" {column.name} " in p.detail),
        f"column {column.name} holds {text[:40]!r}, expected {column.expected(text)}",
    )
    return (
        f"{lost} of {held} values of column {column.name} cannot be used; {line}: {why}. Correct "
        "the table, or say in its schema what its codes mean."
    )


def _question(labels: Labels, rows: Sequence[int], column: _Column) -> str | None:
    """Return the question what a column's codes mean, where they are others than the run's.

    Two outcomes of which one is nobody's, beside any other code, may be turned round (R's 1 and
    2); more values than two, of which some are nobody's, beside many other codes, may be shifted.
    """
    texts = [labels.rows[row][column.name] for row in rows]
    filled = Counter(text for text in texts if text.lower() not in MISSING)
    known = {column.meaning(text) for text in filled} - {None}
    others = {text: count for text, count in filled.items() if column.meaning(text) is None}
    codes = sum(count for text, count in others.items() if number_of(text) is not None)
    some = max(_FEW * filled.total(), _FEWEST - 1)
    two = column.is_outcome and len(column.values) == 2
    if len(known) == len(column.values):
        asks = two and codes > some
    else:
        words = bool(known) and column.meaning is _zero_or_one and sum(others.values()) > some
        shifted = _is_shifted(known, others, column.values)
        asks = codes > (0 if two or shifted else some) or (two and words)
    if not column.values or not asks:
        return None
    held = sorted(filled, key=lambda text: (number_of(text) is None, number_of(text) or 0, text))
    shown = ", ".join(held[:_SHOWN]) + (", ..." if len(held) > _SHOWN else "")
    text = f"Column {column.name} holds {shown}, expected {' and '.join(column.values)}: "
    if column.is_outcome and column.values == ("0", "1") and _is_rs(held):
        text += "which of them is the event (R writes 1 where there was none and 2 for the event)?"
    else:
        text += "what do its codes mean?"
    return f"{text} {_remedy(column.name, held, column.values)}"


def _is_rs(held: Sequence[str]) -> bool:
    return {number_of(text) for text in held} <= {1.0, 2.0}


def _is_shifted(known: set[str | None], others: Mapping[str, int], values: tuple[str, ...]) -> bool:
    """Return whether nobody has the first of numbered values, and somebody one past the last."""
    numbers = [number_of(value) for value in values]
    past = [number_of(text) for text in others]
    last = numbers[-1] if numbers else None
    return last is not None and values[0] not in known and last + 1 in past


def _remedy(name: str, held: Sequence[str], values: Sequence[str] = ()) -> str:
    """Return how the schema says what codes mean; values in their order where all codes are seen.

    Without values the one code that is held means that there was no event.
    """
    if 0 < len(held) < len(values):
        codes = ", ".join(f'"{text}": {" or ".join(values)}' for text in held)
    else:
        pairs = zip(held[: len(values) or 1], values or ("0",), strict=False)
        codes = ", ".join(f'"{text}": {value}' for text, value in pairs)
    return (
        f"Say it in the schema beside the table, such as columns: {{{name}: {{type: category, "
        f"codes: {{{codes}}}}}}} (docs/outcomes.md)."
    )
