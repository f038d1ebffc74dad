"""ASGI requests and answers.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from starlette.types import Message, Receive, Scope, Send

JSON = b"application/json"
#: Ends the connection with the answer.
CLOSE = (b"connection", b"close")
#: Where in a request's state its connection's place at the door stands (server/http/accepting.py).
PLACE = "place"


def shown(scope: Scope, owner: str) -> None:
    """Note that the request has shown the key of `owner`: its connection is no stranger's."""
    place = scope.get("state", {}).get(PLACE)
    if place is not None:
        place.show(owner)


class TooLarge(Exception):
    """The body is longer than its path allows."""


class ClientGone(Exception):
    """The client hung up before its request was whole."""


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header that is given exactly once; a second one makes it unclear."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


async def read_body(scope: Scope, receive: Receive, largest: int) -> bytes:
    """Return the whole body; TooLarge before anything beyond `largest` bytes is kept."""
    announced = header(scope, b"content-length")
    if announced is not None and int(announced) > largest:  # the server has checked the digits
        raise TooLarge
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > largest:
            raise TooLarge
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body first and then what `receive` gives."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def answer(
    send: Send,
    status: int,
    body: bytes,
    *,
    kind: bytes = JSON,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole answer."""
    length = str(len(body)).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", kind), (b"content-length", length), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def refuse(scope: Scope, send: Send, status: int, detail: str) -> None:
    """Answer with a reason and nothing else, and end the connection.

    A body that was not read may still be coming, and whoever was refused asks again from the start.
    """
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    elif scope["type"] == "http":
        body = json.dumps({"detail": detail}).encode()
        await answer(send, status, body, headers=[CLOSE])


async def body_or_refused(scope: Scope, receive: Receive, send: Send, largest: int) -> bytes | None:
    """Return the whole body; None where it is too large, which is answered, or its sender gone."""
    try:
        return await read_body(scope, receive, largest)
    except ClientGone:
        return None
    except TooLarge:
        await refuse(scope, send, 413, "The request is too large.")
        return None
