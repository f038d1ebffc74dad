"""A captured request: on another path, with another body, by another method, and sent again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from hypothesis import given
from hypothesis import strategies as st

from common.messages.request_signature import SignedRequest, hash_of, new_number
from common.messages.signing_key import public_pem, public_text
from server.http.replays import Replays
from tests.server.coordinator import Running, Site, made, running

pytestmark = pytest.mark.processes

ACTIVATE, DEACTIVATE = "/v1/fleet/activate-node", "/v1/fleet/deactivate-node"
BEAT = "/v1/fleet/send-node-heartbeat"


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(*made(tmp_path_factory.mktemp("coordinator"))) as found:
        yield found


@pytest.fixture(scope="module")
def north(coordinator: Running) -> Site:
    site = coordinator.enrolled("north")
    request = ActivateNodeRequest(
        public_key=public_pem(public_text(site.key)), heartbeat_interval=30
    )
    body = request.SerializeToString()
    assert sent(coordinator, site.headers(ACTIVATE, body), ACTIVATE, body) == 200
    return site


def beat(site: Site) -> bytes:
    request = SendNodeHeartbeatRequest(node=Node(node_id=site.node_id), heartbeat_interval=30)
    return request.SerializeToString()


def sent(
    coordinator: Running, headers: dict[str, str], path: str, body: bytes, method: str = "POST"
) -> int:
    with coordinator.client() as client:
        url = f"{coordinator.site_url}{path}"
        return client.request(method, url, content=body, headers=headers).status_code


def test_a_signature_is_good_for_its_own_request_once(coordinator: Running, north: Site) -> None:
    body = beat(north)
    headers = north.headers(BEAT, body)
    assert sent(coordinator, headers, BEAT, body) == 200
    assert sent(coordinator, headers, BEAT, body) == 401
    assert sent(coordinator, north.headers(BEAT, body), BEAT, body) == 200


def test_a_captured_signature_fits_no_other_request(coordinator: Running, north: Site) -> None:
    body, state = beat(north), coordinator.gateway.superlink.state
    away = DeactivateNodeRequest(node_id=north.node_id).SerializeToString()
    get_run = GetRunRequest(run_id=1).SerializeToString()
    for path, content, method in [
        (DEACTIVATE, away, "POST"),
        (DEACTIVATE, body, "POST"),
        (BEAT, away, "POST"),
        (BEAT, b"", "POST"),
        (BEAT, body + b"\x00", "POST"),
        (f"{BEAT}?x=1", body, "POST"),
        ("/v1/fleet/get-run", get_run, "POST"),
        (BEAT, body, "GET"),
        (BEAT, body, "PUT"),
    ]:
        status = sent(coordinator, north.headers(BEAT, body), path, content, method)
        assert status == (401 if method == "POST" else 404), (path, method)
    online = {node.name for node in state.get_node_info() if node.status == "online"}
    assert "north" in online  # nobody signed it off


def test_headers_of_a_pull_are_signed(coordinator: Running, north: Site) -> None:
    path, more = "/v1/fleet/pull-messages", {"wardround-received": "aa"}
    for change in (
        {"wardround-received": "bb"},
        {"wardround-received": ""},
        {"wardround-wait-seconds": "20"},
    ):
        headers = north.headers(path, b"", more=more) | change
        assert sent(coordinator, headers, path, b"") == 401


def test_what_was_signed_before_the_coordinator_began_is_not_taken(
    coordinator: Running, north: Site
) -> None:
    body = beat(north)
    headers = north.headers(BEAT, body, at=datetime.now(UTC) - timedelta(seconds=250))
    assert sent(coordinator, headers, BEAT, body) == 401


def test_each_part_of_a_request_is_in_what_is_signed() -> None:
    request = SignedRequest(
        method="POST",
        path="/a",
        query="b",
        body_sha256=hash_of(b""),
        signed_at="2026",
        number="1",
        wait_seconds="",
        received="",
        answer_bytes="",
    )
    parts = list(vars(request))
    changed = [replace(request, **{name: f"{getattr(request, name)}x"}) for name in parts]
    shifted = [replace(request, path="/ab", query=""), replace(request, path="/", query="ab")]
    contents = {each.content() for each in [request, *changed, *shifted]}
    assert len(contents) == 1 + len(parts) + 2


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 300)), max_size=200))
def test_no_request_is_ever_taken_twice_and_memory_is_bounded(
    requests: list[tuple[int, int]],
) -> None:
    replays, taken, now = Replays(began=0.0, lasts_seconds=100.0, most=8), set(), 0.0
    for number, signed_at in requests:
        now = max(now, signed_at)
        if signed_at < now - 100:
            continue  # the signature is too old by itself
        if replays.takes(f"{number} at {signed_at}", signed_at, now):
            assert (number, signed_at) not in taken
            taken.add((number, signed_at))
        assert len(replays._numbers) <= 8
        assert len(replays._by_time) <= 8


def test_requests_that_overtake_each_other_are_taken() -> None:
    replays = Replays(began=0.0, lasts_seconds=100.0)
    assert all(replays.takes(new_number(), at, 60.0) for at in (59.0, 57.0, 58.0, 57.0))
