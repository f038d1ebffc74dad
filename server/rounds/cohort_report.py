"""Report of the sites' cohorts: a page, a line, a table on a terminal.

Public: write_report, cohort_line, said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from common.messages.cohort_statistics import LEFT_OUT, MergedRow, MergedTable, StatisticsTable
from common.platform.durable_files import replace_durably
from common.platform.html_page import page
from server.rounds.cohort_survey import Survey

_TOTALS = ("found", "used", "left out")
#: Tables that say how much there is; the others say what it is like.
_AMOUNTS = frozenset({"studies", "patients", LEFT_OUT})


@dataclass(frozen=True, kw_only=True)
class SiteRow:
    """One site's line."""

    site: str
    studies: tuple[str, str, str]  # found, used, left out
    patients: tuple[str, str, str]
    reasons: tuple[str, ...]  # how many, and the code as words
    note: str  # noise and what it cost; why it told nothing


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row of a merged table."""

    name: str
    count: str
    share: float  # of the longest bar, 0 to 1
    held_back_by: tuple[str, ...]


def write_report(path: Path, found: Survey) -> None:
    """Write the page, which stands alone."""
    merged = found.merged()
    tables = {
        name: (table.unit, bars(table), table.sites)
        for name, table in merged.items()
        if name.partition(", by ")[0] not in _AMOUNTS
    }
    content = page(
        "server.rounds",
        "cohort_report.html",
        {
            "found": found,
            "rows": site_rows(found),
            "total": totals(merged),
            "tables": tables,
            "reasons": _reasons(merged),
            "line": cohort_line(found),
        },
    )
    replace_durably(path, content.encode())


def cohort_line(found: Survey) -> str:
    """Return it in one line, for `status`."""
    asked = len(found.sites) + len(found.not_told)
    told = f"{len(found.sites)} of {asked} sites described their cohort{'s' * (asked != 1)}"
    merged = found.merged()
    unit = "studies" if "studies" in merged else "patients"
    if unit not in merged:
        return told
    rows = merged[unit].rows
    parts = [f"{name} {count}" for name, count in zip(_TOTALS, _sums(rows), strict=True) if count]
    return f"{told}: {unit} {', '.join(parts)}"


def said(found: Survey) -> tuple[str, ...]:
    """Return the whole of it as lines of text."""
    lines = [f"{cohort_line(found)}."]
    for row in site_rows(found):
        if row.note and row.site in found.not_told:
            lines.append(f"{row.site}: {row.note}")
            continue
        amounts = row.studies if any(row.studies) else row.patients
        unit = "studies" if any(row.studies) else "patients"
        lines.append(
            f"{row.site}: {unit} found {amounts[0]}, used {amounts[1]}, left out {amounts[2]}"
            + (f" ({row.note})" if row.note else "")
        )
        lines += [f"    {reason}" for reason in row.reasons]
    return tuple(lines)


def site_rows(found: Survey) -> tuple[SiteRow, ...]:
    """Return a line for every site that was asked."""
    rows = []
    for site in sorted({*found.sites, *found.not_told}):
        told = found.sites.get(site)
        if told is None:
            rows.append(
                SiteRow(
                    site=site,
                    studies=("", "", ""),
                    patients=("", "", ""),
                    reasons=(),
                    note=found.not_told[site],
                )
            )
            continue
        note = f"each count with noise of {told.noise:g} patients" if told.noise else ""
        if site in found.epsilon:
            note += f", epsilon {found.epsilon[site]:.3g}"
        rows.append(
            SiteRow(
                site=site,
                studies=_amounts(told.tables.get("studies"), told.smallest),
                patients=_amounts(told.tables.get("patients"), told.smallest),
                reasons=_site_reasons(told.tables.get(LEFT_OUT), told.smallest),
                note=note,
            )
        )
    return tuple(rows)


def totals(merged: Mapping[str, MergedTable]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the sums over all sites."""
    return tuple(
        (unit, _sums(rows))
        for unit, rows in ((u, merged[u].rows) for u in ("studies", "patients") if u in merged)
    )


def bars(table: MergedTable) -> tuple[Bar, ...]:
    """Return a table's rows as bars, without those that nobody has."""
    longest = max((row.told for row in table.rows.values()), default=0.0)
    return tuple(
        Bar(
            name=name,
            count=_shown(row),
            held_back_by=row.held_back_by,
            share=max(row.told, 0.0) / longest if longest > 0 else 0.0,
        )
        for name, row in table.rows.items()
        if row.told or row.held_back_by
    )


def _amounts(table: StatisticsTable | None, smallest: int) -> tuple[str, str, str]:
    if table is None:
        return "", "", ""
    found, used, left_out = (
        _told(table.rows[name], smallest) if name in table.rows else "" for name in _TOTALS
    )
    return found, used, left_out


def _site_reasons(table: StatisticsTable | None, smallest: int) -> tuple[str, ...]:
    if table is None:
        return ()
    listed = [(name, count) for name, count in table.rows.items() if count != 0]
    listed.sort(key=lambda row: (-(row[1] or 0.0), row[0]))
    return tuple(
        f"{words(name)}: {_told(count, smallest)}"
        if count is None
        else f"{count:.0f} x {words(name)}"
        for name, count in listed
    )


def _reasons(merged: Mapping[str, MergedTable]) -> tuple[Bar, ...]:
    found = [bar for name in merged if name.startswith(LEFT_OUT) for bar in bars(merged[name])]
    return tuple(sorted(found, key=lambda bar: (-bar.share, bar.name)))


def words(code: str) -> str:
    """Return a reason code as words, with the code: the sites' own reports say how to mend it."""
    return f"{code.lower().replace('_', ' ')} ({code})"


def _told(count: float | None, smallest: int) -> str:
    """Return a count, or what is known of one that was held back."""
    return f"held back (may be fewer than {smallest})" if count is None else f"{count:.0f}"


def _shown(row: MergedRow) -> str:
    """Return a sum; with `or more` where a site told nothing of it."""
    if row.held_back_by and not row.told:
        return "held back"
    return f"{row.told:.0f}" + (" or more" if row.held_back_by else "")


def _sums(rows: Mapping[str, MergedRow]) -> tuple[str, ...]:
    """Return found, used and left out; what was used was found, though found was held back."""
    found = rows.get("found")
    if found is not None and found.held_back_by:
        known = sum(rows[name].told for name in _TOTALS[1:] if name in rows)
        rows = {**rows, "found": replace(found, told=max(found.told, known))}
    return tuple(_shown(rows[name]) if name in rows else "" for name in _TOTALS)
