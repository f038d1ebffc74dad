"""Streamed aggregation of 32 updates of 11 million parameters against a copy in memory.

    python benchmarks/aggregation.py

Two bars. Speed: a model is added in at most 1 / 0.6 of the time of copying it, though adding
reads twice and writes once where copying reads and writes once. Memory: a whole round, with
admission and the step of the server, grows by two models at most: the sum and one update.
Admission reads every update once more; its cost is shown beside.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from row import Row, shown, told

from common.config.run_config import Aggregation, RunConfig, parse_config
from common.data.weights import Weights
from common.messages.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate, TrainRequest
from server.aggregation.rules import aggregator_of
from server.rounds.run_rounds import train_round
from server.rounds.run_state import RunState
from server.rounds.update_admission import admit

SITES = 32
#: Shapes like ResNet-18's: 11.0 million parameters, none larger than 2.4 million.
SHAPES = [(512, 512, 3, 3)] * 3 + [(256, 256, 3, 3)] * 5 + [(128, 128, 3, 3)] * 6 + [(64,)] * 30
REPEATS = 7
CONFIG = """
name: aggregation-benchmark
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}]}}
model: {network: table}
training: {rounds: 1}
privacy: none
"""


def rows() -> list[Row]:
    """Measure and return the rows."""
    torch.set_num_threads(1)
    megabytes = 4e-6 * sum(int(np.prod(shape)) for shape in SHAPES)
    copy, add, whole = _seconds()
    models = _memory_models()
    size = f"{SITES} updates of {megabytes:.0f} MB; a copy runs at {megabytes / copy:.0f} MB/s"
    return [
        shown(
            Row(
                name="adding / copying bandwidth",
                measured=copy / add,
                relation=">=",
                goal=0.6,
                detail=size,
            )
        ),
        shown(Row(name="the same with admission", measured=copy / whole)),
        shown(
            Row(
                name="models in memory during a round",
                measured=models,
                relation="<=",
                goal=2.1,
                detail="two, and the request's small parts",
            )
        ),
    ]


def model(value: float) -> dict[str, torch.Tensor]:
    """Return weights of the benchmark's shapes, all of one value."""
    return {f"layer{n}": torch.full(shape, value) for n, shape in enumerate(SHAPES)}


def _request(weights: Weights) -> TrainRequest:
    return TrainRequest(run="b", round=1, seed=0, config=_config(), weights=weights)


def _config() -> RunConfig:
    return parse_config(CONFIG)


def _update(site: str, delta: Weights) -> SiteUpdate:
    return SiteUpdate(run="b", round=1, site=site, delta=delta, steps=1)


def _seconds() -> tuple[float, float, float]:
    """Return the best seconds a model of copying, of adding, and of admitting and adding."""
    weights, delta = model(0.0), model(1e-3)
    target = model(0.0)
    names = [f"s{n:02d}" for n in range(SITES)]
    aggregator = aggregator_of(Aggregation(), SITES)
    gathering = aggregator.begin(weights)
    updates = [_update(name, delta) for name in names]

    def copy() -> None:
        for _ in updates:
            for name, value in delta.items():
                np.copyto(target[name].numpy(), value.numpy())

    def add() -> None:
        for update in updates:
            aggregator.add(gathering, update)

    def admit_and_add() -> None:
        for answer in admit(iter(updates), _request(weights), names):
            if isinstance(answer, SiteUpdate):
                aggregator.add(gathering, answer)

    best = [float("inf")] * 3
    for _ in range(REPEATS):  # in turn, so that a busy machine slows all three
        best = [
            min(seconds, _time(step))
            for seconds, step in zip(best, (copy, add, admit_and_add), strict=True)
        ]
    copied, added, both = (seconds / SITES for seconds in best)
    return copied, added, both


def _time(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _memory_models() -> float:
    """Return the growth of a fresh process's peak memory in a round, in models."""
    answer = subprocess.run(
        [sys.executable, __file__, "memory"], check=True, capture_output=True, text=True
    )
    return float(answer.stdout)


class _Made:
    """Sites whose updates are made when they are asked for, as real ones are."""

    def available(self) -> tuple[str, ...]:
        return tuple(f"s{n:02d}" for n in range(SITES))

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        del request
        for site in sites:
            yield _update(site, model(1e-3))

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal]:
        del request, sites
        yield from ()


def _print_memory() -> None:
    torch.set_num_threads(1)
    weights = model(0.0)
    config = _config()
    aggregator = aggregator_of(config.aggregation, SITES)
    state = RunState(
        run="b",
        round=0,
        seed=0,
        fingerprint=config.fingerprint(),
        weights=weights,
        server=aggregator.init(weights),
        average={},
        best={},
    )
    tiny = model(0.0)  # so that the first use of memory is not counted
    del tiny
    before = _peak_bytes(reset=True)
    train_round(config, _Made(), aggregator, state)
    size = sum(value.nbytes for value in weights.values())
    print((_peak_bytes(reset=False) - before) / size)


def _peak_bytes(*, reset: bool) -> int:
    """Return the peak resident memory of this process; Linux can forget the peak so far."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    field = "VmRSS:" if reset else "VmHWM:"
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    if sys.argv[1:] == ["memory"]:
        _print_memory()
    else:
        told(rows)
