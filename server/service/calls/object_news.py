"""News of objects: whoever asks for one that is on its way has it when it comes.

A site hears of its request before the run has pushed all of it. Asking again and again would be
most of what a coordinator of many sites does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class ObjectNews:
    """Who waits for which object; every method is called in the event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[asyncio.Event]:
        """Yield what is set once an object has come; begin before looking whether it is here."""
        news = asyncio.Event()
        self._waiting.setdefault(name, set()).add(news)
        try:
            yield news
        finally:
            self._waiting[name].discard(news)
            if not self._waiting[name]:
                del self._waiting[name]

    def came(self, name: str) -> None:
        """Tell whoever waits for an object."""
        for news in self._waiting.get(name, ()):
            news.set()
