"""The example extension, built and installed into folders of their own, and what tests change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.extensions import loading

EXAMPLE = Path(__file__).parents[1] / "docs" / "extension-example"
MODULE = "example_nets"


def built(folder: Path) -> Path:
    """Build the example's wheel, from a copy, with what is installed here."""
    source = folder / "source"
    shutil.copytree(EXAMPLE, source)
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel into a folder that goes on Python's path; returns the folder."""
    pip("install", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


def pip(*words: str) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, *quiet], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Let Python find a folder's distributions, and forget afterwards what it loaded of them."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        loading._LOADED.clear()
        for name in [n for n in sys.modules if n.partition(".")[0] == MODULE]:
            del sys.modules[name]
