"""Text, times and sizes as shown on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime


def shown(text: str) -> str:
    """Return what somebody else wrote as a terminal may show it.

    Characters that a terminal would act on, or that would hide others, are replaced.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def counted(number: int, what: str, several: str = "") -> str:
    """Return a number of things in words: 1 patient, 2 patients."""
    return f"{number} {what if number == 1 else several or what + 's'}"


def ago(since: str, now: datetime | None = None) -> str:
    """Return how long ago a moment (ISO 8601) was, in the largest unit that fits."""
    try:
        seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(since)).total_seconds()
    except (ValueError, TypeError):
        return "unknown"
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {name}{'s' * (count != 1)}"
    return "less than a minute"


def size(count: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
