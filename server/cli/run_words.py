"""Times, sizes and states of a run in words.

Public: clock, duration, size, since, progress, waits_for, time_left, measured, of_round.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise

from common.metrics.names import metric_words
from server.files.status_reader import RoundFacts, RunView

_WEEK = timedelta(days=6)


def clock(iso: str, now: datetime) -> str:
    """Return the local time of day, with the day where it is another; ? for no time."""
    try:
        at = datetime.fromisoformat(iso).astimezone(now.tzinfo)
    except ValueError:
        return "?"
    if at.date() == now.date():
        return f"{at:%H:%M}"
    return f"{at:%a %H:%M}" if abs(now - at) < _WEEK else f"{at:%Y-%m-%d %H:%M}"


def duration(seconds: float) -> str:
    """Return a time span to two digits or so: 45 s, 12 min, 3 h 20 min, 2 d 3 h."""
    whole = round(max(seconds, 0.0))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def size(count: float) -> str:
    """Return bytes as people read them: 812 B, 3.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def since(iso: str, now: datetime) -> str:
    """Return since when, and how long that is: since 14:02 (3 min)."""
    try:
        seconds = (now - datetime.fromisoformat(iso)).total_seconds()
    except (ValueError, TypeError):
        return ""
    return f"since {clock(iso, now)} ({duration(seconds)})"


def progress(view: RunView) -> str:
    """Return where the run is: round 12 of 40."""
    status = view.status
    if status is None or not status.rounds:
        return ""
    return f"round {status.round} of {status.rounds}" if status.round else f"{status.rounds} rounds"


def waits_for(view: RunView) -> str:
    """Return in one sentence what the run does, waits for, or came to."""
    status = view.status
    if view.is_over:
        own = status.message if status is not None else ""
        return view.facts.message or own or view.facts.state
    if view.facts.state == "waiting":  # what status.json says is of an earlier process
        return view.facts.message or "waiting for its turn"
    if status is None or status.phase == "over":
        return "its process is starting"
    return status.sentence or status.phase


def time_left(view: RunView) -> str:
    """Return about how long the rounds to come take, by those before."""
    status, seconds = view.status, round_seconds(view.rounds)
    if status is None or seconds is None or view.is_over:
        return ""
    done = view.rounds[-1].round
    left = (status.rounds - done) * seconds
    each = f"{seconds:.2g} s" if seconds < 10 else duration(seconds)
    return f"{each} a round, about {duration(left)} to go" if left > 0 else ""


def round_seconds(rounds: tuple[RoundFacts, ...]) -> float | None:
    """Return the median time from one round's end to the next's."""
    try:
        ends = [datetime.fromisoformat(r.at) for r in rounds]
        gaps = [(b - a).total_seconds() for a, b in pairwise(ends)]
    except (ValueError, TypeError):
        return None
    return statistics.median(gaps) if gaps else None


def measured(metrics: Mapping[str, object]) -> str:
    """Return the metrics with their intervals: AUROC 0.912 (0.881 to 0.938)."""
    return ", ".join(filter(None, (_measured(name, found) for name, found in metrics.items())))


def of_round(record: RoundFacts, name: str) -> str:
    """Return one metric of a round without its interval, or nothing where it was not measured."""
    found = record.metrics.get(name)
    value = found.get("value") if isinstance(found, Mapping) else None
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _measured(name: str, found: object) -> str:
    value, low, high = (
        (found.get(key) for key in ("value", "low", "high"))
        if isinstance(found, Mapping)
        else (None, None, None)
    )
    if not isinstance(value, int | float):
        return ""
    if isinstance(low, int | float) and isinstance(high, int | float):
        return f"{metric_words(name)} {value:.3f} ({low:.3f} to {high:.3f})"
    return f"{metric_words(name)} {value:.3f}"
