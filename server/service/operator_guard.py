"""Access to the operator's listener."""

from __future__ import annotations

import hashlib
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from server.http.asgi import (
    ClientGone,
    TooLarge,
    answer,
    header,
    read_body,
    refuse,
    replayed,
    shown,
)

_SCHEME = "Bearer "
#: What a command may send to us; a run's calls of Flower have limits of their own.
_LARGEST_BODY = 16 * 1024 * 1024


class OperatorGuard:
    """The whole application of the operator's listener.

    `ours` answers the paths that begin as one of `prefixes` says, Flower all others.
    """

    def __init__(self, *, flower: ASGIApp, ours: ASGIApp, token: str) -> None:
        self._flower = flower
        self._ours = ours
        self._token = _digest(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope.get("path", "")
        if scope["type"] == "http" and scope["method"] == "GET" and path == "/healthz":
            await answer(send, 200, b"ok\n", kind=b"text/plain")
            return
        given = header(scope, b"authorization") or ""
        token = _digest(given.removeprefix(_SCHEME)) if given.startswith(_SCHEME) else b""
        if scope["type"] != "http" or not hmac.compare_digest(token, self._token):
            await refuse(scope, send, 401, "This needs the operator's token.")
            return
        shown(scope, "operator")
        if not (path == "/metrics" or path.startswith("/api/")):
            await self._flower(scope, receive, send)
            return
        try:
            body = await read_body(scope, receive, _LARGEST_BODY)
        except TooLarge:
            await refuse(scope, send, 413, "The request is too large.")
        except ClientGone:
            return
        else:
            await self._ours(scope, replayed(body, receive), send)


def _digest(token: str) -> bytes:
    """Return a value of one length, so that comparing tells nothing of the token's."""
    return hashlib.sha256(token.encode()).digest()
