from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = """
name: tiny
task: {kind: diagnosis, type: binary, target: malignant}
cohort: {images: {size: [32, 32], channels: 1}}
model: {network: small_cnn, width: 8}
training: {rounds: 400, local_steps: 20, batch_patients: 8}
evaluation: {bootstrap: 20}
privacy: none
synthetic: {modality: xray, patients: 48, seed: 0}
"""


def below(root: int) -> dict[int, str]:
    """Return the processes that descend from one, and their command lines."""
    parents, commands = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            commands[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: commands[pid] for pid in found if pid in commands}


@pytest.mark.slow
def test_a_process_of_rays_that_dies_ends_in_one_sentence_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    with (tmp_path / "said").open("w") as said:
        command = subprocess.Popen(
            [sys.executable, "-c", "from simulations.cli import main; main()", "compare",
             str(tmp_path / "tiny.yaml"), "--arms", "federated", "--engine", "ray", "--workers",
             "2", "--out", str(tmp_path / "out")],
            cwd=ROOT, stdout=said, stderr=said,
        )  # fmt: skip
        try:
            actor = None
            for _ in range(1200):
                working = [p for p, c in below(command.pid).items() if "ClientAppActor.run" in c]
                if working:
                    actor = working[0]
                    break
                time.sleep(0.1)
            assert actor is not None, (tmp_path / "said").read_text()
            time.sleep(2)
            os.kill(actor, signal.SIGKILL)
            assert command.wait(120) == 1
        finally:
            for pid in below(command.pid):
                if command.poll() is None:
                    os.kill(pid, signal.SIGKILL)
            command.wait()
    text = (tmp_path / "said").read_text()
    assert "Traceback" not in text
    assert text.count("Error: A process of Ray's ended in the middle of a site's work") == 1
    assert "--engine builtin" in text
