"""Memory and time of a step whose blocks are computed again (`model.checkpoint`), against without.

    python benchmarks/recompute_memory.py

DenseNet-121 on eight images of 224 pixels, one thread: what the step needs beyond the process at
its start.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from row import Row, peak_mb, shown, told

from client.training.local_model import open_local_model
from common.config.run_config import RunConfig, parse_config

SIDE, IMAGES = 224, 8


def _config(checkpoint: str) -> RunConfig:
    return parse_config(f"""
name: recomputed
task: {{kind: diagnosis, target: ill}}
cohort: {{images: {{size: [{SIDE}, {SIDE}]}}}}
model: {{network: densenet121, checkpoint: {checkpoint}}}
training: {{rounds: 1}}
privacy: none
""")


def rows() -> list[Row]:
    """Measure and return the row."""
    found: dict[str, tuple[float, float]] = {}
    for checkpoint in ("false", "true"):
        ended = subprocess.run(
            [sys.executable, __file__, "--arm", checkpoint],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found[checkpoint] = tuple(json.loads(ended.stdout.splitlines()[-1]))
    (whole, seconds), (saved, longer) = found["false"], found["true"]
    detail = f"{saved:,.0f} of {whole:,.0f} MB, {longer / seconds:.2f} times the seconds"
    name = "a step with blocks computed again, memory against without"
    return [shown(Row(name=name, measured=saved / whole, relation="<=", goal=0.7, detail=detail))]


def _arm(checkpoint: str) -> None:
    torch.set_num_threads(1)
    model = open_local_model(_config(checkpoint), 0).model
    image = torch.rand(IMAGES, 1, SIDE, SIDE)
    before, start = peak_mb(), time.perf_counter()
    model(image, torch.zeros(IMAGES, 0)).square().mean().backward()
    print(json.dumps([peak_mb() - before, time.perf_counter() - start]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--arm"]:
        _arm(sys.argv[2])
    else:
        told(rows)
