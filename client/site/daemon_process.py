"""Lock, signals and health ports of the daemon."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from prometheus_client import CollectorRegistry

from client.site.site_config import SiteConfig
from common.platform.errors import RunFailed
from common.platform.file_lock import FileLock, Taken
from common.platform.health import Status as HealthStatus
from common.platform.health import open_health


@contextmanager
def answering_health(
    config: SiteConfig, registry: CollectorRegistry
) -> Iterator[Callable[[HealthStatus], None]]:
    """Answer health and metrics on the configured ports of this machine; yields what sets them."""
    http = sorted({p for p in (config.health_port, config.metrics_port) if p is not None})
    grpc = config.health_grpc_port
    with ExitStack() as stack:
        opened = [stack.enter_context(open_health(port, None, registry)) for port in http]
        if grpc is not None:
            opened.append(stack.enter_context(open_health(None, grpc, registry)))

        def tell(status: HealthStatus) -> None:
            for health in opened:
                health.set(status)

        yield tell


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the home, so that two daemons never share a ledger's answers."""
    try:
        lock = FileLock(path, mode=0o666)
    except Taken as error:
        message = (
            f"Another daemon serves {path.parent} already. `wardround-site status` shows what it "
            "does; stop it first, or give another --home."
        )
        raise RunFailed(message) from error
    with lock:
        os.ftruncate(lock.fd, 0)
        os.write(lock.fd, f"{os.getpid()} {datetime.now(UTC).isoformat()}\n".encode())
        yield


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Turn SIGTERM and Ctrl-C into an event for the time being."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {n: signal.signal(n, on_signal) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
