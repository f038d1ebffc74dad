"""Rounds between real processes on loopback: what they cost in time, memory and bytes.

    python benchmarks/federation.py

The coordinator's service with its run, and sites, are started as their users start them. The
sites of the first rows are whole daemons with their workers; a step of theirs takes no time, so
a round is its way there and back: TLS, signatures, SQLite, and everything on disk before it is
sent. Beside it Flower as it comes, which does none of that, and the same rounds in one process.

The last rows are a model of 25 million parameters (100 MB) at four sites that answer noise, beside
Flower as it comes with as many nodes and parameters, and beside a floor that only encodes, hashes,
encrypts and writes (tls_floor.py). Processor time is the kernel's, of the round alone. Memory is
the kernel's high-water mark (VmHWM) of the service and of the run's process, each from
its size before the run's first round; the first weights are made after that, and are in it. The two
are added although they need not be reached at the same time. Files and what the kernel caches of
them are not in it, libraries that are loaded on the way are.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import stock_flower
from federation_processes import BIN, Federation, Processes, round_times, waited
from memory_growth import Growth, children
from processor_time import Spent
from row import Row, needs, shown, told
from tls_floor import floor_seconds

from client.cohort.loading import load_cohort
from client.cohort.split import simulated_key
from client.site.cache import Cache
from client.training.cohort_features import site_of
from common.config.run_config import RunConfig, parse_config
from common.models.run_network import initial_weights
from common.tasks import task_of
from server.aggregation.rules import aggregator_of
from server.rounds.run_rounds import RunRecords, begin, run_rounds
from simulations.engines.in_process import InProcessSites

COLUMNS = 10
ROUNDS, STOCK_ROUNDS = 10, 3
#: 25,047,501 parameters, in matrices of 6 MB.
LARGE = [1250] * 17
ENCODINGS = ("lossless", "float16", "int8")
CONFIG = """
name: federation-benchmark
task: {{kind: diagnosis, target: ill}}
cohort: {{table: {{numbers: [{columns}]}}}}
model: {{network: table, hidden: {hidden}}}
training: {{rounds: {rounds}, batch_patients: 8, optimizer: sgd, learning_rate: 0.01}}
aggregation: {{smallest_quorum: {quorum}}}
selection: {{rule: {rule}}}
exchange: {{encoding: {encoding}}}
privacy: none
personalisation: {{method: none}}
evaluation: {{bootstrap: 1}}
"""


def rows() -> list[Row]:
    """Print the rows as they come and return them."""
    needs({BIN / program: "flwr" for program in ("flower-superlink", "flower-supernode", "flwr")})
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (above 1, other work disturbs)")
    with tempfile.TemporaryDirectory(prefix="wardround-") as folder:
        return [*_small(Path(folder)), *_large(Path(folder))]


def text_of(rule: str, rounds: int, hidden: Sequence[int], quorum: int, encoding: str) -> str:
    """Return a run's configuration."""
    columns = ", ".join(f"{{column: c{number}}}" for number in range(COLUMNS))
    return CONFIG.format(
        columns=columns,
        hidden=list(hidden),
        rounds=rounds,
        rule=rule,
        quorum=quorum,
        encoding=encoding,
    )


# --- a small model, two sites ---------------------------------------------------------------


def _small(folder: Path) -> list[Row]:
    configs = {rule: text_of(rule, ROUNDS, [45], 2, "lossless") for rule in ("last", "best")}
    with Processes(folder / "small") as processes:
        federation = Federation(processes, ("north", "south"), COLUMNS)
        for site in federation.sites:
            federation.start_site(site)
        ours = {}
        for rule, text in configs.items():
            run = federation.start_run(text)
            ours[rule] = _between(round_times(run, ROUNDS))
            _until_done(run)
    floor = {rule: _in_process(folder / "small", text) for rule, text in configs.items()}
    stock = stock_flower.round_seconds(folder / "stock", STOCK_ROUNDS)
    parameters = sum(v.numel() for v in initial_weights(parse_config(configs["last"]), 0).values())
    told_of = f"two sites, {parameters:,} parameters"
    return [
        shown(_overhead("round, not validated (s)", ours["last"], floor["last"], told_of)),
        shown(_overhead("round, validated (s)", ours["best"], floor["best"], told_of)),
        shown(
            Row(
                name="round, not validated / Flower as it comes",
                relation="<=",
                goal=1.0,
                measured=statistics.median(ours["last"]) / statistics.median(stock),
                detail=f"Flower: {_spread(stock)}",
            )
        ),
    ]


def _overhead(name: str, ours: Sequence[float], floor: Sequence[float], detail: str) -> Row:
    fastest = f"{1e3 * statistics.median(floor):.0f} ms in one process"
    return Row(
        name=f"federation: {name}",
        measured=statistics.median(ours),
        relation="<=",
        goal=3.5,
        detail=f"{detail}; {_spread(ours)}; {fastest}",
    )


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f}"


