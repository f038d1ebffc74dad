"""A site that answers random numbers, to measure a coordinator with large updates.

    python benchmarks/random_site.py HOME

It is the daemon itself (client/node/daemon.py); instead of its worker, this process writes an
answer of normal noise of the network's shapes, as a private update is, and says yes to every
proposal.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).parents[1]))

from client.node.daemon import _Daemon
from client.node.prometheus_metrics import SiteMeters
from client.node.worker import read_request
from client.node.worker_process import Finished, WorkerProcess
from client.site.home import Home
from client.site.site_config import load_site_config
from client.transport.fleet_client import PendingMessage
from client.transport.inbox import Inbox
from client.transport.outbox import Outbox
from common.messages.signed_envelope import seal
from common.messages.signing_key import load_private, sign
from common.messages.wire import (
    Answer,
    Proposal,
    Refusal,
    RefusalReason,
    Request,
    SiteUpdate,
    Standing,
    TrainRequest,
)

#: Where a site notes when requests came.
ARRIVALS = "arrivals"


class NoiseWorker(WorkerProcess):
    """Answers in this process, at once."""

    def __init__(self, home: Home, name: str, outbox: Outbox) -> None:
        super().__init__(home.folder, -1)
        self._key, self._name, self._outbox = load_private(home.key), name, outbox
        self._over: list[Finished] = []

    def start(self) -> None:
        """Be there already."""

    @property
    def can_take(self) -> bool:
        """Be free."""
        return True

    def give(self, request: Path, question: str) -> bool:
        """Write an answer."""
        asked = read_request(request)
        encoding = "lossless" if isinstance(asked, Proposal) else asked.config.exchange.encoding
        envelope = seal(_answer(asked, self._name), encoding)
        self._outbox.keep(question, envelope.signed(sign(self._key, envelope.digest)))
        self._over.append(Finished(question=question, seconds=0.0, failed=False))
        return True

    def look(self) -> Finished | None:
        """Return an answer that was written."""
        return self._over.pop() if self._over else None


def _answer(asked: Request, site: str) -> Answer:
    match asked:
        case Proposal():
            return Standing(
                run=asked.run,
                round=asked.round,
                site=site,
                patients=None,
                epsilon=None,
                epsilon_left=None,
                seconds=None,
            )
        case TrainRequest():
            delta = {n: 1e-3 * torch.randn(v.shape) for n, v in asked.weights.items()}
            return SiteUpdate(run=asked.run, round=asked.round, site=site, delta=delta, steps=1)
        case _:  # nothing is measured
            return Refusal(
                run=asked.run, round=asked.round, site=site, reason=RefusalReason.METRICS
            )


def main(home: Home) -> None:
    """Answer until SIGTERM."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: over.set())
    name = load_site_config(home.site_yaml).name
    worker = NoiseWorker(home, name, Outbox(home.outbox))
    daemon = _Daemon(home, worker, SiteMeters(CollectorRegistry()))
    _note_arrivals(home.folder / ARRIVALS)
    daemon.serve(over, lambda _status: None)
    daemon.close()


def _note_arrivals(path: Path) -> None:
    """Note how many seconds after it was made each request is here."""
    keep = Inbox.keep

    def noted(inbox: Inbox, delivery: PendingMessage) -> None:
        with path.open("a") as file:
            file.write(f"{time.time() - delivery.created_at:.4f}\n")
        keep(inbox, delivery)

    Inbox.keep = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Home(Path(sys.argv[1])))
