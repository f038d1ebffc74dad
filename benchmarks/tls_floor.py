"""Floor of a round: what nobody can leave out who sends weights to sites and updates back.

A coordinator and its sites, a process each. The weights are encoded once and go to each site over
TLS 1.3; a site hashes them, writes them with one fsync and decodes them, and an update goes the
same way back. There is no HTTP, no signature, no database and nobody who asks again.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.data.weights import Weights
from common.messages.packing import layout_of, pack, unpack
from server.enrolment.certificates import server_context
from server.enrolment.initialise import set_up
from server.files.coordinator_yaml import new_settings
from server.files.folder import Folder

_LENGTH = 8


def floor_seconds(folder: Path, weights: Weights, sites: int) -> tuple[float, float]:
    """Return the seconds of one round, and the processor time of everybody in it."""
    set_up(Folder(folder / "floor"), new_settings("floor", "127.0.0.1:1"))
    listening = socket.create_server(("127.0.0.1", 0))
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(sites + 1)
    processes = [
        context.Process(
            target=_site, args=(folder, number, listening.getsockname()[1], weights, gate)
        )
        for number in range(sites)
    ]
    for process in processes:
        process.start()
    before = _processor_time()
    try:
        seconds = _coordinator(folder, listening, weights, sites, gate)
    finally:
        for process in processes:
            process.join(60)
    return seconds, _processor_time() - before


def _processor_time() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _coordinator(
    folder: Path, listening: socket.socket, weights: Weights, sites: int, gate: object
) -> float:
    context = server_context(Folder(folder / "floor"))
    lines = [context.wrap_socket(listening.accept()[0], server_side=True) for _ in range(sites)]
    layout, total = layout_of(weights), {n: torch.zeros_like(v) for n, v in weights.items()}
    adding = threading.Lock()
    gate.wait()  # type: ignore[attr-defined]  # multiprocessing's
    start = time.perf_counter()
    frames = list(pack(weights, "lossless"))

    def serve(number: int) -> None:
        _send(lines[number], frames)
        update = unpack(layout, _kept(folder / f"update-{number}", lines[number]), "lossless")
        with adding:
            for name, value in update.items():
                total[name] += value

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(sites)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def _site(folder: Path, number: int, port: int, weights: Weights, gate: object) -> None:
    torch.set_num_threads(1)
    update = {n: 1e-3 * torch.randn(v.shape) for n, v in weights.items()}
    context = ssl.create_default_context(cafile=Folder(folder / "floor").ca)
    context.check_hostname = False
    line = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
    gate.wait()  # type: ignore[attr-defined]  # multiprocessing's
    unpack(layout_of(weights), _kept(folder / f"weights-{number}", line), "lossless")
    _send(line, list(pack(update, "lossless")))
    os._exit(0)  # whatever the benchmark has open stays as it is


def _send(line: ssl.SSLSocket, frames: list[bytes]) -> None:
    """Send frames, hashed at this end."""
    digest = hashlib.sha256()
    line.sendall(len(frames).to_bytes(_LENGTH, "big"))
    for frame in frames:
        digest.update(frame)
        line.sendall(len(frame).to_bytes(_LENGTH, "big"))
        line.sendall(frame)
    line.sendall(digest.digest())


def _kept(path: Path, line: ssl.SSLSocket) -> Iterator[bytes]:
    """Yield frames that are hashed and on disk with one fsync."""
    digest, frames = hashlib.sha256(), []
    with path.open("wb") as file:
        for _ in range(_number(line)):
            frame = _read(line, _number(line))
            digest.update(frame)
            file.write(frame)
            frames.append(frame)
        file.flush()
        os.fsync(file.fileno())
    if _read(line, digest.digest_size) != digest.digest():
        sys.exit("The floor's bytes came changed.")
    yield from frames


def _number(line: ssl.SSLSocket) -> int:
    return int.from_bytes(_read(line, _LENGTH), "big")


def _read(line: ssl.SSLSocket, size: int) -> bytes:
    content, view = bytearray(size), None
    view = memoryview(content)
    while view:
        view = view[line.recv_into(view) :]
    return bytes(content)
