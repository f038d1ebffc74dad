"""Messages through the real listeners: how soon they come, and that none is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import GetNodesRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.messages.pull_headers import RECEIVED_HEADER, WAIT_HEADER
from common.platform.code_hash import bundle, bundle_hash
from server.http.asgi import answer
from server.service.calls.presence import Presence
from server.service.message_delivery import DeliveryMiddleware, PushSignal
from tests.server.coordinator import Running, Site, made, running
from tests.server.flower_calls import Caller, RunProcess

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, settings = made(tmp_path_factory.mktemp("coordinator"))
    with running(folder, settings) as found:
        yield found


@pytest.fixture(scope="module")
def north(coordinator: Running) -> Site:
    site = coordinator.enrolled("north")
    with closing(Caller(coordinator, site)) as caller:
        caller.activate()
    return site


@pytest.fixture
def run(coordinator: Running) -> Iterator[RunProcess]:
    with closing(RunProcess(coordinator)) as found:
        yield found
    coordinator.gateway.superlink.stop_run(found.started.number)


@pytest.fixture
def caller(coordinator: Running, north: Site) -> Iterator[Caller]:
    with closing(Caller(coordinator, north)) as found:
        yield found


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as found:
        yield found


def waits(future: Future[list[str]], seconds: float = 0.15) -> bool:
    time.sleep(seconds)
    return not future.done()


def test_a_pull_without_our_headers_is_flowers_own(
    caller: Caller, north: Site, run: RunProcess
) -> None:
    start = time.perf_counter()
    assert caller.pull() == []
    assert time.perf_counter() - start < 1
    sent = run.send([north.node_id])
    assert caller.pull() == sent
    assert caller.pull() == []
    assert caller.headers.delivery is None


def test_a_waiting_site_has_a_message_at_once(
    caller: Caller, north: Site, run: RunProcess, pool: ThreadPoolExecutor
) -> None:
    caller.headers.values[WAIT_HEADER] = "10"
    pulled = pool.submit(caller.pull)
    assert waits(pulled)
    start = time.perf_counter()
    sent = run.send([north.node_id])
    assert pulled.result(5) == sent
    assert time.perf_counter() - start < 1


def test_a_waiting_run_has_an_answer_at_once(
    caller: Caller, north: Site, run: RunProcess, pool: ThreadPoolExecutor
) -> None:
    sent = run.send([north.node_id])
    run.headers.values[WAIT_HEADER] = "10"
    answered = pool.submit(run.pull, sent)
    assert waits(answered)
    caller.pull()
    start = time.perf_counter()
    caller.answer(caller.messages[0])
    assert answered.result(5) == sent
    assert time.perf_counter() - start < 1


def test_a_wait_ends_with_nothing_and_no_wait_is_endless(caller: Caller) -> None:
    caller.headers.values[WAIT_HEADER] = "0.3"
    start = time.perf_counter()
    assert caller.pull() == []
    assert 0.3 <= time.perf_counter() - start < 0.8
    for nonsense in ("nan", "-5", "soon", ""):
        caller.headers.values[WAIT_HEADER] = nonsense
        start = time.perf_counter()
        assert caller.pull() == []
        assert time.perf_counter() - start < 1


def test_a_message_is_sent_again_until_the_site_has_it(
    caller: Caller, north: Site, run: RunProcess
) -> None:
    caller.headers.values[RECEIVED_HEADER] = ""
    sent = run.send([north.node_id])
    assert caller.pull() == sent
    assert caller.pull() == sent  # the first answer was lost on its way
    first = caller.headers.delivery
    assert first
    more = run.send([north.node_id])
    assert caller.pull() == sent
    caller.headers.values[RECEIVED_HEADER] = first
    assert caller.pull() == more
    assert caller.headers.delivery != first
    caller.headers.values[RECEIVED_HEADER] = str(caller.headers.delivery)
    assert caller.pull() == []


def test_a_message_for_a_site_that_hung_up_while_waiting_is_not_lost(
    coordinator: Running, caller: Caller, north: Site, run: RunProcess
) -> None:
    waiting = {WAIT_HEADER: "10", RECEIVED_HEADER: ""}
    request = PullMessagesRequest(node=Node(node_id=north.node_id)).SerializeToString()
    url = f"{coordinator.site_url}/v1/fleet/pull-messages"
    headers = north.headers("/v1/fleet/pull-messages", request, more=waiting)
    hasty = httpx.Client(verify=coordinator.context, timeout=0.3)
    with hasty, pytest.raises(httpx.ReadTimeout):
        hasty.post(url, content=request, headers=headers)
    sent = run.send([north.node_id])
    caller.headers.values.update(waiting)
    assert caller.pull() == sent
    caller.headers.values[RECEIVED_HEADER] = str(caller.headers.delivery)
    caller.headers.values[WAIT_HEADER] = "0"
    assert caller.pull() == []


def test_a_message_for_another_site_does_not_end_a_wait(
    coordinator: Running, caller: Caller, north: Site, run: RunProcess, pool: ThreadPoolExecutor
) -> None:
    south = coordinator.enrolled("south")
    caller.headers.values[WAIT_HEADER] = "10"
    pulled = pool.submit(caller.pull)
    assert waits(pulled)
    run.send([south.node_id])
    assert waits(pulled)
    assert run.send([north.node_id]) == pulled.result(5)


def test_an_older_wait_of_the_same_site_ends_and_takes_nothing(
    coordinator: Running, caller: Caller, north: Site, run: RunProcess, pool: ThreadPoolExecutor
) -> None:
    caller.headers.values[WAIT_HEADER] = "10"
    with closing(Caller(coordinator, north, wardround_wait_seconds="10")) as old:
        first = pool.submit(old.pull)
        assert waits(first)
        second = pool.submit(caller.pull)
        assert first.result(2) == []
    sent = run.send([north.node_id])
    assert second.result(5) == sent


def test_a_site_that_is_revoked_while_it_waits_gets_nothing(
    coordinator: Running, run: RunProcess, pool: ThreadPoolExecutor
) -> None:
    site = coordinator.enrolled("west")
    with closing(Caller(coordinator, site, wardround_wait_seconds="10")) as caller:
        pulled = pool.submit(caller.pull)
        assert waits(pulled)
        coordinator.gateway.revoke("west")
        run.send([site.node_id])
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            pulled.result(5)


def test_what_is_pushed_while_flower_looks_is_not_waited_for() -> None:
    sites, runs = PushSignal(), PushSignal()
    answers = [b"", b"a message"]

    async def flower(_scope: Scope, _receive: Receive, send: Send) -> None:
        content = answers.pop(0)
        sites.announce()  # after Flower looked and before it answered
        await answer(send, 200, content)

    async def body() -> Message:
        return {"type": "http.request", "body": b""}

    got: list[Message] = []

    async def hear(message: Message) -> None:
        got.append(message)

    delivery = DeliveryMiddleware(
        flower,
        pull="/pull",
        push="/push",
        caller=lambda _: "run",
        incoming=sites,
        pushed=lambda _: runs.announce(),
    )
    scope = {"type": "http", "path": "/pull", "headers": [(WAIT_HEADER.encode(), b"9")]}
    start = time.perf_counter()
    asyncio.run(delivery(scope, body, hear))
    assert time.perf_counter() - start < 1
    assert got[-1]["body"] == b"a message"


class Looked:
    """Counts the looks of Flower's for messages; has one for whoever is named."""

    def __init__(self) -> None:
        self.looks = 0
        self.due = False

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/push":
            self.due = True
            await answer(send, 200, b"")
            return
        self.looks += 1
        await answer(send, 200, b"a message" if self.due else b"")
        self.due = False


