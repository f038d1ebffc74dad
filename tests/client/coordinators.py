"""Coordinators on loopback as a site meets them: the real pages, and other people's servers."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from common.messages.enrolment import Invite
from common.messages.signing_key import fingerprint
from server.enrolment.certificates import Authority, authority_hash, now, server_context
from server.enrolment.enrolment_pages import enrolment_pages
from server.enrolment.moving import notice_of
from server.enrolment.registry import Enrolment
from server.files.folder import Folder
from server.http.asgi import answer


@dataclass
class Front:
    """A coordinator's address, and what its admin does there."""

    folder: Folder
    host: str
    port: int
    enrolment: Enrolment
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)  # method, path, body

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def invite(self, site: str = "north", hours: float = 1.0, **changed: object) -> str:
        """Return an invitation's line; `changed` is what somebody made of it."""
        invite = self.enrolment.invite(
            site,
            address=self.address,
            ca_sha256=authority_hash(self.folder.ca.read_bytes()),
            hours=hours,
        )
        return Invite.model_validate(invite.model_dump() | changed).text()

    def accept(self, site: str, public: str) -> None:
        self.enrolment.accept(site, fingerprint(public))


def authority_in(path: Path, *, hosts: tuple[str, ...] = ("127.0.0.1",), days: int = 0) -> Folder:
    """Return a folder with an authority, and a server certificate that was issued `days` ago."""
    folder = Folder(path)
    path.mkdir(parents=True, exist_ok=True)
    authority = Authority.create("breast-study", now() - timedelta(days=max(days, 0)))
    authority.save(folder)
    authority.issue(folder, hosts, now() - timedelta(days=days))
    return folder


@contextmanager
def front(
    path: Path,
    *,
    folder: Folder | None = None,
    authority: bytes | None = None,
    context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> Iterator[Front]:
    """Serve the pages; `authority` is what the first of them gives out instead."""
    folder = folder or authority_in(path)
    found = Front(folder=folder, host=host, port=0, enrolment=Enrolment(folder.enrolment))
    pages = enrolment_pages(
        found.enrolment,
        coordinator="breast-study",
        authority=lambda: authority or folder.ca.read_bytes(),
        notice=lambda: None if (told := notice_of(folder)) is None else told.to_json(),
        changed=lambda: None,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""

        async def heard() -> dict[str, object]:
            nonlocal body
            message = await receive()
            body += bytes(message.get("body", b""))
            return dict(message)

        page = pages.get((scope["method"], scope["path"]))
        if page is None:
            await answer(send, 404, b"{}")
        else:
            await page(scope, heard, send)
        found.asked.append((scope["method"], scope["path"], body))

    with served(app, context or server_context(folder), host) as port:
        found.port = port
        yield found


@contextmanager
def served(app: ASGIApp, context: ssl.SSLContext | None, host: str = "127.0.0.1") -> Iterator[int]:
    """Serve an application on a free port until the block ends; without a context, in the open."""
    listening = socket.create_server((host, 0))
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
    if context is not None:
        config.ssl_context_factory = lambda _config, _default: context
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


def always(status: int, body: bytes) -> ASGIApp:
    """Return an application that answers the same to everything."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, status, body)

    return app
