"""Refusal of strangers and thieves: real TLS sockets, a real SuperLink, and sites."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, TASK_TOKEN_HEADER
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

from common.messages.enrolment import JoinReply, StateRequest
from common.messages.signing_key import fingerprint, new_private_key, public_pem, public_text
from server.enrolment.certificates import Authority, authority_hash, client_context, now
from server.files.coordinator_yaml import host_and_port
from server.files.folder import Folder
from server.service.calls.frequent_calls import TASK_HEADER
from server.service.site_authentication import KEY_HEADER
from server.service.site_guard import FLEET_PATHS, LARGEST_BODY
from tests.server.coordinator import PROTOBUF, Running, Site, fetched_authority, made, running

pytestmark = pytest.mark.processes

#: What sites may reach of Flower's, written out: whatever the table says, nothing else answers.
FLEET = sorted(
    f"/v1/fleet/{call}"
    for call in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
STRANGER = {"detail": "This site is not accepted here."}  # the guard's words, not Flower's
NO_TOKEN = {"detail": "This needs the operator's token."}
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, settings = made(tmp_path_factory.mktemp("coordinator"))
    with running(folder, settings) as found:
        yield found


@pytest.fixture(scope="module")
def north(coordinator: Running) -> Site:
    return coordinator.enrolled("north")


@pytest.fixture(scope="module")
def south(coordinator: Running) -> Site:
    return coordinator.enrolled("south")


def routes(coordinator: Running) -> set[str]:
    """Return every path that Flower's application answers, those without a schema too."""
    typed = {path for _, path in PROTOBUF_REQUEST_TYPES}
    found = typed | set(coordinator.gateway.superlink.routes)
    assert len(found) > 70
    return found


def call(
    coordinator: Running, site: Site | None, path: str, content: bytes = b""
) -> httpx.Response:
    headers = site.headers(path, content) if site else {"content-type": PROTOBUF}
    with coordinator.client() as client:
        return client.post(f"{coordinator.site_url}{path}", content=content, headers=headers)


def activated(coordinator: Running, site: Site, context: ssl.SSLContext | None = None) -> int:
    request = ActivateNodeRequest(
        public_key=public_pem(public_text(site.key)), heartbeat_interval=30
    )
    with coordinator.client(context) as client:
        answer = client.post(
            f"{coordinator.site_url}/v1/fleet/activate-node",
            content=request.SerializeToString(),
            headers=site.headers("/v1/fleet/activate-node", request.SerializeToString()),
        )
    assert answer.status_code == 200, answer.text
    return int(ActivateNodeResponse.FromString(answer.content).node_id)


# --- what a site's network reaches ----------------------------------------------------------


def test_our_names_of_flowers_headers_are_flowers() -> None:
    assert FLEET_HTTP_PUBLIC_KEY_HEADER.encode() == KEY_HEADER
    assert TASK_TOKEN_HEADER.encode() == TASK_HEADER


def test_the_table_holds_nine_paths_of_flowers(coordinator: Running) -> None:
    assert sorted(FLEET_PATHS) == FLEET
    assert set(FLEET) <= routes(coordinator)


