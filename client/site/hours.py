"""Hours of the day in which something may be done, such as 22:00-06:00."""

from __future__ import annotations

from datetime import datetime, time


def check_hours(hours: str | None) -> str | None:
    """Return them as they are; ValueError says what was expected."""
    if hours is not None:
        begin, end = _times(hours)
        if begin == end:
            message = "begins when it ends; leave hours out (null) for all day"
            raise ValueError(message)
    return hours


def within(hours: str | None, now: datetime) -> bool:
    """Return whether a moment lies in them, in this machine's time; the end does not."""
    if hours is None:
        return True
    begin, end = _times(hours)
    clock = now.astimezone().time()
    return begin <= clock < end if begin < end else clock >= begin or clock < end


def _times(hours: str) -> tuple[time, time]:
    begin, dash, end = hours.partition("-")
    try:
        found = time.fromisoformat(begin.strip()), time.fromisoformat(end.strip())
        if not dash or any(t.tzinfo is not None for t in found):
            raise ValueError
    except ValueError:
        message = "expected two times of day, such as 22:00-06:00"
        raise ValueError(message) from None
    return found
