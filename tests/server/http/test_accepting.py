"""A real service on loopback, and strangers at its door."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from client.transport.connecting import open_client
from client.transport.proxy import Way
from common.messages.pull_headers import HEARTBEAT_SECONDS
from common.messages.signing_key import fingerprint, new_private_key, public_pem, public_text
from server.enrolment.registry import Enrolment
from server.files.coordinator_yaml import Settings
from server.files.folder import Folder
from server.http.connection_limits import WaitingConnections, network_of
from server.service.operator_client import Operator
from server.service.superlink import SuperLink
from tests.server.coordinator import Site, made, running
from tests.server.service_process import service
from tests.server.strangers import (
    ATTACKS,
    MANY,
    Attackers,
    ask,
    ask_anew,
    log_bytes,
    resources,
    under,
)

pytestmark = pytest.mark.processes

#: More than the door has places; `python -m tests.server.strangers 1006 20 127.0.0.1` is in full.
STRANGERS = int(os.environ.get("STRANGERS", "120"))
Served = tuple[Folder, Settings, Site, int]


@contextmanager
def serving(path: Path, **changed: int) -> Iterator[Served]:
    """Yield a running service, a site that it accepted, and its process's number."""
    from common.messages.enrolment import JoinRequest
    from server.enrolment.certificates import authority_hash
    from server.files.coordinator_yaml import write_settings

    folder, settings = made(path)
    write_settings(folder.settings, settings.model_copy(update=changed))
    enrolment, key = Enrolment(folder.enrolment), new_private_key()
    invite = enrolment.invite(
        "north",
        address=settings.address,
        hours=1.0,
        ca_sha256=authority_hash(folder.ca.read_bytes()),
    )
    enrolment.join(JoinRequest.made(invite, public_text(key)))
    enrolment.accept("north", fingerprint(public_text(key)))
    with service(path) as process:
        node = SuperLink(folder.database).state.get_node_id_by_public_key(
            public_pem(public_text(key))
        )
        assert node is not None
        yield folder, settings, Site(name="north", key=key, node_id=node), process.pid


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    limits = {"strangers": 90, "strangers_per_address": 60, "handshakes_per_second": 40}
    with serving(tmp_path_factory.mktemp("coordinator"), **limits) as found:
        yield found


def asked_anew(folder: Folder, settings: Settings, site: Site) -> int:
    """Ask as a site does, which tries again."""
    for _ in range(4):
        with contextlib.suppress(httpx.TransportError):
            return ask_anew(folder, settings, site)
    return ask_anew(folder, settings, site)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
@pytest.mark.parametrize("kind", ATTACKS)
def test_a_site_is_answered_under_an_attack_and_memory_files_and_logs_stay_small(
    served: Served, kind: str, source: str
) -> None:
    folder, settings, site, pid = served
    host, port = settings.listen.rsplit(":", 1)
    with httpx.Client(verify=ssl.create_default_context(cafile=folder.ca), timeout=10.0) as kept:
        assert ask(kept, settings, site) == httpx.codes.OK
        _, before = resources(pid)
        with under(Attackers((host, int(port)), source), kind, STRANGERS):
            for _ in range(3):
                assert ask(kept, settings, site) == httpx.codes.OK
                assert asked_anew(folder, settings, site) == httpx.codes.OK
            files, memory = resources(pid)
    assert files < 90 + 512 + 100  # strangers, those who wait, and the service's own
    assert memory - before < 256  # MiB, whatever the libraries take
    assert log_bytes(folder) < 100_000


@pytest.mark.slow
def test_what_was_logged_before_stays_and_strangers_have_one_line(served: Served) -> None:
    folder, settings, _, _ = served
    host, port = settings.listen.rsplit(":", 1)
    before = (folder.log / "service.jsonl").read_text(encoding="utf-8")
    with under(Attackers((host, int(port))), "refused_joins", STRANGERS):
        time.sleep(2)
    after = (folder.log / "service.jsonl").read_text(encoding="utf-8")
    assert after.startswith(before)
    assert "join refused" not in after
    assert "turned away" not in after
    apart = (folder.log / "service-strangers.jsonl").read_text(encoding="utf-8").splitlines()
    assert 0 < len([line for line in apart if "join refused" in line]) < 100


