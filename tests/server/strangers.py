"""People without a key who want to keep others out, and what a site meets meanwhile.

python -m tests.server.strangers COUNT SECONDS SOURCE [AT_ONCE [ATTACK ...]] measures the attacks in
full, from AT_ONCE processes, and prints a site's usual time and its time under each: of one call
on a connection that is kept, of one on a new connection, and of a round of training that its
daemon is asked for (`round`: poll, work and answer). Usual and attacked take turns. SOURCE is the
attackers' address; `many` gives each connection another.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count as counted
from pathlib import Path

import httpx
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node

from common.messages.wire import SiteUpdate, TrainRequest
from common.models.run_network import initial_weights
from server.files.coordinator_yaml import Settings
from server.files.folder import Folder
from server.service.gateway import Gateway
from tests.client.local_runs import config_of, learnable
from tests.privacy.made_up import patients_of
from tests.server.coordinator import Running, Site, free_ports
from tests.server.loopback import Hospital, run_over

_BEAT = "/v1/fleet/send-node-heartbeat"
#: As an attackers' address: another one for each connection.
MANY = "many"
_TURNS = 4
HALF = b"POST /wardround/join HTTP/1.1\r\nHost: coordinator\r\nContent-Length: 10\r\n"


def in_the_open() -> ssl.SSLContext:
    """Return TLS that trusts anybody: an attacker does not care."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@dataclass
class Attackers:
    """Connections to one address, from another; all are closed at the end."""

    address: tuple[str, int]
    source: str = "127.0.0.2"
    open: list[socket.socket] = field(default_factory=list)
    made: int = 0

    def connected(self) -> socket.socket:
        made = socket.create_connection(self.address, timeout=5, source_address=(self._from(), 0))
        self.open.append(made)
        return made

    def _from(self) -> str:
        self.made += 1
        if self.source != MANY:
            return self.source
        return f"127.{os.getpid() % 200 + 1}.{self.made // 250 % 250}.{self.made % 250 + 1}"

    def secured(self) -> ssl.SSLSocket:
        made = in_the_open().wrap_socket(self.connected())
        self.open.append(made)
        return made

    def close(self) -> None:
        for sock in self.open:
            sock.close()

    def forget(self) -> None:
        self.close()
        self.open.clear()

    # --- attacks; each goes on until `over` -------------------------------------------------

    def silent(self, over: threading.Event, count: int) -> None:
        """Connect and say nothing."""
        for _ in range(count):
            if not over.is_set():
                with contextlib.suppress(OSError):
                    self.connected()
        over.wait()

    def half_sent(self, over: threading.Event, count: int) -> None:
        """Agree on TLS, and send half a request's head."""
        for _ in range(count):
            if not over.is_set():
                with contextlib.suppress(OSError):
                    self.secured().sendall(HALF)
        over.wait()

    def endless_header(self, over: threading.Event, count: int) -> None:
        """Send a header line that does not end."""
        for _ in range(count):
            if over.is_set():
                return
            with contextlib.suppress(OSError):
                sock = self.secured()
                sock.sendall(HALF + b"X-Long: ")
                while not over.is_set():
                    sock.sendall(b"a" * 65536)

    def byte_by_byte(self, over: threading.Event, count: int) -> None:
        """Send a request's head, a byte at a time."""
        socks = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                socks.append(self.secured())
        for byte in HALF * 100:
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.sendall(bytes([byte]))
            if over.wait(0.1):
                return

    def handshakes(self, over: threading.Event, count: int) -> None:
        """Agree on TLS again and again."""
        for _ in range(count):
            if over.is_set():
                return
            with contextlib.suppress(OSError):
                self.secured().close()
            self.forget()

    def refused_joins(self, over: threading.Event, count: int) -> None:
        """Join without an invitation, again and again: each is a line in a log."""
        body = b'{"no": "invitation"}'
        request = HALF.replace(b"Content-Length: 10", b"Content-Length: %d" % len(body)) + b"\r\n"
        for _ in range(count):
            if over.is_set():
                return
            with contextlib.suppress(OSError), self.secured() as sock:
                for _ in range(8):
                    sock.sendall(request + body)
                    sock.recv(65536)
            self.forget()

    def garbage(self, over: threading.Event, count: int) -> None:
        """Send what is no TLS."""
        for _ in range(count):
            if over.is_set():
                return
            with contextlib.suppress(OSError), self.connected() as sock:
                sock.sendall(b"\0" * 100)
            self.forget()


ATTACKS: tuple[str, ...] = (
    "silent",
    "half_sent",
    "endless_header",
    "byte_by_byte",
    "handshakes",
    "refused_joins",
    "garbage",
)


@contextmanager
def under(attackers: Attackers, kind: str, count: int) -> Iterator[None]:
    """Let an attack go on meanwhile."""
    over = threading.Event()
    attack: Callable[[threading.Event, int], None] = getattr(attackers, kind)
    thread = threading.Thread(target=attack, args=(over, count), daemon=True)
    thread.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        over.set()
        thread.join(20)
        attackers.close()


