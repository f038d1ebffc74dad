from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulations.engines.test_flower_ray import SAME_NICENESS

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
from simulations.engines import flower_ray_site
from simulations.cli.app import main

alive = flower_ray_site._train

def dying(asked, *others):
    if from_record(asked.content).round == 2:
        HOW
    return alive(asked, *others)

flower_ray_site._train = dying
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "Error: A process of Ray's ended in the middle of a site's work",
        ),
        ("raise ZeroDivisionError('by design')", "failed on Ray: ZeroDivisionError: by design"),
    ],
)
def test_what_fails_on_ray_ends_in_one_sentence_with_its_cause_and_a_remedy(
    tmp_path: Path, how: str, sentence: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    command = subprocess.run(
        [
            sys.executable,
            "-c",
            DYING.replace("HOW", how),
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
        env=os.environ | SAME_NICENESS,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    said = command.stdout + command.stderr
    assert command.returncode == 1, said
    assert "Traceback" not in said
    assert " ".join(said.split()).count(sentence) == 1, said
    assert "--engine builtin" in said