def _between(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def _in_process(folder: Path, text: str) -> list[float]:
    """Return seconds of the same rounds in this process: the floor."""
    config: RunConfig = parse_config(text).in_force()
    cache = Cache(folder / "cache")
    sites = {
        name: site_of(
            load_cohort(folder / "data" / name, config, task_of(config.task), cache),
            config,
            simulated_key(0),
        )
        for name in ("north", "south")
    }
    aggregator = aggregator_of(config.aggregation, len(sites))
    seconds: list[float] = []
    records = RunRecords(observe=lambda record: seconds.append(record.seconds))
    state = begin(config, "benchmark", 0, aggregator)
    run_rounds(config, InProcessSites(sites, config, 0), aggregator, state, records)
    return seconds[1:]


# --- a large model, four sites --------------------------------------------------------------


def _large(folder: Path) -> list[Row]:
    texts = {encoding: text_of("last", 1, LARGE, 4, encoding) for encoding in ENCODINGS}
    weights = initial_weights(parse_config(texts["lossless"]), 0)
    model = 4 * sum(value.numel() for value in weights.values())
    found, seconds = [], dict[str, float]()
    with Processes(folder / "large") as processes:
        federation = Federation(processes, ("east", "north", "south", "west"), COLUMNS)
        run = federation.start_run(texts["lossless"])
        grown = _growth_before_sites(federation, run)
        program = Path(__file__).with_name("random_site.py")
        sites = [
            processes.start(site, [sys.executable, program, federation.home(site)]).pid
            for site in federation.sites
        ]
        for encoding, text in texts.items():
            if encoding != "lossless":
                run = federation.start_run(text)
            _until_training(run)
            spending = _Spending((federation.service.pid, grown[1].pid, *sites))
            started = time.perf_counter()
            (ended,) = round_times(run, 1)
            seconds[encoding] = ended - started
            if encoding == "lossless":
                found += [*spending.rows(), _memory(grown, model)]
            found.append(_seconds(run, encoding, seconds[encoding]))
            _until_done(run)
    return [*found, *_beside(folder, weights, seconds["lossless"])]


@dataclass(frozen=True)
class _Spending:
    """What the processes of a round spend: the service, the run and the sites."""

    pids: tuple[int, ...]
    before: list[Spent] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "before", [Spent.by(pid) for pid in self.pids])

    def rows(self) -> list[Row]:
        spent = [
            Spent.by(pid).since(before) for pid, before in zip(self.pids, self.before, strict=True)
        ]
        service, run, *sites = spent
        total = sum(one.seconds for one in spent)
        of_sites = sum(one.seconds for one in sites)
        return [
            shown(
                Row(
                    name="a 100 MB update of 4 sites: processor time of all (s)",
                    measured=total,
                    relation="<=",
                    goal=16.0,
                    detail=f"service {service.seconds:.1f} s, run {run.seconds:.1f} s, 4 sites "
                    f"{of_sites:.1f} s",
                )
            ),
            shown(
                Row(
                    name="a 100 MB update of 4 sites: processor time of the service (s)",
                    measured=service.seconds,
                    relation="<=",
                    goal=6.0,
                    detail=f"it wrote {service.written / 1e6:.0f} MB to disk, the run "
                    f"{run.written / 1e6:.0f} MB, each site "
                    f"{sum(one.written for one in sites) / 4e6:.0f} MB",
                )
            ),
        ]


def _beside(folder: Path, weights: Mapping[str, torch.Tensor], ours: float) -> list[Row]:
    """Return the same round on Flower as it comes, and the floor of it."""
    count = sum(value.numel() for value in weights.values())
    stock = stock_flower.round_seconds(folder / "stock-large", 2, nodes=4, parameters=count)
    floor, used = floor_seconds(folder, weights, 4)
    return [
        shown(
            Row(
                name="a 100 MB update of 4 sites / Flower as it comes",
                measured=ours / statistics.median(stock),
                relation="<=",
                goal=0.75,
                detail=f"ours {ours:.1f} s; Flower: {_spread(stock)}, not encrypted, not on disk",
            )
        ),
        shown(
            Row(
                name="a 100 MB update of 4 sites / its floor",
                measured=ours / floor,
                relation="<=",
                goal=2.0,
                detail=f"{floor:.1f} s and {used:.1f} s of processor time for TLS, codec, a hash "
                "and an fsync at each end",
            )
        ),
    ]


def _growth_before_sites(federation: Federation, run: Path) -> tuple[Growth, Growth]:
    """Begin to count when the run waits for its sites, with its first weights in memory."""
    waited("The run's beginning", lambda: _phase(run) == "approval" or None)
    time.sleep(1)
    (process,) = children(federation.service.pid)
    return Growth.of(federation.service.pid), Growth.of(process)


def _memory(grown: tuple[Growth, Growth], model: int) -> Row:
    service, run = (one.most() for one in grown)
    return shown(
        Row(
            name="a 100 MB update of 4 sites: memory (models)",
            measured=(service + run) / model,
            relation="<=",
            goal=3.0,
            detail=f"service {service / 1e6:.0f} MB + run {run / 1e6:.0f} MB, a model is "
            f"{model / 1e6:.0f} MB",
        )
    )


def _seconds(run: Path, encoding: str, seconds: float) -> Row:
    sent, received = json.loads((run / "status.json").read_bytes())["bytes_by_round"][1]
    return shown(
        Row(
            name=f"a 100 MB update of 4 sites, {encoding} (s)",
            measured=seconds,
            detail=f"each site gets {sent / 4e6:.1f} MB and sends {received / 4e6:.1f} MB",
        )
    )


def _phase(run: Path) -> str | None:
    status = run / "status.json"
    return str(json.loads(status.read_bytes())["phase"]) if status.exists() else None


def _until_training(run: Path) -> None:
    waited("The first round", lambda: _phase(run) == "training" or None)


def _until_done(run: Path) -> None:
    def done() -> bool | None:
        return json.loads((run / "run.json").read_bytes())["state"] == "done" or None

    waited("The run's end", done)


if __name__ == "__main__":
    told(rows)
