"""JPEG decoding by dcmtk's dcmdjpeg where the hospital installed it and nothing else can.

It runs as a process of its own with a limit on time, memory and what it may write: whatever a
broken file makes it do ends there.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from client.dicom.codec.decode import LARGEST_BYTES

_SECONDS = 60
_MEMORY_BYTES = 4 * LARGEST_BYTES


@lru_cache(maxsize=1)
def _program() -> str | None:
    return shutil.which("dcmdjpeg")


@contextmanager
def decoded_by_dcmtk(path: Path) -> Iterator[Path | None]:
    """Give a temporary file with the same object uncompressed, or None where dcmtk cannot."""
    program = _program()
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="wardround-dcmtk-") as folder:
        target = Path(folder) / "uncompressed.dcm"
        yield target if _run([program, str(path), str(target)]) and target.is_file() else None


def _run(command: list[str]) -> bool:
    try:
        ended = subprocess.run(  # noqa: S603 - a program of the system, on a path of ours
            command,
            check=False,
            capture_output=True,
            timeout=_SECONDS,
            preexec_fn=_limit,
            env={"PATH": "/usr/bin:/bin", "DCMDICTPATH": "/usr/share/libdcmtk17/dicom.dic"},
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return ended.returncode == 0


def _limit() -> None:
    """Bound the child before it starts."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * LARGEST_BYTES, 2 * LARGEST_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