def site_side(flower: ASGIApp) -> tuple[DeliveryMiddleware, PushSignal]:
    signal = PushSignal()
    delivery = DeliveryMiddleware(
        flower,
        pull="/pull",
        push="/push",
        caller=lambda scope: str(scope["query_string"].decode()),
        incoming=signal,
        pushed=lambda body: signal.announce([body.decode()]),
        presence=Presence(lambda _nodes: None),
    )
    return delivery, signal


async def said(
    delivery: DeliveryMiddleware, path: str, site: str, body: bytes = b"", wait: float = 0
) -> bytes:
    """Return what a caller hears that never hangs up."""
    bodies, found = [body], list[bytes]()

    async def receive() -> Message:
        if not bodies:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": bodies.pop()}

    async def hear(message: Message) -> None:
        found.append(message.get("body", b""))

    headers = [(WAIT_HEADER.encode(), str(wait).encode())]
    scope = {"type": "http", "path": path, "headers": headers, "query_string": site.encode()}
    await delivery(scope, receive, hear)
    return b"".join(found)


def test_a_site_for_which_there_was_nothing_is_not_looked_up_before_something_is_pushed() -> None:
    flower = Looked()
    delivery, _ = site_side(flower)

    async def acts() -> None:
        for _ in range(5):
            assert await said(delivery, "/pull", "1") == b""
        assert flower.looks == 1
        assert await said(delivery, "/pull", "2") == b""
        assert flower.looks == 2
        await said(delivery, "/push", "", b"2")
        assert await said(delivery, "/pull", "1") == b""  # nothing was pushed for this one
        assert flower.looks == 2
        assert await said(delivery, "/pull", "2") == b"a message"
        assert await said(delivery, "/pull", "2") == b""  # there may have been two
        assert flower.looks == 4
        for _ in range(3):
            assert await said(delivery, "/pull", "2") == b""
        assert flower.looks == 4

    asyncio.run(acts())


