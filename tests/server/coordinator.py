"""A real coordinator's listeners on loopback, in a thread, and the site's half of a call."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.types import ASGIApp

from client.transport.request_signing import add_signature
from common.messages.enrolment import CA_PATH, Invite, JoinReply, JoinRequest
from common.messages.request_signature import BODY_HEADER, NUMBER_HEADER, SIGNATURE_HEADER
from common.messages.signing_key import fingerprint, new_private_key, public_pem, public_text
from server.enrolment.certificates import authority_hash
from server.enrolment.initialise import set_up
from server.files.coordinator_yaml import Settings, new_settings
from server.files.folder import Folder
from server.service.gateway import Gateway

PROTOBUF = "application/protobuf"


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports


def made(path: Path, name: str = "breast-study") -> tuple[Folder, Settings]:
    """Return a coordinator's folder and settings on free ports of this machine."""
    site, operator = free_ports(2)
    settings = new_settings(name, f"127.0.0.1:{site}").model_copy(
        update={"operator": f"127.0.0.1:{operator}"}
    )
    folder = Folder(path)
    set_up(folder, settings)
    return folder, settings


@dataclass
class Running:
    """A coordinator that answers."""

    folder: Folder
    settings: Settings
    gateway: Gateway
    context: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self.context = ssl.create_default_context(cafile=self.folder.ca)

    @property
    def site_url(self) -> str:
        return f"https://{self.settings.listen}"

    @property
    def operator_url(self) -> str:
        return f"https://{self.settings.operator}"

    def client(self, context: ssl.SSLContext | None = None) -> httpx.Client:
        """Return a client that trusts this coordinator's authority only."""
        return httpx.Client(verify=context or self.context, timeout=20.0)

    def token(self) -> dict[str, str]:
        """Return the operator's header."""
        return {"authorization": f"Bearer {self.folder.token.read_text(encoding='ascii').strip()}"}

    def invite(self, site: str, hours: float = 1.0) -> Invite:
        return self.gateway.enrolment.invite(
            site,
            address=self.settings.address,
            hours=hours,
            ca_sha256=authority_hash(self.folder.ca.read_bytes()),
        )

    def join(self, invite: Invite, key: ec.EllipticCurvePrivateKey) -> JoinReply:
        with self.client() as client:
            content = JoinRequest.made(invite, public_text(key)).to_json()
            answer = client.post(f"{self.site_url}/wardround/join", content=content)
        reply = JoinReply.parse(answer.content)
        assert answer.status_code == (403 if reply.state == "refused" else 200)
        return reply

    def enrolled(self, site: str) -> Site:
        """Return an accepted site."""
        key = new_private_key()
        assert self.join(self.invite(site), key).state == "pending"
        self.gateway.accept(site, fingerprint(public_text(key)))
        node = self.gateway.superlink.state.get_node_id_by_public_key(public_pem(public_text(key)))
        assert node is not None
        return Site(name=site, key=key, node_id=node)


@dataclass(frozen=True)
class Site:
    """A site's key, and the headers with which it signs a request."""

    name: str
    key: ec.EllipticCurvePrivateKey
    node_id: int = 0

    def headers(
        self,
        path: str = "/v1/fleet/get-run",
        body: bytes = b"",
        at: datetime | None = None,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, str]:
        """Return the headers of one request, signed as the site's daemon signs it."""
        signed_at = (at or datetime.now(UTC)).isoformat()
        signature = self.key.sign(signed_at.encode(), ec.ECDSA(hashes.SHA256()))
        request = httpx.Request(
            "POST",
            f"https://coordinator{path}",
            content=body,
            headers={"flwr-timestamp": signed_at, **more},
        )
        add_signature(request, self.key)
        names = (SIGNATURE_HEADER, NUMBER_HEADER, BODY_HEADER, *more)
        return {name: request.headers[name] for name in names} | {
            "content-type": PROTOBUF,
            "flwr-public-key": b64encode(public_pem(public_text(self.key))).decode(),
            "flwr-timestamp": signed_at,
            "flwr-signature": b64encode(signature).decode(),
        }


@contextmanager
def running(folder: Folder, settings: Settings, ours: ASGIApp | None = None) -> Iterator[Running]:
    """Serve until the block ends."""
    gateway = Gateway(folder, settings)
    loop = asyncio.new_event_loop()

    def serve() -> None:
        loop.run_until_complete(gateway.serve(ours or Starlette()))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=serve, name="coordinator")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(gateway.started(), loop).result(10)
        yield Running(folder, settings, gateway)
    finally:
        loop.call_soon_threadsafe(gateway.stop)
        thread.join(15)
        assert not thread.is_alive()


def fetched_authority(settings: Settings) -> bytes:
    """Return the CA certificate as a stranger fetches it, before trusting anybody."""
    with httpx.Client(verify=False) as client:  # noqa: S501 - its hash is what is trusted
        return client.get(f"https://{settings.listen}{CA_PATH}").content
