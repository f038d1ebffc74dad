"""The coordinator's service as a process of its own, whose runs are stand-ins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.files.folder import Folder
from server.service.serve import run_service

ROOT = Path(__file__).parents[2]
STAND_IN = (sys.executable, "-m", "tests.server.run_stand_in")


@contextmanager
def service(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the service and wait until it answers; end it when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.server.service_process", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        if first != "listening\n":
            process.wait(10)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


if __name__ == "__main__":
    run_service(
        Folder(Path(sys.argv[1])),
        json=True,
        command=STAND_IN,
        announce=lambda _settings: print("listening", flush=True),  # noqa: T201
    )
