"""What each further site costs the coordinator's service: at rest, and in a round of small updates.

    python benchmarks/growth.py [SITES_AT_REST]

Sites are daemons, a process each, that answer noise at once (light_sites.py). Costs are processor
time of the service as the kernel counts it, so that other work on the machine counts for little;
the seconds that a request takes to a site at rest do not have that advantage.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from federation import COLUMNS, text_of
from federation_processes import Federation, Processes, round_times, waited
from memory_growth import resident
from processor_time import Spent
from random_site import ARRIVALS
from row import Row, shown, told

FEW, MANY, AT_REST = 10, 50, 200
ROUNDS = 4
#: A network of 66 values: five hidden units on ten columns.
HIDDEN = [5]
_SETTLE_SECONDS, _REST_SECONDS = 25.0, 40.0


def rows() -> list[Row]:
    """Print the rows as they come and return them."""
    at_rest = int(sys.argv[1]) if len(sys.argv) > 1 else AT_REST
    with tempfile.TemporaryDirectory(prefix="wardround-") as folder:
        return [*_in_rounds(Path(folder)), _at_rest(Path(folder), at_rest)]


def _in_rounds(folder: Path) -> list[Row]:
    few, _ = _rounds(folder / "few", FEW)
    many, arrivals = _rounds(folder / "many", MANY)
    return [
        shown(
            Row(
                name=f"growth: a round of 66 values at {MANY} sites, service (s)",
                measured=many,
                relation="<=",
                goal=5.0,
                detail=f"processor time; {1e3 * many / MANY:.0f} ms a site",
            )
        ),
        shown(
            Row(
                name=f"growth: a site's share of it at {MANY} sites / at {FEW}",
                measured=(many / MANY) / (few / FEW),
                relation="<=",
                goal=1.2,
                detail=f"{1e3 * few / FEW:.0f} ms a site at {FEW}",
            )
        ),
        shown(
            Row(
                name="growth: a request to a site at rest (s)",
                measured=statistics.median(arrivals),
                relation="<=",
                goal=0.2,
                detail=f"median of {len(arrivals)}, most {max(arrivals):.2f} s",
            )
        ),
    ]


def _at_rest(folder: Path, sites: int) -> Row:
    share, memory = _rest(folder / "rest", sites)
    return shown(
        Row(
            name=f"growth: {sites} sites at rest, share of a core (%)",
            measured=100 * share,
            relation="<=",
            goal=10.0,
            detail=f"the service has {memory / 1e6:.0f} MB",
        )
    )


def _rounds(folder: Path, sites: int) -> tuple[float, list[float]]:
    """Return the service's seconds of a round, and how long first requests took."""
    with Processes(folder) as processes:
        federation = _federation(processes, sites)
        time.sleep(5)
        run = federation.start_run(text_of("last", ROUNDS, HIDDEN, sites, "lossless"))
        spent: list[Spent] = []
        for number in range(1, ROUNDS + 1):
            round_times(run, number)
            spent.append(Spent.by(federation.service.pid))
        first = [
            float((federation.home(site) / ARRIVALS).read_text().split()[0])
            for site in federation.sites
        ]
    return statistics.median(b.since(a).seconds for a, b in pairwise(spent)), first


def _rest(folder: Path, sites: int) -> tuple[float, int]:
    """Return the share of a core that the service takes with nothing to do, and its memory."""
    with Processes(folder) as processes:
        federation = _federation(processes, sites)
        time.sleep(_SETTLE_SECONDS)
        before, start = Spent.by(federation.service.pid), time.perf_counter()
        time.sleep(_REST_SECONDS)
        spent = Spent.by(federation.service.pid).since(before)
        return spent.seconds / (time.perf_counter() - start), resident(federation.service.pid)


def _federation(processes: Processes, sites: int) -> Federation:
    names = [f"s{number:03d}" for number in range(sites)]
    federation = Federation(processes, names[:1], COLUMNS)
    federation.join_light(names[1:])
    program = Path(__file__).with_name("light_sites.py")
    homes: Sequence[Path] = [federation.home(name) for name in names]
    processes.start("sites", [sys.executable, program, *homes])
    waited("All sites", lambda: federation.online() == sites or None, 300.0)
    return federation


if __name__ == "__main__":
    told(rows)
