"""Rate limit of repeated warnings in logs."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

#: So many warnings from one place are written at once, and then one in so many seconds.
AT_ONCE, ONE_IN_SECONDS = 20, 30.0
#: Places that are counted; the one that was longest silent is forgotten.
_MOST_PLACES = 1000
_DECIDED = "let_through"  # in a record's own attributes


@dataclass
class _Place:
    """A place in code that warns, and how much it may."""

    record: logging.LogRecord  # the last one that was kept back
    tokens: float
    at: float
    more: int = 0  # kept back since one was written


class Repeats(logging.Filter):
    """Lets a place's first warnings through, then few, each with the count of those between."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._places: OrderedDict[tuple[object, ...], _Place] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written, with how many before it were not."""
        if record.levelno < logging.WARNING:
            return True
        with self._lock:  # every handler asks; the first decides
            if _DECIDED not in record.__dict__:
                record.__dict__[_DECIDED] = self._decide(record)
            return bool(record.__dict__[_DECIDED])

    def tell_rest(self, handlers: Iterable[logging.Handler]) -> None:
        """Write what was kept back and not counted in any line yet."""
        with self._lock:
            left = [place for place in self._places.values() if place.more]
            self._places.clear()
        for place in left:
            _count_into(place.record, place.more - 1)
            place.record.__dict__[_DECIDED] = True
            for handler in handlers:
                handler.handle(place.record)

    def _decide(self, record: logging.LogRecord) -> bool:
        text = record.msg.get("event") if isinstance(record.msg, dict) else None
        key = (record.name, record.levelno, record.pathname, record.lineno, text)
        place = self._places.pop(key, None) or _Place(record, float(AT_ONCE), record.created)
        self._places[key] = place
        if len(self._places) > _MOST_PLACES:
            self._places.popitem(last=False)
        gained = max(record.created - place.at, 0.0) / ONE_IN_SECONDS
        place.tokens, place.at = min(AT_ONCE, place.tokens + gained), record.created
        if place.tokens < 1:
            place.record, place.more = record, place.more + 1
            return False
        place.tokens -= 1
        _count_into(record, place.more)
        place.more = 0
        return True


def _count_into(record: logging.LogRecord, more: int) -> None:
    if more and isinstance(record.msg, dict):
        record.msg = {**record.msg, "more": more}
    elif more:
        record.msg, record.args = f"{record.getMessage()} ({more} more like this)", ()
