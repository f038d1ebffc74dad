"""Health endpoints of a process: /healthz, /metrics, gRPC health.

Everything answers on the loopback address unless told otherwise, and tells nothing of any
patient: a status, since when, and the metrics of `client.node.prometheus_metrics` or
`server.service.prometheus_metrics`.

Public: open_health, Health, Status.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from json import dumps
from socketserver import TCPServer
from typing import Any, Literal, Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from common.platform.errors import ConfigurationError
from common.platform.health_grpc import PATIENCE_SECONDS, GrpcHealth, not_free
from common.platform.logs import log

Status = Literal["ok", "starting", "failing"]

#: Questions at a time; of more, the one that was asked first is dropped.
_AT_A_TIME = 16
#: Bytes of a question's headers.
_LARGEST_QUESTION = 16 * 1024


def open_health(
    http_port: int | None,
    grpc_port: int | None,
    registry: CollectorRegistry,
    host: str = "127.0.0.1",
) -> Health:
    """Answer on these ports until `close`; 0 takes a free one, None answers nothing.

    The status is "starting" until it is set. ConfigurationError when a port cannot be had.
    """
    now = _Now(status="starting", since=datetime.now(UTC))
    http = None if http_port is None else _http(host, http_port, _Answers(now, registry))
    try:
        grpc = None if grpc_port is None else GrpcHealth(host, grpc_port)
    except ConfigurationError:
        if http is not None:
            http.close()
        raise
    return Health(now, http, grpc)


class Health:
    """The open ports; `http_port` and `grpc_port` say which, None where there is none."""

    def __init__(self, now: _Now, http: _Server | None, grpc: GrpcHealth | None) -> None:
        self._now = now
        self._http = http
        self._grpc = grpc
        self.http_port = None if http is None else http.server_port
        self.grpc_port = None if grpc is None else grpc.port

    def set(self, status: Status) -> None:
        """Say how the process is; `since` stays where the status does."""
        if status == self._now.status:
            return
        self._now.since = datetime.now(UTC)
        self._now.status = status
        if self._grpc is not None:
            self._grpc.set(status)

    def close(self) -> None:
        """Stop answering; twice does no harm."""
        if self._http is not None:
            self._http.close()
        if self._grpc is not None:
            self._grpc.close()

    def __enter__(self) -> Self:
        """Return the open ports."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self.close()


@dataclass
class _Now:
    """How the process is; written by one thread, read by those that answer."""

    status: Status
    since: datetime


# --- HTTP ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answers:
    """What the two paths give."""

    now: _Now
    registry: CollectorRegistry

    def health(self) -> tuple[int, str, bytes]:
        """Return code, type and content of /healthz."""
        content = dumps(
            {"status": self.now.status, "since": self.now.since.isoformat(timespec="seconds")}
        )
        code = 503 if self.now.status == "failing" else 200
        return code, "application/json", content.encode() + b"\n"

    def metrics(self, accept: str) -> tuple[int, str, bytes]:
        """Return code, type and content of /metrics."""
        encode, kind = choose_encoder(accept)
        return 200, kind, encode(self.registry)


def _http(host: str, port: int, answers: _Answers) -> _Server:
    try:
        return _Server(host, port, answers)
    except OSError as error:
        raise not_free("http", host, port, error) from error


class _Server(ThreadingHTTPServer):
    """One thread for each question; none of them keeps the process alive."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, answers: _Answers) -> None:
        self.answers = answers
        self._open: dict[socket.socket, float] = {}  # since when; oldest first
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="health", daemon=True
        )
        self._thread.start()

    def server_bind(self) -> None:
        """Bind without asking the name service who we are: in a closed network that hangs."""
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - its shape is given
        """Answer in a thread of its own; the oldest question makes room."""
        with self._lock:
            for oldest in list(self._open)[: max(len(self._open) + 1 - _AT_A_TIME, 0)]:
                _drop(oldest)
                del self._open[oldest]
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - the same
        """Note that a question is answered."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Drop who takes too long over a question, byte by byte."""
        with self._lock:
            ends = time.monotonic() - PATIENCE_SECONDS
            for late in [sock for sock, since in self._open.items() if since < ends]:
                _drop(late)
                del self._open[late]

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - its shape is given
        """Log what went wrong with one question; a peer that hung up is nothing to tell."""
        log(__name__).debug("a health check was not answered", exc_info=True)

    def close(self) -> None:
        """Stop, and give the port back."""
        self.shutdown()
        self.server_close()
        self._thread.join(PATIENCE_SECONDS)


def _drop(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _Bounded(BufferedIOBase):
    """What is read of one question: so many bytes, and then its end."""

    def __init__(self, whole: BufferedIOBase) -> None:
        self._whole, self._left = whole, _LARGEST_QUESTION

    def readline(self, size: int | None = -1) -> bytes:
        """Return a line, or what is left of the bytes that may be read."""
        most = self._left if size is None or size < 0 else min(size, self._left)
        line = self._whole.readline(most)
        self._left -= len(line)
        return line

    def close(self) -> None:
        """Close what is read from."""
        self._whole.close()


class _Handler(BaseHTTPRequestHandler):
    """Two paths, nothing else."""

    timeout = PATIENCE_SECONDS
    server_version = "wardround"
    sys_version = ""

    def setup(self) -> None:
        """Read no more than a question takes."""
        super().setup()
        self.rfile = _Bounded(self.rfile)

    def do_GET(self) -> None:
        """Answer a question."""
        assert isinstance(self.server, _Server)  # noqa: S101 - ours, so mypy knows
        answers = self.server.answers
        match self.path.partition("?")[0]:
            case "/healthz":
                code, kind, content = answers.health()
            case "/metrics":
                code, kind, content = answers.metrics(self.headers.get("Accept", ""))
            case _:
                code, kind, content = 404, "text/plain", b"Here are /healthz and /metrics.\n"
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 - the same

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its shape is given
        """Say nothing: a check comes every few seconds."""
