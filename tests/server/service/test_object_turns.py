from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Message, Receive, Scope, Send

from server.service.object_turns import ObjectTurns

PATH, OTHER = "/v1/fleet/push-object", "/v1/fleet/pull-messages"


class Application:
    """Counts the requests that are in it at the same time."""

    def __init__(self) -> None:
        self.inside = self.most = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        self.inside += 1
        self.most = max(self.most, self.inside)
        body = (await receive())["body"]
        await asyncio.sleep(0.01)
        self.inside -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def receiving(body: bytes, ready: asyncio.Event | None = None) -> Receive:
    async def receive() -> Message:
        if ready is not None:
            await ready.wait()
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def hearing(said: list[bytes]) -> Send:
    async def send(message: Message) -> None:
        said.append(message.get("body", b""))

    return send


def scope(path: str) -> Scope:
    return {"type": "http", "path": path, "headers": []}


def asked(path: str) -> int:
    """Return how many of five requests were in the application at once."""
    application, said = Application(), list[bytes]()

    async def ask() -> None:
        turns = ObjectTurns(application, {PATH}, 100)
        bodies = [bytes([number]) for number in range(5)]
        await asyncio.gather(
            *(turns(scope(path), receiving(body), hearing(said)) for body in bodies)
        )

    asyncio.run(ask())
    assert sorted(filter(None, said)) == [bytes([number]) for number in range(5)]
    return application.most


def test_objects_pass_one_at_a_time_and_everything_else_at_once() -> None:
    assert asked(PATH) == 1
    assert asked(OTHER) == 5


def in_time(wait: Callable[[ObjectTurns, asyncio.Event], asyncio.Future[None]]) -> list[bytes]:
    """Return what a second site hears while the first one's link is stuck."""
    said: list[bytes] = []

    async def ask() -> None:
        turns, stuck = ObjectTurns(Application(), {PATH}, 100), asyncio.Event()
        first = wait(turns, stuck)
        await asyncio.sleep(0)
        await asyncio.wait_for(turns(scope(PATH), receiving(b"b"), hearing(said)), 5)
        stuck.set()
        await first

    asyncio.run(ask())
    return said


def test_a_site_whose_body_is_slow_keeps_nobody_waiting() -> None:
    def slow(turns: ObjectTurns, stuck: asyncio.Event) -> asyncio.Future[None]:
        return asyncio.ensure_future(turns(scope(PATH), receiving(b"a", stuck), hearing([])))

    assert in_time(slow) == [b"", b"b"]


def test_a_site_that_is_slow_to_take_its_object_keeps_nobody_waiting() -> None:
    def slow(turns: ObjectTurns, stuck: asyncio.Event) -> asyncio.Future[None]:
        async def send(_message: Message) -> None:
            await stuck.wait()

        return asyncio.ensure_future(turns(scope(PATH), receiving(b"a"), send))

    assert in_time(slow) == [b"", b"b"]