@contextmanager
def under_another_process(attackers: Attackers, kind: str, count: int) -> Iterator[None]:
    """Do so from another process, so that a measured site does not wait for the attackers."""
    host, port = attackers.address
    script = (
        "import time; from tests.server.strangers import Attackers, under\n"
        "print('ready', flush=True); input()\n"
        f"with under(Attackers(({host!r}, {port}), {attackers.source!r}), {kind!r}, {count}):\n"
        "    time.sleep(3600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(1.0)
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def ask(client: httpx.Client, settings: Settings, site: Site) -> int:
    """Return the status of one honest call."""
    node = Node(node_id=site.node_id)
    content = SendNodeHeartbeatRequest(node=node, heartbeat_interval=30).SerializeToString()
    headers = site.headers(_BEAT, content)
    return client.post(
        f"https://{settings.listen}{_BEAT}", content=content, headers=headers
    ).status_code


def ask_anew(folder: Folder, settings: Settings, site: Site) -> int:
    """Return the status of one honest call on a connection of its own."""
    with httpx.Client(verify=ssl.create_default_context(cafile=folder.ca), timeout=10.0) as client:
        return ask(client, settings, site)


def resources(pid: int) -> tuple[int, float]:
    """Return a process's open files and its memory in MiB."""
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return files, pages * resource.getpagesize() / 2**20


def cpu_seconds(pid: int) -> float:
    """Return what a process has computed."""
    found = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(found[11]) + int(found[12])) / os.sysconf("SC_CLK_TCK")


def log_bytes(folder: Folder) -> int:
    """Return what all logs hold."""
    return sum(path.stat().st_size for path in folder.log.glob("service*"))


def _measured(call: Callable[[], None], seconds: float) -> list[float]:
    times, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.monotonic()
        call()
        times.append(1000 * (time.monotonic() - began))
        time.sleep(0.02)
    return times


def _well(status: int) -> None:
    assert status == httpx.codes.OK, status


@contextmanager
def rounds(folder: Folder, settings: Settings, site: Site) -> Iterator[Callable[[], None]]:
    """Yield what has a site's daemon train a round, as a run of the service's has it."""
    site_port, operator_port = free_ports(2)
    # The service is another process; this gateway listens to nobody and shares its database.
    silent = Gateway(
        folder,
        settings.model_copy(
            update={"listen": f"127.0.0.1:{site_port}", "operator": f"127.0.0.1:{operator_port}"}
        ),
    )
    running = Running(folder, settings, silent)
    patients = learnable(patients_of((1, 2, 3, 1) * 4, (0,), 0))
    config = config_of("aggregation: {smallest_quorum: 1}")
    many = config.training.model_copy(update={"rounds": 100_000})
    config = config.model_copy(update={"training": many})
    weights, numbers = initial_weights(config, 0), counted(1)
    with tempfile.TemporaryDirectory() as path:
        hospital = Hospital(running, site, Path(path) / "home", patients).start()
        try:
            with run_over(running, config, Path(path) / "run") as (sites, _):
                assert sites.available() == (site.name,)

                def train() -> None:
                    request = TrainRequest(
                        run="run", round=next(numbers), seed=0, config=config, weights=weights
                    )
                    (answer,) = sites.train(request, (site.name,))
                    assert isinstance(answer, SiteUpdate), answer

                yield train
        finally:
            hospital.stop()


def main(count: int, seconds: float, source: str, at_once: int, kinds: Sequence[str]) -> None:
    """Print the table."""
    from tests.server.http.test_accepting import serving

    with ExitStack() as stack:
        path = stack.enter_context(tempfile.TemporaryDirectory())
        folder, settings, site, pid = stack.enter_context(serving(Path(path)))
        context = ssl.create_default_context(cafile=folder.ca)
        kept = stack.enter_context(httpx.Client(verify=context, timeout=20.0))
        train = stack.enter_context(rounds(folder, settings, site))
        ways: dict[str, Callable[[], None]] = {
            "kept": lambda: _well(ask(kept, settings, site)),
            "new": lambda: _well(ask_anew(folder, settings, site)),
            "round": train,
        }
        host, port = settings.listen.rsplit(":", 1)
        for kind in kinds:
            usual: dict[str, list[float]] = {name: [] for name in ways}
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(_TURNS):
                for name, call in ways.items():
                    usual[name] += _measured(call, seconds / _TURNS)
                with ExitStack() as attack:
                    for _ in range(at_once):
                        attackers = Attackers((host, int(port)), source)
                        attack.enter_context(
                            under_another_process(attackers, kind, count // at_once)
                        )
                    before, began = cpu_seconds(pid), time.monotonic()
                    for name, call in ways.items():
                        times[name] += _measured(call, seconds / _TURNS)
                    files, memory = resources(pid)
                    share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
                time.sleep(3)
            row = "  ".join(_shown(name, usual[name], times[name]) for name in ways)
            size = f"cpu {100 * share:3.0f} %  files {files:3}  {memory:.0f} MiB"
            print(f"{kind:15} {row}  {size}  log {log_bytes(folder)} B", flush=True)  # noqa: T201


def _shown(name: str, usual: list[float], times: list[float]) -> str:
    before, then = statistics.median(usual), statistics.median(times)
    slowest = statistics.quantiles(times, n=20)[-1]
    return f"{name} {before:.1f} -> {then:.1f} ms, x {then / before:.2f} (95% {slowest:.0f})"


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        float(sys.argv[2]),
        sys.argv[3],
        int((*sys.argv, "1")[4]),
        sys.argv[5:] or ATTACKS,
    )
