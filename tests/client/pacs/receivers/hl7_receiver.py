"""A receiver of HL7 v2 on loopback: python-hl7's own MLLP server, or one that misbehaves."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import hl7
from hl7.mllp import start_hl7_server
from hl7.mllp.streams import HL7StreamReader, HL7StreamWriter


@dataclass
class Ris:
    """What came, and how it is answered."""

    port: int = 0
    code: str = "AA"
    reason: str = ""
    messages: list[hl7.Message] = field(default_factory=list)
    filed: dict[str, hl7.Message] = field(default_factory=dict)  # by control id, each once


@contextmanager
def ris(encoding: str = "utf-8") -> Iterator[Ris]:
    """Run a receiver that files each message once by its control id."""
    found = Ris()
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def answer(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        try:
            while True:
                message = await reader.readmessage()
                found.messages.append(message)
                control = str(message.segment("MSH")(10))
                if found.code in {"AA", "CA"}:
                    found.filed.setdefault(control, message)
                ack = message.create_ack(found.code)
                if found.reason:
                    ack.segment("MSA").assign_field(found.reason, 3)
                writer.writemessage(ack)
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    async def serve() -> None:
        server = await start_hl7_server(answer, host="127.0.0.1", port=0, encoding=encoding)
        found.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextmanager
def saying(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """Answer one connection's message with some bytes, then close; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def work() -> None:
            line, _ = server.accept()
            with line:
                held = b""
                while not held.endswith(b"\x1c\x0d"):
                    held += line.recv(4096)
                line.sendall(answer(held))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)