def test_no_control_or_runtime_path_answers_on_the_site_listener(
    coordinator: Running, north: Site
) -> None:
    closed = sorted(routes(coordinator) - set(FLEET))
    assert sum(path.startswith("/v1/control/") for path in closed) > 30
    assert sum(path.startswith("/v1/runtime/") for path in closed) > 15
    headers = north.headers() | coordinator.token()  # even with everything there is
    with coordinator.client() as client:
        for path in [*closed, "/metrics", "/api/sites", "/healthz", "/", "//v1/fleet/get-run"]:
            for method in METHODS:
                answer = client.request(method, f"{coordinator.site_url}{path}", headers=headers)
                assert answer.status_code == 404, (method, path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/get-run/",
        "/V1/fleet/get-run",
        "/v1/fleet/get-run/../get-fab",
        "/v1/control/list-runs?x=/v1/fleet/get-run",
        "/v1/fleet/get-fab",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
    ],
)
def test_no_spelling_of_a_path_goes_past_the_table(
    coordinator: Running, north: Site, path: str
) -> None:
    host, port = host_and_port(coordinator.settings.listen)
    lines = [f"{name}: {value}" for name, value in north.headers().items()]
    request = "\r\n".join([f"POST {path} HTTP/1.1", "host: x", "content-length: 0", *lines, "", ""])
    with (
        socket.create_connection((host, port), timeout=5) as plain,
        coordinator.context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        tls.sendall(request.encode())
        assert tls.recv(64).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("path", FLEET)
def test_a_stranger_gets_nothing(coordinator: Running, path: str) -> None:
    assert call(coordinator, None, path).status_code == 401
    answer = call(coordinator, Site("north", new_private_key()), path)
    assert answer.status_code == 401
    assert answer.json() == STRANGER
    with coordinator.client() as client:
        get = client.get(f"{coordinator.site_url}{path}")
    assert get.status_code == 404


def test_a_stranger_cannot_make_itself_a_node(coordinator: Running) -> None:
    before = len(coordinator.gateway.superlink.state.get_node_info())
    key = new_private_key()
    request = ActivateNodeRequest(public_key=public_pem(public_text(key)), heartbeat_interval=30)
    for path in ("/v1/fleet/register-node", "/v1/fleet/activate-node"):
        answer = call(coordinator, Site("x", key), path, request.SerializeToString())
        assert answer.status_code in {401, 404}
    assert len(coordinator.gateway.superlink.state.get_node_info()) == before


def test_a_pending_site_gets_nothing_until_it_is_accepted(coordinator: Running) -> None:
    site = Site("west", new_private_key())
    coordinator.join(coordinator.invite("west"), site.key)
    assert call(coordinator, site, "/v1/fleet/get-run").status_code == 401
    coordinator.gateway.accept("west", fingerprint(public_text(site.key)))
    assert activated(coordinator, site) > 0


def test_a_site_is_shut_out_when_it_is_revoked_and_others_are_not(
    coordinator: Running, north: Site
) -> None:
    site = coordinator.enrolled("east")
    request = PullMessagesRequest(node=Node(node_id=activated(coordinator, site)))
    pull = request.SerializeToString()
    assert call(coordinator, site, "/v1/fleet/pull-messages", pull).status_code == 200
    coordinator.gateway.revoke("east")
    for path in FLEET:
        assert call(coordinator, site, path, pull).status_code == 401
    state = coordinator.gateway.superlink.state  # and Flower has forgotten it, too
    assert state.get_node_id_by_public_key(public_pem(public_text(site.key))) is None
    content = PullMessagesRequest(node=Node(node_id=north.node_id)).SerializeToString()
    assert call(coordinator, north, "/v1/fleet/pull-messages", content).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"flwr-signature": "AAAA"},
        {"flwr-signature": "not base64!"},
        {"flwr-timestamp": "yesterday"},
        {"flwr-timestamp": datetime.now(UTC).isoformat()},
        {"flwr-public-key": ""},
        {"wardround-signature": "AAAA"},
        {"wardround-signature": "no base64!"},
        {"wardround-once": "0" * 32},
        {"wardround-once": "x"},
        {"wardround-body-sha256": "0" * 64},
        {"wardround-wait-seconds": "20"},
        {"wardround-received": "abc"},
    ],
)
def test_a_sites_key_without_its_signature_is_refused(
    coordinator: Running, north: Site, change: dict[str, str]
) -> None:
    with coordinator.client() as client:
        answer = client.post(
            f"{coordinator.site_url}/v1/fleet/get-run", headers=north.headers() | change
        )
    flowers = {"detail": "Invalid SuperNode authentication"}  # its own signature, checked by it
    said = flowers if "flwr-signature" in change else STRANGER
    assert (answer.status_code, answer.json()) == (401, said)


@pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_clock_an_hour_off_is_refused_and_said(
    coordinator: Running, north: Site, off: timedelta
) -> None:
    with coordinator.client() as client:
        answer = client.post(
            f"{coordinator.site_url}/v1/fleet/get-run",
            headers=north.headers(at=datetime.now(UTC) + off),
        )
    assert answer.status_code == 401
    assert "Set both clocks right" in answer.json()["detail"]


