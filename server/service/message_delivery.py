"""Delivery middleware: pulls wait for a message, messages are sent until they came.

Flower answers a pull at once, mostly with nothing, and counts a message as delivered when it
is asked for it: a connection that breaks then loses it. Here an empty answer is held back
until the other side pushes (common/messages/pull_headers.py), and an answer with messages is kept
until the receiver says that it came. Flower's own handlers do the work and check the sender;
nothing of this outlives the process, and a run that lost its coordinator begins its round anew.

A site for which Flower had nothing is not looked up again before a run pushes something for it:
nothing else makes a message of a site's due. Runs are: Flower itself answers for a site that is
offline, when its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.messages.pull_headers import (
    DELIVERY_HEADER,
    HERE_HEADER,
    LONGEST_WAIT_SECONDS,
    RECEIVED_HEADER,
    WAIT_HEADER,
)
from server.http.asgi import answer, header, read_body, replayed
from server.service.calls.frequent_calls import FLEET_LEAVE
from server.service.calls.presence import Presence

_LARGEST_PULL = 1024 * 1024
#: Names of objects of many messages; the guards have bounds of their own before this one.
_LARGEST_PUSH = 16 * 1024 * 1024
_OK = 200

Woken = Literal["arrived", "superseded", "closing"]


class PushSignal:
    """Wakes whoever waits for something that one side pushes to the other."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Woken]] = {}
        self._counts: Counter[str] = Counter()
        self._of_all = 0
        self._closed = False

    def count(self, caller: str) -> int:
        """Return how often something was pushed for a caller."""
        return self._counts[caller] + self._of_all

    def announce(self, callers: Iterable[str] | None = None) -> None:
        """Something was pushed for these callers; for all of them where it is not known."""
        if callers is None:
            self._of_all += 1
            self._wake(list(self._waiting), "arrived")
            return
        named = set(callers)
        self._counts.update(named)
        self._wake(named & self._waiting.keys(), "arrived")

    def close(self) -> None:
        """Let everybody go home, also who comes from now on: a stop waits for who is here."""
        self._closed = True
        self._wake(list(self._waiting), "closing")

    async def wait(self, caller: str, seconds: float, receive: Receive) -> bool:
        """Return whether something may have arrived; False also when the caller is gone.

        A caller waits once: an earlier wait of the same caller, on a connection that may be
        dead without our knowing, ends and must not take the message.
        """
        if self._closed:
            return False
        earlier = self._waiting.pop(caller, None)
        if earlier is not None and not earlier.done():
            earlier.set_result("superseded")
        woken: asyncio.Future[Woken] = asyncio.get_running_loop().create_future()
        self._waiting[caller] = woken
        hangs_up = asyncio.ensure_future(receive())
        try:
            either: list[asyncio.Future[Any]] = [woken, hangs_up]
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hangs_up.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await hangs_up
            if self._waiting.get(caller) is woken:
                del self._waiting[caller]
        return woken.done() and woken.result() == "arrived"

    def _wake(self, callers: Collection[str], how: Woken) -> None:
        for caller in callers:
            woken = self._waiting.pop(caller)
            if not woken.done():
                woken.set_result(how)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    headers: tuple[tuple[bytes, bytes], ...]  # as Flower gave them
    body: bytes

    def is_empty(self) -> bool:
        """Return whether it is Flower's answer without messages, which has no bytes at all."""
        return self.status == _OK and self.body == b""

    async def send(self, send: Send, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
        headers = [pair for pair in self.headers if pair[0] != b"content-length"]
        kind = dict(headers).pop(b"content-type", b"application/octet-stream")
        headers = [pair for pair in headers if pair[0] != b"content-type"]
        await answer(send, self.status, self.body, kind=kind, headers=[*headers, *extra])


_NOTHING = _Answer(status=_OK, headers=((b"content-type", b"application/protobuf"),), body=b"")


@dataclass(frozen=True, kw_only=True)
class _Kept:
    name: str
    answer: _Answer

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(DELIVERY_HEADER.encode(), self.name.encode())]