def test_a_pull_that_comes_while_the_service_stops_does_not_wait() -> None:
    """Else the stop takes as long as it may, and ends in a traceback."""
    delivery, signal = site_side(Looked())

    async def acts() -> bytes:
        signal.close()
        return await asyncio.wait_for(said(delivery, "/pull", "1", wait=300), 60)

    assert asyncio.run(acts()) == b""


def test_a_push_that_fails_after_it_was_stored_is_announced_all_the_same() -> None:
    flower = Looked()
    delivery, signal = site_side(flower)

    async def acts() -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"1"}

        async def gone(_message: Message) -> None:
            raise ConnectionResetError

        scope = {"type": "http", "path": "/push", "headers": [], "query_string": b""}
        assert await said(delivery, "/pull", "1") == b""
        with pytest.raises(ConnectionResetError):
            await delivery(scope, receive, gone)
        assert signal.count("1") == 1
        assert await said(delivery, "/pull", "1") == b"a message"

    asyncio.run(acts())


class Slow:
    """Flower with messages by site, and with time between each of its steps."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._due: Counter[str] = Counter()

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        site = scope["query_string"].decode()
        await self._pause()
        content = b""
        if scope["path"] == "/push":
            self._due[site] += 1
        elif self._due[site]:
            self._due[site] -= 1
            content = b"a message"
        await self._pause()  # pushes come while the answer is made
        await answer(send, 200, content)

    async def _pause(self) -> None:
        await asyncio.sleep(self._draw.choice((0, 0, 0.001)))


@pytest.mark.parametrize("seed", range(3))
def test_of_many_pushes_at_random_moments_none_waits_for_the_next_pull(seed: int) -> None:
    """Three sites wait for 20 s; each push must end its site's wait, whenever it comes."""
    draw = random.Random(seed)
    delivery, _ = site_side(Slow(draw))
    order = [str(draw.randrange(3)) for _ in range(350)]

    came: Counter[str] = Counter()

    async def listen(site: str, wanted: int) -> None:
        while came[site] < wanted:
            async with asyncio.timeout(15):
                came[site] += await said(delivery, "/pull", site, wait=20) == b"a message"

    async def acts() -> None:
        async with asyncio.TaskGroup() as listening:
            for site, wanted in Counter(order).items():
                listening.create_task(listen(site, wanted))
            for site in order:
                await asyncio.sleep(draw.choice((0, 0, 0, 0.002)))
                listening.create_task(said(delivery, "/push", site, site.encode()))

    asyncio.run(acts())
    assert came == Counter(order)


def test_what_waits_goes_home_when_the_coordinator_stops(
    tmp_path_factory: pytest.TempPathFactory, pool: ThreadPoolExecutor
) -> None:
    folder, settings = made(tmp_path_factory.mktemp("stopping"))
    with running(folder, settings) as found:
        site = found.enrolled("north")
        caller = Caller(found, site, wardround_wait_seconds="20")
        pulled = pool.submit(caller.pull)
        assert waits(pulled)
        start = time.perf_counter()
    assert time.perf_counter() - start < 2
    assert pulled.result(1) == []
    caller.close()


def test_a_run_gets_its_bundle_and_sees_its_sites_by_name(
    coordinator: Running, north: Site, run: RunProcess
) -> None:
    assert run.input.fab.hash_str == bundle_hash()
    assert run.input.fab.content == bundle()
    assert run.input.run.run_id == run.started.number
    nodes = run.client.GetNodes(GetNodesRequest()).nodes
    assert {node.node_id: node.name for node in nodes}[north.node_id] == "north"
    assert "north" in coordinator.gateway.superlink.online()


def test_a_stopped_runs_process_is_refused(coordinator: Running, north: Site) -> None:
    with closing(RunProcess(coordinator)) as stopped:
        coordinator.gateway.superlink.stop_run(stopped.started.number)
        with pytest.raises(httpx.HTTPStatusError):
            stopped.send([north.node_id])
