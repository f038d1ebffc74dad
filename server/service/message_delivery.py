"""Delivery middleware: pulls wait for a message, messages are sent until they came.

Flower answers a pull at once, mostly with nothing, and counts a message as delivered when it
is asked for it: a connection that breaks then loses it. Here an empty answer is held back
until the other side pushes (common/messages/pull_headers.py), and an answer with messages is kept
until the receiver says that it came. Flower's own handlers do the work and check the sender;
nothing of this outlives the process, and a run that lost its coordinator begins its round anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.messages.pull_headers import (
    DELIVERY_HEADER,
    LONGEST_WAIT_SECONDS,
    RECEIVED_HEADER,
    WAIT_HEADER,
)
from server.http.asgi import answer, header, read_body, replayed

_LARGEST_PULL = 1024 * 1024
_OK = 200

Woken = Literal["arrived", "superseded", "closing"]


class PushSignal:
    """Wakes whoever waits for something that one side pushes to the other."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Woken]] = {}
        self.count = 0

    def announce(self) -> None:
        """Something was pushed."""
        self.count += 1
        self._wake_all("arrived")

    def close(self) -> None:
        """Let everybody go home."""
        self._wake_all("closing")

    async def wait(self, caller: str, seconds: float, receive: Receive) -> bool:
        """Return whether something may have arrived; False also when the caller is gone.

        A caller waits once: an earlier wait of the same caller, on a connection that may be
        dead without our knowing, ends and must not take the message.
        """
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

    def _wake_all(self, how: Woken) -> None:
        waiting, self._waiting = self._waiting, {}
        for woken in waiting.values():
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


@dataclass(frozen=True, kw_only=True)
class _Kept:
    name: str
    answer: _Answer

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(DELIVERY_HEADER.encode(), self.name.encode())]


class DeliveryMiddleware:
    """Wraps an application: its pulls wait and are sure, its pushes wake the other side's pulls."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        pull: str,
        push: str,
        caller: bytes,
        incoming: PushSignal,
        outgoing: PushSignal,
    ) -> None:
        self._app = app
        self._pull = pull
        self._push = push
        self._caller = caller  # the header that names a caller; Flower checks it
        self._incoming = incoming
        self._outgoing = outgoing
        self._kept: dict[str, _Kept] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] == self._push:
            await self._app(scope, receive, send)
            self._outgoing.announce()
        elif scope["path"] == self._pull:
            await self._pulled(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _pulled(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = header(scope, self._caller) or ""
        body = await read_body(scope, receive, _LARGEST_PULL)
        received = header(scope, RECEIVED_HEADER.encode())
        kept = self._kept.get(caller)
        if received is not None and kept is not None:
            if kept.name != received:
                await kept.answer.send(send, kept.headers())
                return
            del self._kept[caller]
        found = await self._awaited(scope, body, receive, caller)
        if received is None or found.status != _OK or found.is_empty():
            await found.send(send)
            return
        kept = _Kept(name=secrets.token_hex(8), answer=found)
        self._kept[caller] = kept
        await found.send(send, kept.headers())

    async def _awaited(self, scope: Scope, body: bytes, receive: Receive, caller: str) -> _Answer:
        """Return the first answer with a message in it, or the last within the time."""
        end = time.monotonic() + _wait_seconds(scope)
        while True:
            before = self._incoming.count
            found = await self._asked(scope, body)
            left = end - time.monotonic()
            if not found.is_empty() or left <= 0:
                return found
            # What was pushed while Flower was looking wakes nobody any more.
            arrived = self._incoming.count != before
            if not arrived and not await self._incoming.wait(caller, left, receive):
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
