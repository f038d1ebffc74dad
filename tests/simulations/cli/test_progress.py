from __future__ import annotations

import io
import time
from typing import cast

import pytest
from rich.console import Console

from common.config.run_config import RunConfig, parse_config
from server.rounds.run_rounds import RoundRecord
from simulations.cli.progress import LiveProgress
from simulations.comparison.arms import Arm

CONFIG = """
name: tiny
task: {kind: diagnosis, type: binary, target: malignant}
cohort: {images: {size: [32, 32], channels: 1}}
model: {network: small_cnn, width: 8}
training: {rounds: 7, local_steps: 2, batch_patients: 8}
privacy: none
"""


def shown(config: RunConfig, *, terminal: bool) -> list[str]:
    """Return what is printed while round 3 of the second arm goes on and nothing is told."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80)
    arms = cast("tuple[Arm, ...]", ("local", "federated"))
    record = RoundRecord.__new__(RoundRecord)
    object.__setattr__(record, "round", 3)
    object.__setattr__(record, "score", None)
    object.__setattr__(record, "left_out", {})
    with LiveProgress(console, config, arms, 2, every_seconds=0.01) as live:
        live.progress.kept("local", 0, 0)
        live.progress.arm("federated", 0, 0)
        live.progress.round("federated", record)
        for _ in range(500):
            if terminal or "round 3" in out.getvalue():
                break
            time.sleep(0.01)
    return out.getvalue().splitlines()


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is() -> None:
    lines = [line for line in shown(parse_config(CONFIG), terminal=False) if "min:" in line]
    assert lines
    assert lines[-1].endswith("1 of 4 arms done; federated, seed 0, round 3 of 7")


@pytest.mark.parametrize("terminal", [True])
def test_on_a_terminal_the_bar_says_it(terminal: bool) -> None:  # noqa: FBT001
    assert not any("min:" in line for line in shown(parse_config(CONFIG), terminal=terminal))
