"""A site with nothing to do: its daemon's memory, and what waking its worker costs.

    python benchmarks/idle_site.py

Two sites and the coordinator's service, started as their users start them. A daemon's memory is
what the kernel counts for its process (VmRSS) and its peak (VmHWM), connected, with its worker
ended. The wait is what a round takes longer when every request finds no worker, because that ends
as soon as it is idle: two requests a round, training and evaluation.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from federation import COLUMNS, text_of
from federation_processes import Federation, Processes, round_times, waited
from memory_growth import children, resident, resident_peak
from row import Row, shown, told

ROUNDS = 4
#: Minutes after which a worker ends: at once, or never within this benchmark.
AT_ONCE, NEVER = "0.0001", "null"


def rows() -> list[Row]:
    """Print the rows as they come and return them."""
    with (
        tempfile.TemporaryDirectory(prefix="wardround-") as folder,
        Processes(Path(folder)) as processes,
    ):
        federation = Federation(processes, ("north", "south"), COLUMNS)
        daemons = [federation.start_site(site) for site in federation.sites]
        warm = _round_seconds(federation, NEVER)
        cold = _round_seconds(federation, AT_ONCE)
        waited("The workers' end", lambda: not any(children(d.pid) for d in daemons) or None)
        return [_memory([d.pid for d in daemons]), _wait(warm, cold)]


def _round_seconds(federation: Federation, idle_minutes: str) -> list[float]:
    for site in federation.sites:
        settings = federation.home(site) / "site.yaml"
        lines = settings.read_text().splitlines(keepends=True)
        own = f"worker_idle_minutes: {idle_minutes}\n"
        text = "".join(own if line.startswith("worker_idle_minutes") else line for line in lines)
        settings.write_text(text)
    run = federation.start_run(text_of("best", ROUNDS, [45], 2, "lossless"))
    times = round_times(run, ROUNDS)
    waited("The run's end", lambda: "done" in (run / "run.json").read_text() or None)
    return [after - before for before, after in pairwise(times)]


def _memory(pids: Sequence[int]) -> Row:
    most = max(pids, key=resident)
    return shown(
        Row(
            name="idle site: its daemon's memory (MB)",
            measured=resident(most) / 1e6,
            relation="<=",
            goal=100.0,
            detail=f"the larger of two; peak {resident_peak(most) / 1e6:.0f} MB; no worker",
        )
    )


def _wait(warm: Sequence[float], cold: Sequence[float]) -> Row:
    before, after = statistics.median(warm), statistics.median(cold)
    return shown(
        Row(
            name="idle site: an answer that wakes the worker (s)",
            measured=(after - before) / 2,
            relation="<=",
            goal=5.0,
            detail=f"later than warm; a round of two such {after:.1f} s, warm {before:.2f} s",
        )
    )


if __name__ == "__main__":
    told(rows)