class DeliveryMiddleware:
    """Wraps an application: its pulls wait and are sure; whoever waits hears of pushes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        pull: str,
        push: str,
        caller: Callable[[Scope], str],
        incoming: PushSignal,
        pushed: Callable[[bytes], None],
        presence: Presence | None = None,
    ) -> None:
        """Take what tells callers apart, and what a push's body is shown to once it is done.

        With `presence` callers are sites, by their numbers: one that waits is here, and one for
        which nothing was found is not looked up again before something is pushed for it.
        """
        self._app = app
        self._pull = pull
        self._push = push
        self._caller = caller
        self._incoming = incoming
        self._pushed = pushed
        self._presence = presence
        self._kept: dict[str, _Kept] = {}
        self._nothing_at: dict[str, int] = {}  # the signal's count when Flower had nothing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] == self._push:
            body = await read_body(scope, receive, _LARGEST_PUSH)
            try:
                await self._app(scope, replayed(body, receive), send)
            finally:  # also where the caller is gone by now: it may be in the database
                self._pushed(body)
        elif scope["path"] == self._pull:
            with self._here(scope):
                await self._pulled(scope, receive, send)
        else:
            with self._calling(scope):
                await self._app(scope, receive, send)

    def _here(self, scope: Scope) -> contextlib.AbstractContextManager[None]:
        caller = self._caller(scope)
        if self._presence is None or not caller:
            return contextlib.nullcontext()
        return self._presence.waiting(int(caller))

    @contextlib.contextmanager
    def _calling(self, scope: Scope) -> Iterator[None]:
        """Note that a site is here once its call is answered, or that it leaves before that."""
        caller = self._caller(scope)
        if self._presence is None or not caller:
            yield
            return
        if scope["path"] == FLEET_LEAVE:
            self._presence.gone(int(caller))
        yield
        if scope["path"] != FLEET_LEAVE:
            self._presence.seen(int(caller))

    async def _pulled(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = self._caller(scope)
        body = await read_body(scope, receive, _LARGEST_PULL)
        received = header(scope, RECEIVED_HEADER.encode())
        kept = self._kept.get(caller)
        if received is not None and kept is not None:
            if kept.name != received:
                await kept.answer.send(send, [*kept.headers(), *self._extra()])
                return
            del self._kept[caller]
        found = await self._awaited(scope, body, receive, caller)
        if received is None or found.status != _OK or found.is_empty():
            await found.send(send, self._extra())
            return
        kept = _Kept(name=secrets.token_hex(8), answer=found)
        self._kept[caller] = kept
        await found.send(send, [*kept.headers(), *self._extra()])

    def _extra(self) -> list[tuple[bytes, bytes]]:
        """Return what every pull's answer says: whether the wait was a heartbeat, too."""
        return [] if self._presence is None else [(HERE_HEADER.encode(), b"1")]

    async def _awaited(self, scope: Scope, body: bytes, receive: Receive, caller: str) -> _Answer:
        """Return the first answer with a message in it, or the last within the time."""
        end = time.monotonic() + _wait_seconds(scope)
        while True:
            before = self._incoming.count(caller)  # before the look: what comes meanwhile counts
            found = await self._looked_up(scope, body, caller, before)
            left = end - time.monotonic()
            if not found.is_empty() or left <= 0:
                return found
            # What was pushed while Flower was looking wakes nobody any more.
            arrived = self._incoming.count(caller) != before
            if not arrived and not await self._incoming.wait(caller, left, receive):
                return found

    async def _looked_up(self, scope: Scope, body: bytes, caller: str, count: int) -> _Answer:
        """Return what Flower answers, without asking where it had nothing and nothing came."""
        if self._presence is not None and self._nothing_at.get(caller) == count:
            return _NOTHING
        self._nothing_at.pop(caller, None)
        found = await self._asked(scope, body)
        if found.is_empty():
            self._nothing_at[caller] = count
        return found

    async def _asked(self, scope: Scope, body: bytes) -> _Answer:
        """Return what Flower answers."""
        start: Message = {}
        parts: list[bytes] = []

        async def hear(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        async def never() -> Message:
            await asyncio.Event().wait()
            raise AssertionError  # pragma: no cover

        await self._app({**scope}, replayed(body, never), hear)
        return _Answer(
            status=start["status"], headers=tuple(start["headers"]), body=b"".join(parts)
        )


def _wait_seconds(scope: Scope) -> float:
    """Return how long the caller wants to wait; 0 for what is no number."""
    try:
        seconds = float(header(scope, WAIT_HEADER.encode()) or 0)
    except ValueError:
        return 0.0
    return min(seconds, LONGEST_WAIT_SECONDS) if seconds > 0 else 0.0
