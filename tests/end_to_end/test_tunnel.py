"""A load balancer that ends TLS before the coordinator: what passes it, and what it sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client.site.site_config import load_site_config, write_site_config
from server.enrolment.certificates import now
from server.files.coordinator_yaml import host_and_port, load_settings, write_settings
from tests.end_to_end.cohorts import table_config, write_tables
from tests.end_to_end.federation import OPEN, Coordinator, Federation
from tests.end_to_end.link import Link
from tests.end_to_end.processes import Program, free_port, until
from tests.peers import program

pytestmark = pytest.mark.slow

NAMES = ("east", "west")
DEPLOY = Path(__file__).parents[2] / "deploy"


class Heard(Link):
    """Keeps what it passes on from the site: it stands where the balancer has ended TLS."""

    def _count(self, piece: bytes, *, from_site: bool) -> None:
        if from_site:
            self.said += piece
        super()._count(piece, from_site=from_site)


@dataclass(frozen=True)
class Setting:
    federation: Federation
    behind: Heard  # between balancer and coordinator
    folder: Path


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    path = tmp_path_factory.mktemp("tunnel")
    coordinator = Coordinator.made(path / "coordinator")
    front = f"127.0.0.1:{free_port()}"
    listen = f"127.0.0.1:{free_port()}"
    behind = Heard(host_and_port(front))
    settings = load_settings(coordinator.folder.settings)
    changed = settings.model_copy(update={"front": front, "listen": listen})
    write_settings(coordinator.folder.settings, changed)
    federation = Federation(coordinator, {})
    with balancer("nginx", path / "nginx", settings.address, behind.address):
        try:
            coordinator.start()
            federation.enrol(path, write_tables(path / "data", NAMES), rules=OPEN)
            federation.start()
            yield Setting(federation, behind, path)
        finally:
            federation.stop()
            behind.close()


@contextmanager
def balancer(name: str, folder: Path, address: str, to: str) -> Iterator[None]:
    """Run nginx or HAProxy as deploy/ says, at other addresses and with a certificate of ours."""
    folder.mkdir()
    certificate = _certificate(folder)
    if name == "nginx":
        text = (DEPLOY / "nginx.conf").read_text()
        text = text.replace("listen 443 ssl", f"listen {address} ssl")
        text = text.replace("/etc/nginx/coordinator.example.org.pem", str(certificate))
        text = text.replace("/etc/nginx/coordinator.example.org.key", str(certificate))
        head = f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        bodies = "".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = head + text.replace("http {", f"http {{ access_log off; {bodies}")
        command = [program("nginx"), "-e", f"{folder}/error.log", "-c", f"{folder}/conf"]
    else:
        text = (DEPLOY / "haproxy.cfg").read_text()
        text = text.replace("bind :443", f"bind {address}")
        text = text.replace("/etc/haproxy/coordinator.example.org.pem", str(certificate))
        command = [program("haproxy"), "-db", "-f", f"{folder}/conf"]
    assert "127.0.0.1:8080" in text
    (folder / "conf").write_text(text.replace("127.0.0.1:8080", to))
    started = Program(command, folder / "out")
    started.start()
    try:
        yield
    finally:
        started.process.terminate()
        started.process.wait(20)


def _certificate(folder: Path) -> Path:
    """Write a key and a certificate that no site was told of, as a balancer's is."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "balancer.example")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    valid = made.not_valid_before(now() - timedelta(days=1)).not_valid_after(
        now() + timedelta(days=9)
    )
    signed = valid.sign(key, hashes.SHA256())
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + signed.public_bytes(serialization.Encoding.PEM)
    path = folder / "certificate.pem"
    path.write_bytes(text)
    return path


def test_a_federation_runs_through_nginx_which_sees_tls_alone(
    setting: Setting, tmp_path: Path
) -> None:
    east = setting.federation.sites["east"]
    assert load_site_config(east.home.site_yaml).tunnel  # as the invitation said
    run = setting.federation.coordinator.run(table_config(tmp_path, "through", rounds=1))
    assert run.end() == "done", run.message
    assert [sorted(r.updates) for r in run.result().history] == [[*NAMES]]
    # What nginx hands on, it could read: one question of HTTP a connection, and then TLS.
    said = bytes(setting.behind.said)
    heads = said.count(b"GET /wardround HTTP/1.1\r\n")
    assert heads == said.count(b"\r\nUpgrade: wardround-tls\r\n")
    assert heads >= len(NAMES)
    assert said.partition(b"\r\n\r\n")[2][:2] == b"\x16\x03"  # TLS begins
    names = (b"flwr", b"wardround-once", b"through", b"/v1/fleet", b"wardround-body")
    assert not any(name in said for name in names)


def test_doctor_says_where_tls_ends_and_what_to_write_where_that_was_not_told(
    setting: Setting,
) -> None:
    east = setting.federation.sites["east"]
    said = " ".join(east.type("doctor").split())
    assert "TLS ends on the way, at a certificate of CN=balancer.example" in said
    config = load_site_config(east.home.site_yaml)
    write_site_config(east.home.site_yaml, config.model_copy(update={"tunnel": False}))
    try:
        said = " ".join(east.type("doctor", status=1).split())
        assert "TLS ends on the way, at a certificate of CN=balancer.example" in said
        assert "write tunnel: true in" in said
        until(lambda: east.status.get("state") == "offline", "its daemon does not go on")
    finally:
        write_site_config(east.home.site_yaml, config)
    until(lambda: east.status.get("state") == "waiting", "its daemon goes on")


def test_a_tunnel_that_is_not_there_is_told_of(setting: Setting) -> None:
    """The coordinator's own listener is no balancer: it answers no Upgrade."""
    west = setting.federation.sites["west"]
    west.call_at(load_settings(setting.federation.coordinator.folder.settings).listen)
    west.program.stop()
    west.start()
    until(lambda: "tunnel: false" in str(west.status.get("sentence")), "it says what to write")
    assert west.status["state"] == "offline"
    west.call_at(load_settings(setting.federation.coordinator.folder.settings).address)


def test_haproxy_hands_the_same_on(setting: Setting) -> None:
    east = setting.federation.sites["east"]
    front = load_settings(setting.federation.coordinator.folder.settings).front
    assert front is not None
    address = f"127.0.0.1:{free_port()}"
    with balancer("haproxy", setting.folder / "haproxy", address, front):
        east.program.stop()
        east.call_at(address)
        east.start()
        until(lambda: east.status.get("state") == "waiting", "east is connected")
        assert "127.0.0.1" in east.type("doctor")