def test_one_site_does_not_speak_as_another(coordinator: Running, north: Site, south: Site) -> None:
    def push(node: int, source: int, reply_to: str = "0" * 64) -> str:
        metadata = Metadata(src_node_id=source, dst_node_id=1, reply_to_message_id=reply_to)
        request = PushMessagesRequest(
            node=Node(node_id=node),
            messages_list=[Message(metadata=metadata)],
            message_object_trees=[ObjectTree()],
        )
        content = request.SerializeToString()
        return call(coordinator, north, "/v1/fleet/push-messages", content).json()["detail"]

    assert "another site's name" in push(north.node_id, south.node_id)
    assert "another site's name" in push(south.node_id, south.node_id)
    assert "another site's name" in push(south.node_id, north.node_id)
    assert "another site's name" in push(north.node_id, 1)  # as the coordinator
    assert "sends none of its own" in push(north.node_id, north.node_id, reply_to="")
    # Its own name is no obstacle, but nobody asked.
    assert push(north.node_id, north.node_id) == "Nobody waits for this answer."
    content = PullMessagesRequest(node=Node(node_id=south.node_id)).SerializeToString()
    assert call(coordinator, north, "/v1/fleet/pull-messages", content).status_code == 401
    assert call(coordinator, north, "/v1/fleet/push-messages", b"\xff\xff").status_code == 403


def test_a_body_too_large_is_refused_before_it_is_read(coordinator: Running, north: Site) -> None:
    host, port = host_and_port(coordinator.settings.listen)
    for path, length in [
        ("/v1/fleet/push-object", LARGEST_BODY + 1),
        ("/v1/fleet/get-run", 65537),
        ("/wardround/join", 16385),
    ]:
        lines = [f"{name}: {value}" for name, value in north.headers(path).items()]
        head = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {length}", *lines, "", ""]
        with (
            socket.create_connection((host, port), timeout=5) as plain,
            coordinator.context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            tls.sendall("\r\n".join(head).encode())
            assert tls.recv(64).startswith(b"HTTP/1.1 413"), path

    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 8192

    with coordinator.client() as client:  # its length is not announced
        answer = client.post(
            f"{coordinator.site_url}/v1/fleet/get-run", content=chunks(), headers=north.headers()
        )
    assert answer.status_code == 413


# --- the operator's listener ----------------------------------------------------------------


def test_the_operators_listener_answers_nobody_without_the_token(
    coordinator: Running, north: Site
) -> None:
    right = coordinator.token()["authorization"]
    wrong = [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": right[:-1]},
        {"authorization": right.replace("Bearer", "Basic")},
        {"authorization": right.removeprefix("Bearer ")},
        north.headers(),
        {"cookie": right, "x-authorization": right},
    ]
    paths = sorted(routes(coordinator) | {"/api/sites", "/metrics", "/", "/api/runs"})
    with coordinator.client() as client:
        for path in paths:
            for method in ("GET", "POST"):
                answer = client.request(method, f"{coordinator.operator_url}{path}")
                assert (answer.status_code, answer.json()) == (401, NO_TOKEN), (method, path)
        url = f"{coordinator.operator_url}/v1/control/list-runs"
        for headers in wrong:
            answer = client.post(url, headers=headers)
            assert (answer.status_code, answer.json()) == (401, NO_TOKEN), headers
        both = [("authorization", right), ("authorization", "Bearer wrong")]
        assert client.post(url, headers=both).json() == NO_TOKEN
        assert client.post(f"{coordinator.operator_url}/healthz").status_code == 401


def test_the_operators_listener_answers_the_token_and_tells_strangers_that_it_is_well(
    coordinator: Running,
) -> None:
    with coordinator.client() as client:
        health = client.get(f"{coordinator.operator_url}/healthz")
        assert (health.status_code, health.text) == (200, "ok\n")
        answer = client.post(
            f"{coordinator.operator_url}/v1/control/list-runs",
            headers=coordinator.token() | {"content-type": PROTOBUF},
        )
    assert answer.status_code == 200


# --- TLS ------------------------------------------------------------------------------------


def refused(context: ssl.SSLContext, coordinator: Running, name: str = "127.0.0.1") -> str:
    """Return why a handshake fails, or "" if it does not."""
    host, port = host_and_port(coordinator.settings.listen)
    with socket.create_connection((host, port), timeout=5) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=name):
                return ""
        except ssl.SSLError as error:
            return str(error)


