from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CONFIG = """
name: tiny
task: {kind: diagnosis, type: binary, target: malignant}
cohort: {images: {size: [32, 32], channels: 1}}
model: {network: small_cnn, width: 8}
training: {rounds: 6, local_steps: 2, batch_patients: 8}
evaluation: {bootstrap: 20}
privacy: none
synthetic: {modality: xray, patients: 48, seed: 0}
"""
#: The command, with a site whose process dies at its third round's work, as for want of memory.
#: What stands in `__main__` travels to Ray's processes by value.
DYING = """
import os, signal
from common.messages.flower_records import from_record
from simulations import flower_ray_site
from simulations.cli.app import main

alive = flower_ray_site._train

def dying(asked, site, context, run):
    if from_record(asked.content).round == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return alive(asked, site, context, run)

flower_ray_site._train = dying
main()
"""


@pytest.mark.slow
def test_a_process_of_rays_that_dies_ends_in_one_sentence_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    command = subprocess.run(
        [
            sys.executable,
            "-c",
            DYING,
            "compare",
            str(tmp_path / "tiny.yaml"),
            "--arms",
            "federated",
            "--engine",
            "ray",
            "--workers",
            "2",
            "--out",
            str(tmp_path / "out"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = command.stdout + command.stderr
    assert command.returncode == 1, said
    assert "Traceback" not in said
    assert said.count("Error: A process of Ray's ended in the middle of a site's work") == 1
    assert "--engine builtin" in said
