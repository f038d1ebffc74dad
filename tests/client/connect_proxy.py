"""A hospital's HTTP proxy as a process: CONNECT alone, and names that only it can resolve."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Asked:
    """One request to the proxy."""

    target: str
    answered: int
    first: str  # the first byte that passed, in hex: 16 begins TLS


@dataclass(frozen=True)
class ConnectProxy:
    port: int
    journal: Path

    def url(self, login: str = "") -> str:
        return f"http://{login and login + '@'}127.0.0.1:{self.port}"

    def asked(self) -> list[Asked]:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [Asked(**json.loads(line)) for line in lines]


@contextmanager
def connect_proxy(journal: Path, target: str, to: str, login: str = "") -> Iterator[ConnectProxy]:
    """Serve CONNECT to `target`, which is led to `to`, for whoever shows the login."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.client.connect_proxy", str(journal), target, to, login],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield ConnectProxy(int(process.stdout.readline()), journal)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _serve(journal: Path, target: str, to: str, login: str) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)  # noqa: T201
    wanted = f"basic {base64.b64encode(login.encode()).decode()}".lower() if login else ""
    while True:
        client, _ = server.accept()
        threading.Thread(
            target=_one, args=(client, journal, (target, to, wanted)), daemon=True
        ).start()


def _one(client: socket.socket, journal: Path, rules: tuple[str, str, str]) -> None:
    target, to, wanted = rules
    with client, suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        request, *headers = head.decode().split("\r\n")
        method, asked, _ = request.split(" ")
        shown = dict(line.lower().split(": ", 1) for line in headers if ": " in line)
        status, first = 200, b""
        if wanted and shown.get("proxy-authorization") != wanted:
            status = 407
        elif method != "CONNECT" or asked != target:
            status = 403
        client.sendall(f"HTTP/1.1 {status} as told\r\n\r\n".encode())
        if status == 200:
            host, port = to.split(":")
            with socket.create_connection((host, int(port))) as server:
                first = client.recv(1, socket.MSG_PEEK)
                _note(journal, asked, status, first)
                _pass_on(client, server)
        else:
            _note(journal, asked, status, first)


def _note(journal: Path, target: str, status: int, first: bytes) -> None:
    with journal.open("a") as file:
        file.write(json.dumps({"target": target, "answered": status, "first": first.hex()}) + "\n")


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=copy, args=(other, one), daemon=True)
    back.start()
    copy(one, other)
    back.join()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), *sys.argv[2:])
