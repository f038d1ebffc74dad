"""Short fixed runs of every rule, and the file their results are compared with.

python tests/server/golden.py        writes golden.json anew, after a change on purpose
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from server.rounds.run_rounds import RunRecords, run_rounds
from tests.server.hospitals import FakeSites, config_of, start

FILE = Path(__file__).with_name("golden.json")
RUNS = {
    "mean": "rule: mean",
    "mean, public weights": "rule: mean, weights: {east: 3.0}, default_weight: 0.5",
    "fedavgm": "server: {kind: fedavgm, beta1: 0.5}",
    "fedadam": "server: {kind: fedadam, learning_rate: 0.1}",
    "fedyogi": "server: {kind: fedyogi, learning_rate: 0.1}",
    "scaffold": "rule: scaffold",
    "median": "rule: median",
    "trimmed_mean": "rule: trimmed_mean, trim_fraction: 0.25",
    "krum": "rule: krum",
    "multi_krum": "rule: multi_krum",
    "flower": "rule: flower, strategy: FedYogi, arguments: {eta: 0.1}",
}


def result_of(rule: str) -> dict[str, list[float]]:
    """Return the weights and scores of a run of four rounds."""
    config = config_of(f"aggregation: {{{rule}}}", training=", average: 0.5")
    aggregator, state = start(config)
    state = run_rounds(config, FakeSites(), aggregator, state, RunRecords())
    return {
        "weights": [float(v) for n in sorted(state.weights) for v in state.weights[n].flatten()],
        "average": [float(v) for n in sorted(state.average) for v in state.average[n].flatten()],
        "scores": [float("nan") if r.score is None else r.score for r in state.history],
    }


if __name__ == "__main__":
    results = {name: result_of(rule) for name, rule in RUNS.items()}
    FILE.write_text(json.dumps(results, indent=1) + "\n")
