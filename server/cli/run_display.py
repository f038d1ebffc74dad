"""A run on a terminal.

Public: frame, table_of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from common.metrics.constant_predictor import beside
from common.metrics.names import metric_words
from server.cli.run_words import (
    clock,
    measured,
    of_round,
    progress,
    since,
    size,
    time_left,
    waits_for,
)
from server.files.status_reader import RoundFacts, RunStatus, RunView, SiteStatus
from server.service.advice import advice

_COLOURS = {
    "done": "green",
    "answered": "green",
    "ready": "green",
    "failed": "red",
    "refused": "red",
    "late": "red",
    "offline": "yellow",
    "stopped": "yellow",
    "interrupted": "yellow",
}


def frame(view: RunView, now: datetime, *, rounds: int = 3) -> RenderableType:
    """Return everything about one run, with its last `rounds`; a small screen cuts the end."""
    status = view.status
    parts: list[RenderableType] = [_head(view, now), Text(_sentence(waits_for(view)))]
    # Of sites that are waited for before a round the sentence says it all.
    if status is not None and status.deadline and not view.is_over and status.phase != "approval":
        parts.append(Text(_until(status, now), style="dim"))
    steps = advice(view)
    if steps:
        parts += [Text(), Text("What to do:", style="bold")]
        parts += [Padding(Text(line), (0, 0, 0, 2)) for line in steps]
    if status is not None:
        if status.sites:
            parts += [Text(), _sites(status, now)]
            parts += [Text(status.privacy, style="dim")] if status.privacy else []
        if view.rounds:
            parts += [Text(), _rounds(view.rounds[-rounds:], status, now)]
    found = [view.cohort, _measured(view), _constant(view), time_left(view)]
    parts += [Text()] * any(found) + [Text(_sentence(text)) for text in found if text]
    return Group(*parts)


def _measured(view: RunView) -> str:
    """Return the last word on how good the model is."""
    if view.is_over and view.tested:
        return f"test patients of all sites: {measured(view.tested)}"
    values = measured(view.status.metrics) if view.status is not None else ""
    return f"validation patients of all sites: {values}" if values else ""


def _constant(view: RunView) -> str:
    """Return what a predictor has that looks at nobody, and whether the model is better."""
    if view.is_over and view.tested:
        return beside(view.tested)
    return beside(view.status.metrics) if view.status is not None else ""


def table_of(views: Iterable[RunView], now: datetime) -> Table:
    """Return one line a run, those at work first."""
    table = _table("run", "state", "round", "since")
    table.add_column("", overflow="fold")
    ordered = sorted(views, key=lambda v: (v.is_over, _newest_first(v.facts.created)))
    for view in ordered:
        status = view.status
        begun = status.since if status is not None else view.facts.created
        table.add_row(
            view.name,
            _coloured(view.facts.state),
            progress(view).removeprefix("round "),
            clock(begun, now) if begun else "",
            waits_for(view),
        )
    return table


def _newest_first(iso: str) -> float:
    try:
        return -datetime.fromisoformat(iso).timestamp()
    except ValueError:
        return 0.0


def _head(view: RunView, now: datetime) -> Text:
    status = view.status
    text = Text(view.name, style="bold")
    shown = [_coloured(view.facts.state), Text(progress(view))]
    if status is not None and status.since:
        what = "" if view.is_over else f"{status.phase} "
        shown.append(Text(what + since(status.since, now)))
    for part in shown:
        if part.plain:
            text.append("  ").append_text(part)
    return text


def _until(status: RunStatus, now: datetime) -> str:
    return (
        f"Sites have until {clock(status.deadline, now)}; then the round goes on with those that "
        f"answered, if there are {status.quorum} or more."
    )


def _sites(status: RunStatus, now: datetime) -> Table:
    sites = status.sites
    told = [site for site in sites.values() if site.patients is not None]
    private = [site for site in sites.values() if site.epsilon is not None]
    common = [site for site in sites.values() if site.common_epsilon is not None]
    table = _table("site", "state", "since")
    for name, wanted in (("patients", told), ("epsilon", private), ("at delta 1e-5", common)):
        if wanted:
            _add_number(table, name)
    under_way = any(site.transfer for site in sites.values())
    for name in ("sent", "received"):
        _add_number(table, name)
    if under_way:
        table.add_column("on its way")
    for name, site in sites.items():
        row: list[RenderableType] = [
            name,
            _coloured(site.state),
            clock(site.since, now) if site.since else "",
        ]
        row += [_patients(site)] if told else []
        row += [_known(site.epsilon)] if private else []
        row += [_known(site.common_epsilon)] if common else []
        row += [size(site.bytes_sent), size(site.bytes_received)]
        row += [_way(site)] if under_way else []
        table.add_row(*row)
    return table


def _way(site: SiteStatus) -> str:
    """Return how far a site's request, or its answer, is."""
    if not site.transfer:
        return ""
    return f"{'from' if site.state == 'sending' else 'to'} it: {site.transfer}"


def _patients(site: SiteStatus) -> str:
    return "-" if site.patients is None else f"{site.patients:,} {site.patients_are}".rstrip()


def _known(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _rounds(rounds: Sequence[RoundFacts], status: RunStatus, now: datetime) -> Table:
    scored = any(record.score is not None for record in rounds)
    # One of them; the others, with their intervals, stand below for the last round.
    metric = next((name for record in rounds for name in record.metrics), "")
    without = any(record.left_out for record in rounds)
    table = _table("round", "done", "sites", *(["score"] if scored else []))
    if metric:
        _add_number(table, metric_words(metric))
    for name in ("sent", "received"):
        _add_number(table, name)
    if without:
        table.add_column("without", overflow="fold")
    for record in rounds:
        moved = status.bytes_by_round
        sent, received = moved[record.round] if record.round < len(moved) else (0, 0)
        row = [str(record.round), clock(record.at, now), str(len(record.updates))]
        row += ["" if record.score is None else f"{record.score:.4f}"] if scored else []
        row += [of_round(record, metric)] if metric else []
        row += [size(sent), size(received)]
        # Why they were left out stands with the sites, or in the journal.
        row += [", ".join(record.left_out)] if without else []
        table.add_row(*row)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    # On a narrow screen a name is cut, not the figures.
    table.add_column(columns[0], overflow="ellipsis", max_width=32)
    for name in columns[1:]:
        table.add_column(name, no_wrap=True)
    return table


def _add_number(table: Table, name: str) -> None:
    table.add_column(name, justify="right", no_wrap=True, min_width=len(name))


def _coloured(state: str) -> Text:
    return Text(state, style=_COLOURS.get(state, ""))


def _sentence(text: str) -> str:
    """Return the text with a large first letter and a full stop."""
    whole = text[:1].upper() + text[1:]
    return whole if whole.endswith((".", "?", "!")) else whole + "."
