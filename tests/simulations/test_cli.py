from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = "configs/simulations/demo.yaml"
COMMAND = "import sys; from simulations.cli import main; main()"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["compare", "configs/simulations/dem.yaml"], 2, "Did you mean configs/simulations/demo"),
        (["compare", DEMO, "--arms", "federted"], 2, "federted"),
        (["compare", DEMO, "--epsilon", "-1"], 2, "above 0"),
        (["compare", DEMO, "--data", "nowhere"], 3, "no folder nowhere"),
        (["compare", "configs/simulations/tcga-brca.yaml"], 2, "--data"),
        (["compare", DEMO, "--out", "/proc/nowhere"], 1, "/proc/nowhere"),
        (["compare", DEMO, "--sedes", "1"], 2, "--sedes"),
    ],
)
def test_what_a_user_can_mend_is_one_message_and_its_status(
    words: list[str], status: int, said: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, *words], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == status, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
