"""`report`: what can be used here, for the hospital's own people."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import as_text, say, table
from common.platform.durable_files import replace_durably
from common.platform.errors import CohortError

if TYPE_CHECKING:
    from client.readiness.report import SeriesRow

_SHOWN = 6
_TELL_SECONDS = 2.0


def report(home: Home, config: Path | None, out: Path | None) -> None:
    """Write report.html and report.json and say what they say in short.

    CohortError, after both are written, where the run cannot train here.
    """
    from client.governance.extensions import check_task_allowed
    from client.readiness.gathering import readiness
    from client.readiness.report import words
    from client.site.plain_text import size
    from common.config.run_config import load_config
    from common.extensions.pinning import pinned
    from common.platform.html_page import page

    site = load_site_config(home.site_yaml)
    run = pinned(load_config(config), at_site=True).in_force() if config is not None else None
    if run is not None:
        check_task_allowed(run, site.extensions)
    found = readiness(home, site, run, _teller())
    folder = out or home.report
    text = page("client.readiness", "report.html", {"found": found, "words": words, "size": size})
    facts = {
        **asdict(replace(found, pictures=())),
        "summary": found.summary,
        "ready": found.is_ready,
    }
    replace_durably(folder / "report.html", text.encode(), mode=0o600)
    content = json.dumps(facts, indent=1, allow_nan=False)
    replace_durably(folder / "report.json", content.encode(), mode=0o600)
    say(as_text(found.summary))
    _say_series(found.series)
    rows = [(f"  {row.studies or row.things} x", row.code, row.meaning) for row in found.reasons]
    if rows:
        say("Left out, or counted as missing:")
        table(rows[:_SHOWN])
        if len(rows) > _SHOWN:
            more = len(rows) - _SHOWN
            say(f"  and {more} more reason{'s' * (more != 1)}")
    if found.suspects:
        say("Used, and worth a look:")
        table([(f"  {r.things} x", r.code, r.meaning) for r in found.suspects[:_SHOWN]])
    if found.looked_at[0] < found.looked_at[1]:
        say(found.looking)
    if site.quality.read_text and not found.text_read:
        say("Text in pictures was not looked for: install ocr.txt (docs/install.md), then again.")
    for question in found.questions:
        say(as_text(question))
    unmet = [need for need in found.needs if not need.met]
    for need in unmet:
        say(f"Not met: {need.need}: {need.here} here; the run asks for {need.asked}. {need.fix}")
    say(f"Wrote {folder / 'report.html'} and report.json; both name files and stay here.")
    if found.stopped_by:
        raise CohortError(found.stopped_by)


def _say_series(rows: Sequence[SeriesRow]) -> None:
    if rows:
        say("Series by the run's rules, in patients:")
        told = [
            (f"{r.matched} matched", f"{r.ambiguous} ambiguous", f"{r.missing} missing")
            for r in rows
        ]
        table([(f"  {row.rule}", *counts) for row, counts in zip(rows, told, strict=True)])


def _teller() -> Callable[[int, int], None]:
    """Return what says now and then, on the error stream, how many headers were read."""
    last = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last > _TELL_SECONDS:
            last = time.monotonic()
            typer.echo(f"  {done} of {of} files", err=True)

    return tell
