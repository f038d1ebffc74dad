"""A benchmark on a machine without its peer says what it needs, and the others go on."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.slow


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where rows go, on a machine that has no program of others."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("WARDROUND_BENCHMARK_ROWS", str(tmp_path / "rows.json"))
    monkeypatch.setattr(shutil, "which", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    return tmp_path / "rows.json"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pull", "orthanc orthanc-dicomweb gcc libc6-dev"),
        ("federation", "flwr"),
        ("ray_engine", "the Python package ray"),
        ("gpu_step", "a GPU"),
        ("patch_segmentation", "a folder of one of"),
    ],
)
def test_a_benchmark_says_what_it_needs(
    told: Path, name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, row = importlib.import_module(name), importlib.import_module("row")
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py"])
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    row.told(script.rows)
    (found,) = json.loads(told.read_text())
    assert found["name"] == name
    assert found["detail"].startswith(f"not measured: needs {what}")


def test_the_table_goes_on_without_a_package(tmp_path: Path) -> None:
    for name in ("run", "row"):
        shutil.copy(BENCHMARKS / f"{name}.py", tmp_path)
    (tmp_path / "pull.py").write_text("import no_such_package_here\n")
    (tmp_path / "rounds.py").write_text("import client.no_such_module\n")
    (tmp_path / "reading.py").write_text(
        "from row import Row, told\ntold(lambda: [Row(name='read', measured=2.0)])\n"
    )
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), "pull", "rounds", "reading"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "not measured: needs the Python package no_such_package_here" in ended.stdout
    assert "no_such_package_here" not in ended.stderr
    # A module of our own that is not there is a fault, and keeps its traceback.
    assert "client.no_such_module" in ended.stderr
    assert "Not run: rounds" in ended.stdout
    assert "2.000" in ended.stdout
