"""The example extension, built and installed into folders of their own, and what tests change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.extensions.hashed_imports import HELD

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


def written(folder: Path, name: str, code: str, points: Mapping[str, Sequence[str]]) -> Path:
    """Write a distribution of one module as pip would leave it; `points` are attributes by kind."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-1.0.0.dist-info"
    groups = [
        f"[wardround.{kind}]\n" + "".join(f"{one} = {module}:{one}\n" for one in names)
        for kind, names in points.items()
    ]
    files = {
        f"{module}/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n",
        f"{info}/entry_points.txt": "\n".join(groups),
    }
    files[f"{info}/RECORD"] = "".join(f"{place},,\n" for place in [*files, f"{info}/RECORD"])
    for place, text in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
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
        own = {module for one in HELD.values() for module in one.modules}
        HELD.clear()
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]
        below = str(folder) + os.sep
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(below):
                del sys.modules[name]
