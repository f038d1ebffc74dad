"""Structured logs: lines for people, JSON lines for programs.

    log("client.node.daemon").info("connected", coordinator="10.0.0.1:8443")

A local log may hold paths. A line with `upstream=True` is one that may leave the machine; it is
scrubbed as a last defence (`common.platform.scrubbing`), and its traceback is left out.

A warning that comes again and again is counted: `more` says how many like it were not written. A
line with `stranger=True` tells of somebody without a key; in a folder it goes to a small file of
its own (NAME-strangers.jsonl), so that no stranger can push other lines out.

Public: open_logs, Logs, log.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from json import dumps
from math import isfinite
from pathlib import Path
from typing import Self, cast

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter

from common.platform.log_files import LogFile
from common.platform.scrubbing import scrub

#: A log file is begun anew at this size; so many old ones stay beside it.
_LARGEST_FILE = 10 * 2**20
_OLD_FILES = 5
_STRANGERS_FILE, _STRANGERS_OLD_FILES = 2**20, 1
_OURS = frozenset({"client", "common", "server", "simulations"})
#: Loggers that tell people what is no business of theirs.
_QUIET = ("flwr", "uvicorn", "uvicorn.error", "uvicorn.access")
_COLOURS = {"warning": "\033[33m", "error": "\033[31m", "critical": "\033[31m"}

#: So many warnings from one place are written at once, and then one in so many seconds.
AT_ONCE, ONE_IN_SECONDS = 20, 30.0
#: Places that are counted; the one that was longest silent is forgotten.
_MOST_PLACES = 1000
_DECIDED = "let_through"  # in a record's own attributes

Event = MutableMapping[str, object]


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


def log(name: str) -> BoundLogger:
    """Return the logger of a module, before or after `open_logs`."""
    found = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[*_COMMON, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=BoundLogger,
    )
    return cast("BoundLogger", found)


def open_logs(folder: Path | None, *, json: bool, name: str) -> Logs:
    """Send all lines of this process to standard error, and to FOLDER/NAME.jsonl.

    On standard error they are for people, or JSON with `json`. Every process takes a `name` of
    its own: two that write one file would lose lines when it is begun anew.
    """
    console = logging.StreamHandler(sys.stderr)
    shown = _as_json if json else _for_people(colours=sys.stderr.isatty())
    console.setFormatter(_formatter(shown))
    handlers: list[logging.Handler] = [console]
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = LogFile(folder / f"{name}.jsonl", _LARGEST_FILE, _OLD_FILES)
        file.addFilter(lambda record: not _of_strangers(record))
        apart = LogFile(folder / f"{name}-strangers.jsonl", _STRANGERS_FILE, _STRANGERS_OLD_FILES)
        apart.addFilter(_of_strangers)
        for each in (file, apart):
            each.setFormatter(_formatter(_as_json))
            handlers.append(each)
    return Logs(handlers)


class Logs:
    """The open logs of a process; `close` puts logging back as it was."""

    def __init__(self, handlers: Iterable[logging.Handler]) -> None:
        self._handlers = tuple(handlers)
        self._root = logging.getLogger()
        self._level = self._root.level
        self._only_errors = {name: _OnlyErrors(name) for name in _QUIET}
        self._repeats = Repeats()
        for name, rule in self._only_errors.items():
            logging.getLogger(name).addFilter(rule)
        for handler in self._handlers:
            handler.addFilter(_worth_telling)
            handler.addFilter(self._repeats)
            self._root.addHandler(handler)
        self._root.setLevel(logging.INFO)

    def close(self) -> None:
        """Write what is pending and close the files."""
        self._repeats.tell_rest(self._handlers)
        self._root.setLevel(self._level)
        for name, rule in self._only_errors.items():
            logging.getLogger(name).removeFilter(rule)
        for handler in self._handlers:
            self._root.removeHandler(handler)
            handler.close()

    def __enter__(self) -> Self:
        """Return the open logs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self.close()


class _OnlyErrors(logging.Filter):
    """Keeps a library's notices out, and its own handlers, whenever it adds them."""

    def filter(self, record: logging.LogRecord) -> bool:
        logger = logging.getLogger(self.name)
        logger.handlers.clear()
        logger.propagate = True
        return record.levelno >= logging.ERROR


def _of_strangers(record: logging.LogRecord) -> bool:
    return isinstance(record.msg, dict) and bool(record.msg.get("stranger"))


def _worth_telling(record: logging.LogRecord) -> bool:
    top = record.name.partition(".")[0]
    if top in _OURS or isinstance(record.msg, dict):
        return True
    return record.levelno >= (logging.ERROR if top in _QUIET else logging.WARNING)


def _formatter(render: structlog.typing.Processor) -> ProcessorFormatter:
    return ProcessorFormatter(
        foreign_pre_chain=_COMMON,
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            render,
        ],
    )


# --- steps from a call to a line -----------------------------------------------------------


def _timed(_logger: object, _method: str, event: Event) -> Event:
    event["at"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    return event


def _scrubbed(_logger: object, _method: str, event: Event) -> Event:
    """Scrub a line that may leave the machine."""
    if not event.get("upstream"):
        return event
    event.pop("stack_info", None)
    if event.pop("exc_info", None):
        error = sys.exc_info()[0]
        event["error"] = error.__name__ if error is not None else "unknown"
    own = {"at", "level", "logger", "_record", "_from_structlog"}
    return {
        key if key in own else scrub(key): value if key in own else _without_traces(value)
        for key, value in event.items()
    }


def _without_traces(value: object) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {scrub(str(k)): _without_traces(v) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_without_traces(item) for item in value]
        case _:
            return scrub(str(value))


_COMMON: tuple[structlog.typing.Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    _timed,
    _scrubbed,
)


def _as_json(_logger: object, _method: str, event: Event) -> str:
    event.pop("stranger", None)
    first = {name: event.pop(name) for name in ("at", "level", "logger", "event") if name in event}
    return dumps(_json_value({**first, **event}), default=str)


def _json_value(value: object) -> object:
    """Return the value without nan and infinity, which JSON does not have."""
    match value:
        case float() if not isfinite(value):
            return str(value)
        case Mapping():
            return {str(k): _json_value(v) for k, v in value.items()}
        case list() | tuple():
            return [_json_value(item) for item in value]
        case _:
            return value


def _for_people(*, colours: bool) -> structlog.typing.Processor:
    def render(_logger: object, _method: str, event: Event) -> str:
        at = datetime.fromisoformat(str(event.pop("at"))).astimezone()
        level, text = str(event.pop("level")), _one_line(str(event.pop("event", "")))
        trace = event.pop("exception", None)
        for name in ("logger", "upstream", "stranger"):
            event.pop(name, None)
        facts = "".join(f"  {name}={_fact(value)}" for name, value in event.items())
        mark = "" if level in {"info", "debug"} else f"{level}: "
        start, end = (_COLOURS.get(level, ""), "\033[0m") if colours and mark else ("", "")
        line = f"{at:%H:%M:%S} {start}{mark}{text}{end}{facts}"
        return f"{line}\n{trace}" if trace else line

    return render


def _fact(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    plain = text.isprintable() and " " not in text and text != ""
    return text if plain else repr(text)


def _one_line(text: str) -> str:
    """Return the text with control characters visible: nobody can forge a line or a colour."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
