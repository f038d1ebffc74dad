from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from common.platform.code_hash import RELEASE, bundle, bundle_hash

ROOT = Path(__file__).parents[3]


def _hash_of(folder: Path) -> str:
    """Return what a process prints that imports our packages from a folder."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from common.platform.code_hash import bundle_hash; print(bundle_hash())",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in ("client", "common", "server"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    return tmp_path


def test_the_bundle_holds_no_code() -> None:
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        assert sorted(archive.namelist()) == ["MANIFEST", "README.md", "pyproject.toml"]
        assert f'version = "{RELEASE}"' in archive.read("pyproject.toml").decode()
        listed = archive.read("MANIFEST").decode()
    wire = (ROOT / "common/messages/wire.py").read_bytes()
    assert f"{hashlib.sha256(wire).hexdigest()}  " in listed
    assert "common/messages/wire.py" in listed
    assert str(ROOT) not in listed


def test_the_hash_is_of_the_bytes_and_quick() -> None:
    assert bundle_hash() == hashlib.sha256(bundle()).hexdigest()
    start = time.perf_counter()
    bundle()
    assert time.perf_counter() - start < 0.001  # made once a process


@pytest.mark.processes
def test_the_same_code_elsewhere_has_the_same_hash_and_other_code_has_not(copy: Path) -> None:
    same = _hash_of(copy)
    (copy / "client" / "notes.txt").write_text("no code", encoding="utf-8")
    for path in copy.rglob("*.py"):
        os.utime(path, (1, 1))
    assert _hash_of(copy) == same
    changed = {same}
    for name in (
        "client/training/local_round.py",
        "common/privacy/noise.py",
        "server/rounds/run_rounds.py",
    ):
        with (copy / name).open("a", encoding="utf-8") as file:
            file.write("# one more line\n")
        changed.add(_hash_of(copy))
    (copy / "client" / "another.py").touch()
    changed.add(_hash_of(copy))
    (copy / "server" / "rounds" / "run_rounds.py").rename(
        copy / "server" / "rounds" / "run_rounds2.py"
    )
    changed.add(_hash_of(copy))
    assert len(changed) == 6