def test_a_name_that_is_not_in_the_certificate_is_refused(coordinator: Running) -> None:
    said = refused(coordinator.context, coordinator, "another.example")
    assert "certificate is not valid for 'another.example'" in said
    assert refused(coordinator.context, coordinator, "localhost") == ""


def test_another_authority_is_refused(coordinator: Running, tmp_path: Path) -> None:
    other = Folder(tmp_path)
    Authority.create("breast-study", now()).save(other)
    assert "certificate verify failed" in refused(client_context(other), coordinator)


def test_older_tls_is_refused(coordinator: Running) -> None:
    old = ssl.create_default_context(cafile=coordinator.folder.ca)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for listener in (coordinator.settings.listen, coordinator.settings.operator):
        with (
            socket.create_connection(host_and_port(listener), timeout=5) as plain,
            pytest.raises(ssl.SSLError),
        ):
            old.wrap_socket(plain, server_hostname="127.0.0.1")
    assert refused(coordinator.context, coordinator) == ""


def test_plain_http_gets_no_answer(coordinator: Running) -> None:
    for listener in (coordinator.settings.listen, coordinator.settings.operator):
        with httpx.Client() as client, pytest.raises(httpx.TransportError):
            client.get(f"http://{listener}/wardround/ca")
        with socket.create_connection(host_and_port(listener), timeout=5) as plain:
            plain.sendall(b"GET /wardround/ca HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"BEGIN CERTIFICATE" not in plain.recv(4096)


def test_an_expired_certificate_is_refused_and_a_renewed_one_is_not(tmp_path: Path) -> None:
    folder, settings = made(tmp_path)
    authority = Authority.load(folder)
    authority.issue(folder, ["127.0.0.1"], now() - timedelta(days=500))
    with running(folder, settings) as found:
        assert "certificate has expired" in refused(found.context, found)
        authority.issue(folder, ["127.0.0.1"], now())
        found.gateway.renew()
        assert refused(found.context, found) == ""  # the same trust, no restart
        assert activated(found, found.enrolled("north"))


# --- invitations ----------------------------------------------------------------------------


def test_the_authority_that_a_stranger_fetches_is_the_invitations(coordinator: Running) -> None:
    pem = fetched_authority(coordinator.settings)
    assert authority_hash(pem) == coordinator.invite("fetcher").ca_sha256


def test_an_invitation_works_once(coordinator: Running) -> None:
    invite, first = coordinator.invite("once"), new_private_key()
    assert coordinator.join(invite, first).fingerprint == fingerprint(public_text(first))
    again = coordinator.join(invite, new_private_key())
    assert again.state == "refused"
    assert "used already" in again.reason
    assert again.fingerprint == ""


def test_a_stolen_invitation_without_its_secret_is_of_no_use(coordinator: Running) -> None:
    stolen = coordinator.invite("stolen").model_copy(update={"secret": secrets.token_urlsafe(32)})
    reply = coordinator.join(stolen, new_private_key())
    assert (reply.state, reply.fingerprint) == ("refused", "")
    assert "No open invitation" in reply.reason


def test_an_expired_invitation_is_refused(coordinator: Running) -> None:
    reply = coordinator.join(coordinator.invite("late", hours=0), new_private_key())
    assert reply.state == "refused"
    assert "has expired" in reply.reason


def test_only_the_keys_owner_is_told_its_state(coordinator: Running, north: Site) -> None:
    def asked(request: StateRequest) -> JoinReply:
        with coordinator.client() as client:
            answer = client.post(
                f"{coordinator.site_url}/wardround/joined", content=request.to_json()
            )
        return JoinReply.parse(answer.content)

    right = StateRequest.made("north", north.key)
    assert asked(right).state == "accepted"
    forged = right.model_copy(update={"signature": "00" * 100})
    assert asked(forged).state == "refused"
    half = right.model_copy(update={"signature": "000"})  # no bytes
    assert asked(half).state == "refused"
    assert asked(StateRequest.made("north", new_private_key())).state == "refused"


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, b"[" * 10_000])
def test_what_is_no_request_to_join_is_refused(coordinator: Running, content: bytes) -> None:
    with coordinator.client() as client:
        answer = client.post(f"{coordinator.site_url}/wardround/join", content=content)
    assert answer.status_code == 403
    assert JoinReply.parse(answer.content).state == "refused"
