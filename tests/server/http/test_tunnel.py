from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from common.messages.tunnel import TUNNEL_PATH, TUNNEL_PROTOCOL
from server.http import tunnel
from server.http.tunnel import Front

ASKED = f"GET {TUNNEL_PATH} HTTP/1.1\r\nHost: c\r\nConnection: Upgrade\r\n"
WANTED = f"{ASKED}Upgrade: {TUNNEL_PROTOCOL}\r\n"


def heard(*heads: bytes) -> list[tuple[bytes, list[str]]]:
    """Return what each caller is answered, and whom the door was given for it."""

    async def story() -> list[tuple[bytes, list[str]]]:
        given: list[str] = []

        def let_in(sock: socket.socket, caller: str) -> None:
            given.append(caller)
            sock.close()

        bound = socket.create_server(("127.0.0.1", 0))
        front = Front(bound, let_in)
        found = []
        for head in heads:
            given.clear()
            reader, writer = await asyncio.open_connection(*bound.getsockname())
            writer.write(head)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            found.append((answer.partition(b"\r\n")[0], list(given)))
        front.close()
        await front.wait_closed()
        bound.close()
        return found

    return asyncio.run(story())


@pytest.mark.processes
def test_who_asks_for_the_tunnel_is_handed_to_the_door_and_nobody_else_is() -> None:
    forwarded = f"{WANTED}X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8, 7.7.7.7\r\n\r\n"
    again = WANTED.replace("GET", "POST")
    elsewhere = WANTED.replace(TUNNEL_PATH, f"{TUNNEL_PATH}/more")
    found = heard(
        f"{WANTED}\r\n".encode(),
        forwarded.encode(),
        f"{ASKED}\r\n".encode(),
        f"{again}\r\n".encode(),
        f"{elsewhere}\r\n".encode(),
        f"{WANTED}\r\nbytes that come too early".encode(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 64,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2740,
    )
    yes, no = b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 426 Upgrade Required"
    assert [answer for answer, _ in found] == [yes, yes, no, no, no, no, no, no]
    assert [given for _, given in found[:2]] == [["127.0.0.1"], ["7.7.7.7"]]
    assert not any(given for _, given in found[2:])


@pytest.mark.processes
def test_who_asks_nothing_is_let_go_and_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "_ASKING_SECONDS", 0.2)
    monkeypatch.setattr(tunnel, "_ASKING", 2)

    async def story(let_in: Callable[[socket.socket, str], None]) -> bytes:
        bound = socket.create_server(("127.0.0.1", 0))
        front = Front(bound, let_in)
        silent = [await asyncio.open_connection(*bound.getsockname()) for _ in range(5)]
        ends: list[Awaitable[bytes]] = [reader.read() for reader, _ in silent]
        assert await asyncio.wait_for(asyncio.gather(*ends), 10) == [b""] * 5
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        writer.write(f"{WANTED}\r\n".encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)
        for _, other in silent:
            other.close()
        writer.close()
        front.close()
        await front.wait_closed()
        bound.close()
        return answer

    answer = asyncio.run(story(lambda sock, _caller: sock.close()))
    assert answer == b"HTTP/1.1 101 Switching Protocols\r\n"
