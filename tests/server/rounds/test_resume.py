from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "crashing_run.py"
FEDADAM = "aggregation: {server: {kind: fedadam, learning_rate: 0.1}}"
SCAFFOLD = "aggregation: {rule: scaffold}"
FLOWER = "aggregation: {rule: flower, strategy: FedAvgM, arguments: {server_momentum: 0.9}}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("configuration", "stride", "least"), [(FEDADAM, 1, 65), (SCAFFOLD, 7, 15), (FLOWER, 13, 4)]
)
def test_a_run_killed_anywhere_resumes_to_the_same_bits_journal_and_files(
    tmp_path: Path, configuration: str, stride: int, least: int
) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(stride), configuration],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["killed"] >= least
    assert found["expected"]["lines"] == {"1": 1, "2": 1, "3": 1}
    assert found["expected"]["bits"] == found["expected"]["read back"]
