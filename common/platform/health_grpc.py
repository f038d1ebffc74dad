"""gRPC's health protocol."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from common.platform.errors import ConfigurationError

#: A peer that neither asks nor reads for so long is let go.
PATIENCE_SECONDS = 5.0
#: Threads of the server; its answers take microseconds.
_THREADS = 2
_CONNECTIONS, _STREAMS = 64, 16


def not_free(protocol: str, host: str, port: int, error: Exception) -> ConfigurationError:
    """Return what to do about a port that somebody has."""
    why = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigurationError(
        f"Cannot answer health checks ({protocol}) on {host}:{port}: {why}. Take a free port, or "
        "stop the process that has this one."
    )


class GrpcHealth:
    """The health protocol of gRPC: the service "" is this process."""

    def __init__(self, host: str, port: int) -> None:
        try:
            import grpc
            from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        except ImportError as error:
            message = (
                f"gRPC health checks on port {port} need grpcio-health-checking, which is not "
                "installed: install the lock site.txt or coordinator.txt, or leave them out."
            )
            raise ConfigurationError(message) from error
        self._answers = health_pb2.HealthCheckResponse
        self._servicer = health.HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, "grpc-health"),
            # Without the first, a second process would share the port, and answer half the checks.
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_allowed_incoming_connections", _CONNECTIONS),
                ("grpc.server_handshake_timeout_ms", int(1000 * PATIENCE_SECONDS)),
                ("grpc.max_concurrent_streams", _STREAMS),
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self.set("starting")
        try:
            self.port = int(self._server.add_insecure_port(f"{host}:{port}"))
        except RuntimeError as error:
            raise not_free("gRPC", host, port, error) from error
        self._server.start()

    def set(self, status: Literal["ok", "starting", "failing"]) -> None:
        """Say whether the process serves; one that starts does not yet."""
        serves = status == "ok"
        self._servicer.set("", self._answers.SERVING if serves else self._answers.NOT_SERVING)

    def close(self) -> None:
        """Stop at once; a check that is under way is cut."""
        self._server.stop(0).wait(PATIENCE_SECONDS)
