"""Cost of a simulated round beside its training, shared by workers, and of the first one.

    python benchmarks/rounds.py

A network of 98 thousand parameters, one thread a process. "Round" is all of a round without
validation: requests, local steps, admission, aggregation; nothing is saved. "Bare loop" takes
the same steps on the same batches in plain PyTorch. Both are timed in turns and the ratio is
the median over the turns; its quartiles say how far the machine's other work disturbed it.
The first round is shown with processor time beside, in brackets: what an idle machine would
take at least.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from row import Row, shown, told

from client.training.training_site import Site
from common.config.run_config import RunConfig, parse_config
from common.data.sample import Patients
from server.aggregation.rules import aggregator_of
from server.rounds.run_rounds import Sites, begin, train_round
from simulations.comparison.bare_loop import bare_round_seconds
from simulations.engines.in_process import InProcessSites
from simulations.engines.workers import WorkerSites

TURNS = {8: 9, 32: 5}  # by number of sites
CONFIG = """
name: rounds-benchmark
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [32, 32]}}
model: {network: small_cnn, width: 16}
training: {rounds: 1000, local_steps: 5, batch_patients: 8, optimizer: sgd, learning_rate: 0.01}
selection: {rule: last}
privacy: none
"""
#: Runs the command in a process of its own and tells when each of its parts was done.
WATCHED = """
import json, os, sys, time
start = float(sys.argv.pop(1))
marks = []
def mark(name):
    marks.append((name, time.time() - start, time.process_time()))
import torch
mark("interpreter and torch")
from simulations.cli import compare as command
mark("our modules and theirs")
def marking(name, function):
    def marked(*arguments):
        found = function(*arguments)
        mark(name)
        return found
    return marked
def first_round(self, label, record):
    mark("splits, network and the first round")
    print(json.dumps(marks), flush=True)
    os._exit(0)
command.hospital_folders = marking("hospitals written", command.hospital_folders)
command.load_hospitals = marking("hospitals read", command.load_hospitals)
command.LiveProgress._round = first_round
from simulations.cli.app import main
main()
"""


def rows() -> list[Row]:
    """Print the rows as they come and return them."""
    torch.set_num_threads(1)
    load, _, _ = os.getloadavg()
    print(f"{os.cpu_count()} cores, load {load:.1f} (above 1, other work disturbs the figures)")
    return [
        *_first_rounds("configs/simulations/demo.yaml"),
        shown(_overhead(8)),
        shown(_overhead(32)),
        shown(_workers(8)),
        shown(_workers(32)),
    ]


def sites_of(count: int, patients: int = 40) -> dict[str, Site]:
    """Return sites of random images, one a patient."""
    sites = {}
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        known = Patients(
            image=torch.rand((patients, 1, 32, 32), generator=draw),
            table=torch.zeros(patients, 0),
            target=torch.randint(0, 2, (patients, 1), generator=draw).float(),
            patient=torch.arange(patients),
            pseudonyms=tuple(f"{number}-{n}" for n in range(patients)),
        )
        name = f"site{number:02d}"
        sites[name] = Site(name=name, train=known, validation=known, test=known)
    return sites


def _overhead(count: int) -> Row:
    config, sites = parse_config(CONFIG), sites_of(count)
    one_round = one_round_of(config, InProcessSites(sites, config, 0))
    ours, floor = _in_turns(
        lambda: statistics.median(one_round() for _ in range(3)),
        lambda: bare_round_seconds(sites, config),  # the median of three, too
        TURNS[count],
    )
    return _ratio(f"round / bare loop, {count} sites", ours, floor, 1.05)


def _workers(count: int) -> Row:
    config, sites = parse_config(CONFIG), sites_of(count)
    with WorkerSites(sites, config, 0, 2) as two, WorkerSites(sites, config, 0, 1) as one:
        ours, floor = _in_turns(one_round_of(config, two), one_round_of(config, one), TURNS[count])
    return _ratio(f"two workers / one, {count} sites", ours, floor, 0.6)


def one_round_of(config: RunConfig, sites: Sites) -> Callable[[], float]:
    """Return a function that trains the next round and returns its seconds."""
    aggregator = aggregator_of(config.aggregation, len(sites.available()))
    state = begin(config, "benchmark", 0, aggregator)

    def one_round() -> float:
        nonlocal state
        start = time.perf_counter()
        state = train_round(config, sites, aggregator, state)
        return time.perf_counter() - start

    return one_round


def _in_turns(
    ours: Callable[[], float], floor: Callable[[], float], turns: int
) -> tuple[list[float], list[float]]:
    """Return seconds of both, measured turn by turn so that a busy minute meets both."""
    ours(), floor()
    measured = [(ours(), floor()) if turn % 2 else (floor(), ours())[::-1] for turn in range(turns)]
    return [first for first, _ in measured], [second for _, second in measured]


def _ratio(name: str, ours: Sequence[float], floor: Sequence[float], goal: float) -> Row:
    ratios = np.array(ours) / np.array(floor)
    low, high = np.quantile(ratios, (0.25, 0.75))
    seconds = f"{statistics.median(ours) * 1e3:.1f} ms / {statistics.median(floor) * 1e3:.1f} ms"
    return Row(
        name=name,
        measured=float(np.median(ratios)),
        relation="<=",
        goal=goal,
        detail=f"quartiles {low:.3f} to {high:.3f}; {seconds}",
    )


def _first_rounds(config: str) -> list[Row]:
    """Return seconds from the command's start to its first round: all anew, and once more."""
    with tempfile.TemporaryDirectory(prefix="wardround-") as folder:
        return [
            shown(_started(f"first round, {kind} (s)", config, Path(folder)))
            for kind in ("nothing cached", "everything cached")
        ]


def _started(name: str, config: str, folder: Path) -> Row:
    seconds, detail = first_round_seconds(config, folder)
    return Row(name=name, measured=seconds, relation="<=", goal=3.0, detail=detail)


def first_round_seconds(config: str, folder: Path, *more: str) -> tuple[float, str]:
    """Return the seconds from the command's start to its first round, and where they went."""
    command = [sys.executable, "-c", WATCHED, repr(time.time()), "compare", config]
    done = subprocess.run(
        [*command, "--arms", "federated", "--out", str(folder), *more],
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
        text=True,
    )
    line = next(text for text in done.stdout.splitlines() if text.startswith("[["))
    marks: list[tuple[str, float, float]] = json.loads(line)
    parts, before = [], (0.0, 0.0)
    for what, wall, processor in marks:
        parts.append(f"{what} {wall - before[0]:.2f} ({processor - before[1]:.2f})")
        before = wall, processor
    return before[0], f"processor {before[1]:.2f}: {', '.join(parts)}"


if __name__ == "__main__":
    told(rows)
