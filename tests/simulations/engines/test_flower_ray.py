from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: Ray gives its processes the niceness 15: beside three other tests they would get no time.
SAME_NICENESS = {"RAY_worker_niceness": "0"}
CONFIG = """
name: tiny
task: {kind: diagnosis, type: binary, target: malignant}
cohort: {images: {size: [32, 32], channels: 1}}
model: {network: small_cnn, width: 8}
training: {rounds: 2, local_steps: 2, batch_patients: 8}
evaluation: {bootstrap: 20}
privacy: {unit: patient, epsilon: 3.0, default_patients: 20}
synthetic: {modality: xray, patients: 48, seed: 0}
"""


RUNS = ("what sites keep, from files", "private", "failing")


@pytest.fixture(scope="module")
def said() -> str:
    """Return what one process says of all runs: each starts Ray anew, torch is loaded once."""
    command = [sys.executable, "-u", "tests/simulations/ray_run.py", *RUNS]
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | SAME_NICENESS,
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )
    except subprocess.TimeoutExpired as late:
        return f"ended after 800 s, having said {late.stdout!r}"
    return ended.stdout + ended.stderr[-3000:]


# Eight processes load torch for these: minutes where others want the processors, too.
@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_a_run_on_ray_is_the_run_of_one_process(said: str, run: str) -> None:
    assert f"{run}: as in one process\n" in said, said


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_the_command_gives_the_same_results_on_ray_and_says_nothing_of_flower(
    tmp_path: Path,
) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    found = []
    for engine, workers in (("builtin", "1"), ("ray", "2")):
        ended = subprocess.run(
            [
                sys.executable,
                "-c",
                "from simulations.cli.app import main; main()",
                "compare",
                str(tmp_path / "tiny.yaml"),
                "--arms",
                "federated_dp",
                "--engine",
                engine,
                "--workers",
                workers,
                "--out",
                str(tmp_path / engine),
            ],
            cwd=ROOT,
            env=os.environ | SAME_NICENESS,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        said = (ended.stdout + ended.stderr).lower()
        assert "flower" not in said
        assert "warning" not in said
        results = json.loads((tmp_path / engine / "results.json").read_text())
        del results["timing"]
        found.append(results)
    assert found[0] == found[1]
