"""A real service on loopback, and strangers at its door."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from common.identity import fingerprint, new_private_key, public_pem, public_text
from server.door_places import network_of
from server.enrolment import Enrolment
from server.folder import Folder
from server.operator_client import Operator
from server.settings import Settings
from server.superlink import SuperLink
from tests.server.coordinator import Site, made
from tests.server.service_process import service
from tests.server.strangers import ATTACKS, Attackers, ask, ask_anew, log_bytes, resources, under

#: More than the door has places; `python -m tests.server.strangers 1006 20 127.0.0.1` is in full.
STRANGERS = int(os.environ.get("STRANGERS", "120"))
Served = tuple[Folder, Settings, Site, int]


@contextmanager
def serving(path: Path, **changed: int) -> Iterator[Served]:
    """Yield a running service, a site that it accepted, and its process's number."""
    from common.enrolment_messages import JoinRequest
    from server.certificates import authority_hash
    from server.settings import write_settings

    folder, settings = made(path)
    write_settings(folder.settings, settings.model_copy(update=changed))
    enrolment, key = Enrolment(folder.enrolment), new_private_key()
    invite = enrolment.invite(
        "north", address=settings.address, hours=1.0,
        ca_sha256=authority_hash(folder.ca.read_bytes()),
    )  # fmt: skip
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
    with httpx.Client(
        verify=ssl.create_default_context(cafile=folder.ca), timeout=10.0
    ) as kept:  # fmt: skip
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


def test_one_customers_ipv6_addresses_are_one() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") == "10.0.0.1"
    assert network_of("10.0.0.1") != network_of("10.0.0.2")
