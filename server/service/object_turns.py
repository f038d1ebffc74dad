"""Turns of large objects through Flower, one at a time.

Flower copies an object of 4 MiB a dozen times on its way to the database. Python runs one thread
at a time anyway, so taking turns costs no time, and the copies of one object are in memory
instead of those of all sites. A body is read before its turn and an answer is sent after it: a
slow link keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.platform.freed_memory import collect_after
from server.http.asgi import ClientGone, read_body, replayed


class ObjectTurns:
    """Wraps Flower's application; requests to `paths` take turns, all others pass."""

    def __init__(self, app: ASGIApp, paths: Collection[str], largest_body: int) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._largest_body = largest_body
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        said: list[Message] = []

        async def hear(message: Message) -> None:
            said.append(message)

        try:
            body = await read_body(scope, receive, self._largest_body)
        except ClientGone:
            return
        async with self._turn:
            await self._app(scope, replayed(body, receive), hear)
            size = len(body) + sum(len(message.get("body", b"")) for message in said)
            del body
            collect_after(size)
        while said:
            await send(said.pop(0))
