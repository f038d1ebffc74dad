"""The rounds of rounds.py on Flower's Ray engine, for the table of run.py.

    python benchmarks/ray_engine.py

The same sites, configuration and steps on `simulations/engines/flower_ray.py`, with one Ray process
for each core, and the command's first round with `--engine ray`. Nothing is measured without Ray.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from rounds import CONFIG, first_round_seconds, one_round_of, sites_of
from row import NotMeasured, Row, told

from common.config.run_config import parse_config

ROUNDS = 5


def rows() -> list[Row]:
    """Return what Ray takes, as a column beside the rows of rounds.py."""
    if importlib.util.find_spec("ray") is None:
        message = "the Python package ray"
        raise NotMeasured(message)
    torch.set_num_threads(1)
    found = [_beside(f"round / bare loop, {count} sites", _round(count)) for count in (8, 32)]
    with tempfile.TemporaryDirectory(prefix="wardround-") as folder:
        seconds, _ = first_round_seconds(
            "configs/simulations/demo.yaml", Path(folder), "--engine", "ray"
        )
    return [*found, _beside("first round, nothing cached (s)", f"{seconds:.1f} s")]


def _beside(name: str, ray: str) -> Row:
    print(f"{name:44} {ray}", flush=True)
    return Row(name=name, measured=float("nan"), ray=ray)


def _round(count: int) -> str:
    """Return the median seconds of a round on Ray, the first left out."""
    from simulations.engines.flower_ray import RaySites

    config = parse_config(CONFIG)
    with RaySites(sites_of(count), config, 0, None) as sites:
        one_round = one_round_of(config, sites)
        one_round()
        seconds = statistics.median(one_round() for _ in range(ROUNDS))
    return f"{1e3 * seconds:.0f} ms a round"


if __name__ == "__main__":
    told(rows)
