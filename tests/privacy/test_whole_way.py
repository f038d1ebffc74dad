"""From the folder of files to the un-noised sum and the counts: one patient more, hostile or not.

MANY_COHORTS=1000 python -m pytest tests/privacy/test_whole_way.py tries as many hospitals of each
run as it says, all runs together; the suite tries fewer.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.privacy.two_worlds import RUNS, SHIPPED_PRIVATE, check_random

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

#: Hospitals of all runs together.
_COHORTS = int(os.environ.get("MANY_COHORTS", "88"))


@pytest.mark.parametrize("run", RUNS)
def test_one_patient_moves_nobody_else_and_the_sum_by_the_clip_norm(
    run: str, tmp_path: Path
) -> None:
    for seed in range(-(-_COHORTS // len(RUNS))):
        check_random(run, seed, tmp_path / str(seed))


def test_every_shipped_private_run_is_tried() -> None:
    assert set(SHIPPED_PRIVATE) == {"breast-us-diagnosis", "breast-us-findings", "demo"}
