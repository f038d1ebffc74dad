from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from common.platform.errors import ConfigurationError
from common.platform.health import Health, open_health

pytestmark = pytest.mark.processes

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def opened(*, grpc_port: int | None = None) -> Iterator[Health]:
    registry = CollectorRegistry()
    Counter("rounds", "Rounds.", registry=registry).inc(3)
    with open_health(0, grpc_port, registry) as health:
        yield health


def ask(health: Health, path: str, method: str = "GET") -> tuple[int, str]:
    with closing(HTTPConnection("127.0.0.1", int(health.http_port or 0), timeout=5)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_health_is_told_with_the_time_since_when() -> None:
    with opened() as health:
        code, text = ask(health, "/healthz")
        assert (code, json.loads(text)["status"]) == (200, "starting")
        health.set("ok")
        first = json.loads(ask(health, "/healthz")[1])
        health.set("ok")
        assert first["status"] == "ok"
        assert json.loads(ask(health, "/healthz")[1]) == first


def test_a_failing_process_answers_503_until_it_is_well_again() -> None:
    with opened() as health:
        health.set("failing")
        code, text = ask(health, "/healthz")
        assert (code, json.loads(text)["status"]) == (503, "failing")
        health.set("ok")
        assert ask(health, "/healthz")[0] == 200


def test_metrics_are_those_of_the_registry_that_was_given_and_no_others() -> None:
    with opened() as health:
        code, text = ask(health, "/metrics")
    assert code == 200
    families = {f.name.removesuffix("_created") for f in text_string_to_metric_families(text)}
    assert families == {"rounds"}
    assert "rounds_total 3.0" in text


def test_other_paths_and_methods_get_nothing() -> None:
    with opened() as health:
        assert ask(health, "/")[0] == 404
        assert ask(health, "/healthz/../../etc/passwd")[0] == 404
        assert ask(health, "/healthz", "POST")[0] == 501
        assert ask(health, "/healthz", "HEAD") == (200, "")


def test_a_peer_that_says_nothing_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.platform.health._Handler.timeout", 0.2)
    with opened() as health:
        silent = [
            socket.create_connection(("127.0.0.1", int(health.http_port or 0)), 5)
            for _ in range(20)
        ]
        assert ask(health, "/healthz")[0] == 200
        for peer in silent:
            peer.settimeout(5)
            assert peer.recv(1) == b""
            peer.close()


def test_only_this_machine_is_answered_by_default() -> None:
    with opened() as health:
        port = int(health.http_port or 0)
        others = {a[4][0] for a in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}
        for address in others - {"127.0.0.1"}:
            with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
                socket.create_connection((str(address), port), 2).close()


def test_grpc_health_follows_the_status() -> None:
    with (
        opened(grpc_port=0) as health,
        grpc.insecure_channel(f"127.0.0.1:{health.grpc_port}") as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="")
        assert stub.Check(request, timeout=5).status == NOT_SERVING
        watched = stub.Watch(request, timeout=20)
        assert next(watched).status == NOT_SERVING
        health.set("ok")
        assert next(watched).status == SERVING
        assert stub.Check(request, timeout=5).status == SERVING
        health.set("failing")
        assert stub.Check(request, timeout=5).status == NOT_SERVING
        watched.cancel()


def test_a_port_that_is_taken_is_refused_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port}.*Take a free port"):
            open_health(port, None, CollectorRegistry())
        before = threading.active_count()
        with pytest.raises(ConfigurationError, match=rf"gRPC.*:{port}"):
            open_health(0, port, CollectorRegistry())
        assert threading.active_count() <= before


def test_closing_gives_the_port_back() -> None:
    with opened() as health:
        port = int(health.http_port or 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 2)
    open_health(port, None, CollectorRegistry()).close()


def test_no_port_is_opened_unless_one_is_configured() -> None:
    health = open_health(None, None, CollectorRegistry())
    health.set("ok")
    health.close()
    assert (health.http_port, health.grpc_port) == (None, None)


def test_open_ports_keep_no_process_alive_and_grpc_is_loaded_only_where_it_is_used() -> None:
    program = (
        "import sys; from prometheus_client import CollectorRegistry; "
        "from common.platform.health import open_health; "
        "open_health(0, None, CollectorRegistry()); "
        "print('grpc' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "False False\n")


@pytest.mark.slow
def test_a_check_is_answered_while_others_ask_slowly_or_without_an_end() -> None:
    with open_health(0, None, CollectorRegistry()) as health:
        health.set("ok")
        place = ("127.0.0.1", health.http_port or 0)
        silent = [socket.create_connection(place) for _ in range(100)]
        before = threading.active_count()
        assert before < 60
        endless = socket.create_connection(place, timeout=20)
        with contextlib.suppress(ConnectionError):
            endless.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"a" * (8 << 20))
            endless.recv(100)
        slow = socket.create_connection(place, timeout=20)
        ended = False
        for byte in b"GET /healthz HTTP/1.1\r\n" * 100:
            try:
                slow.sendall(bytes([byte]))
            except ConnectionError:
                ended = True
                break
            with urllib.request.urlopen(f"http://127.0.0.1:{place[1]}/healthz", timeout=10) as got:
                assert got.status == 200
            time.sleep(0.1)
        assert ended
        for sock in (*silent, endless, slow):
            sock.close()