@pytest.mark.slow
def test_the_operator_is_answered_while_strangers_hold_the_operators_port(served: Served) -> None:
    folder, settings, _, _ = served
    host, port = settings.operator.rsplit(":", 1)
    with under(Attackers((host, int(port)), "127.0.0.1"), "half_sent", STRANGERS):
        operator = Operator(folder)
        try:
            assert operator.sites()["sites"]
        finally:
            operator.close()


@pytest.mark.slow
def test_a_head_that_is_too_long_ends_the_connection_and_a_usual_one_does_not(
    served: Served,
) -> None:
    folder, settings, _, _ = served
    context = ssl.create_default_context(cafile=folder.ca)
    url = f"https://{settings.listen}/wardround/ca.pem"
    with httpx.Client(verify=context) as client:
        assert client.get(url, headers={"x": "a" * 4000}).status_code != 400
    for headers in ({"x": "a" * 20_000}, {f"x{n}": "a" * 500 for n in range(40)}):
        with httpx.Client(verify=context) as client:
            try:
                assert client.get(url, headers=headers).status_code == 400
            except httpx.TransportError:
                continue


@pytest.mark.slow
def test_a_site_that_showed_its_key_waits_for_no_other_address_and_a_refused_one_is_let_go(
    tmp_path: Path,
) -> None:
    folder, settings = made(tmp_path)
    settings = settings.model_copy(update={"handshakes_per_second": 4})
    with running(folder, settings) as coordinator:
        site = coordinator.enrolled("north")
        assert ask_anew(folder, settings, site) == httpx.codes.OK
        host, port = settings.listen.rsplit(":", 1)
        # A minute's turns at four a second; a site's call gives up after ten seconds.
        with under(Attackers((host, int(port)), MANY), "silent", 240):
            for _ in range(5):
                assert ask_anew(folder, settings, site) == httpx.codes.OK
            with coordinator.client() as client:
                refused = client.post(f"{coordinator.site_url}/wardround/join", content=b"{}")
    assert refused.status_code == httpx.codes.FORBIDDEN
    assert refused.headers["connection"] == "close"


@pytest.mark.slow
def test_a_daemon_that_says_a_word_every_five_seconds_keeps_its_connection(tmp_path: Path) -> None:
    folder, settings = made(tmp_path)
    ports = set()

    def note(response: httpx.Response) -> None:
        ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))

    with running(folder, settings) as coordinator:
        site = coordinator.enrolled("north")
        with open_client(coordinator.context, 10.0, Way()) as client:
            client.event_hooks["response"].append(note)
            for pause in (0.0, HEARTBEAT_SECONDS / 2 + 0.5):
                time.sleep(pause)
                assert ask(client, settings, site) == httpx.codes.OK
    assert len(ports) == 1


def test_nobody_who_waits_is_overtaken_for_good() -> None:
    waiting, (patient, peer) = WaitingConnections(), socket.socketpair()
    waiting.add(patient, "10.0.0.1")
    with patient, peer:
        for _ in range(100):
            with socket.socket() as newer:
                waiting.add(newer, "10.0.0.1")
                served, _ = waiting.next()
                if served is patient:
                    return
                assert served is newer
    pytest.fail("overtaken a hundred times")


def test_addresses_take_turns_and_the_one_with_most_gives_up_its_oldest() -> None:
    waiting = WaitingConnections()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(130)]
        for sock in sockets[:128]:
            assert waiting.add(sock, "10.0.0.1") is None
        assert waiting.add(sockets[128], "10.0.0.2") is None
        assert waiting.add(sockets[129], "10.0.0.1") == "10.0.0.1"
        assert sockets[0].fileno() < 0
        assert {waiting.next()[1], waiting.next()[1]} == {"10.0.0.1", "10.0.0.2"}
        waiting.close()
        assert not waiting


def test_one_customers_ipv6_addresses_are_one() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") == "10.0.0.1"
    assert network_of("10.0.0.1") != network_of("10.0.0.2")
