"""`watch`: follows a run until it is over.

Public: watch, watch_run, watched, newest_name, show, Look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import datetime

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from common.metrics.constant_predictor import beside
from common.metrics.names import metric_words
from common.platform.errors import ConfigurationError, ExitCode, LinkDown, Unreachable
from server.cli.run_display import frame, table_of
from server.cli.run_words import of_round, waits_for
from server.files.folder import Folder
from server.files.status_reader import RoundFacts, RunView, newest
from server.service.advice import advice
from server.service.operator_client import Operator

#: Asks the service, or reads the files. Unreachable and LinkDown pass; other errors end it.
Look = Callable[[], RunView]

_PAUSE_SECONDS = 0.5
#: Where lines are printed, one that says what is still waited for comes after so long.
_QUIET_SECONDS = 600.0


def watch(look: Look, console: Console, *, pause_seconds: float = _PAUSE_SECONDS) -> int:
    """Show a run until it is over and return its exit code.

    Ctrl-C ends the watching, not the run, and returns 130. A service that cannot be reached at
    first is an error; one that is lost later may come back, and is waited for.
    """
    name = "the run"
    try:
        view = look()
        name = view.name
        following = _live if console.is_terminal else _lines
        last = following(view, _patient(look, view), console, pause_seconds)
    except KeyboardInterrupt:
        console.print(
            f"You stopped watching; {name} goes on. To see it again: wardround-coordinator watch "
            f"{name}. To end it: wardround-coordinator stop {name}.",
            markup=False,
            highlight=False,
        )
        return ExitCode.INTERRUPTED
    return last.exit_code


def watch_run(folder: Folder, name: str | None) -> int:
    """Show a run until it is over."""
    with closing(Operator(folder)) as operator:
        chosen = name or newest_name(operator.runs())
        return watch(lambda: operator.run(chosen), Console())


def watched(operator: Operator, name: str, *, detach: bool) -> int:
    """Show an ordered run to its end, unless it is detached."""
    if detach:
        typer.echo(f"To see it: wardround-coordinator watch {name}")
        return 0
    return watch(lambda: operator.run(name), Console())


def newest_name(views: Iterable[RunView]) -> str:
    """Return the newest run's name; ConfigurationError when there is none."""
    found = newest(views)
    if found is None:
        message = "There is no run yet. Start one: wardround-coordinator run CONFIG"
        raise ConfigurationError(message)
    return found.name


def show(views: Sequence[RunView], console: Console) -> None:
    """Print where all runs are, or everything about the only one."""
    now = _now()
    match views:
        case []:
            console.print("No run yet. Start one: wardround-coordinator run CONFIG", markup=False)
        case [view]:
            console.print(frame(view, now, rounds=len(view.rounds)))
        case _:
            console.print(table_of(views, now))


#: What is known now, and what keeps it from being known better.
_News = tuple[RunView, str]


def _patient(look: Look, first: RunView) -> Callable[[], _News]:
    """Return a look that gives the last view again, with the reason, where there is no new one."""
    last, lost_at = first, ""

    def patiently() -> _News:
        nonlocal last, lost_at
        try:
            last, lost_at = look(), ""
        except (Unreachable, LinkDown) as error:
            lost_at = lost_at or f"{_now():%H:%M:%S}"
            return last, f"No news since {lost_at}, looking again: {error}"
        return last, ""

    return patiently


def _live(
    view: RunView, look: Callable[[], _News], console: Console, pause_seconds: float
) -> RunView:
    with Live(_whole(view, ""), console=console, auto_refresh=False) as live:
        while not view.is_over:
            time.sleep(pause_seconds)
            view, trouble = look()
            live.update(_whole(view, trouble), refresh=True)
    return view


def _whole(view: RunView, trouble: str) -> RenderableType:
    parts: list[RenderableType] = [Text(trouble, style="red")] if trouble else []
    parts.append(frame(view, _now()))
    if not view.is_over:
        parts.append(Text("\nCtrl-C ends the watching, not the run.", style="dim"))
    return Group(*parts)


def _lines(
    view: RunView, look: Callable[[], _News], console: Console, pause_seconds: float
) -> RunView:
    """Print a line for each phase and each round, and now and then what is still waited for."""
    done = view.rounds[-1].round if view.rounds else 0
    step, trouble, told_at = "", "", 0.0
    while True:
        for record in view.rounds:
            if record.round > done:
                _print(console, _of_round(record))
                done = record.round
        now = trouble or _step(view) or step
        if now != step or time.monotonic() - told_at > _QUIET_SECONDS:
            _print(console, trouble or f"{view.name}, {view.facts.state}: {waits_for(view)}")
            step, told_at = now, time.monotonic()
        if view.is_over:
            for text in filter(None, (beside(view.tested), *advice(view))):
                _print(console, text)
            return view
        time.sleep(pause_seconds)
        view, trouble = look()


def _step(view: RunView) -> str:
    """Return what makes a line worth its place; sites come and go within one, without a line."""
    status = view.status
    if status is None or view.is_over or status.phase == "approval":
        return f"{view.facts.state}: {waits_for(view)}"
    return f"round {status.round}" if status.phase == "training" else ""


def _of_round(record: RoundFacts) -> str:
    score = "" if record.score is None else f", score {record.score:.4f}"
    metric = next(iter(record.metrics), "")
    value = of_round(record, metric)
    score += f", {metric_words(metric)} {value}" if value else ""
    without = f", without {', '.join(record.left_out)}" if record.left_out else ""
    return f"round {record.round} is done: {len(record.updates)} updates{score}{without}"


def _print(console: Console, text: str) -> None:
    console.print(f"{_now():%H:%M:%S} {text}", markup=False, highlight=False, soft_wrap=True)


def _now() -> datetime:
    return datetime.now().astimezone()
