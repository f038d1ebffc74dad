"""A site that answers random numbers, to measure a coordinator with large updates.

    python benchmarks/random_site.py HOME

The letters are the daemon's own (client/node/message_loop.py), signed with the site's key; instead
of the worker, this process writes an answer of normal noise of the network's shapes, as a
private update is, and says yes to every proposal.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).parents[1]))

from client.governance.approvals import Approvals
from client.governance.disclosures import Disclosures
from client.governance.records_check import SiteRecords
from client.governance.request_admission import AdmissionContext
from client.node.message_loop import MessageLoop, TransportContext
from client.node.prometheus_metrics import SiteMeters
from client.node.worker import read_request
from client.node.worker_process import Finished, WorkerProcess
from client.site.home import Home
from client.site.site_config import load_site_config
from client.transport.coordinator import load_authority, load_coordinator
from client.transport.fleet_client import HEARTBEAT_SECONDS, FleetClient
from client.transport.inbox import Inbox
from client.transport.outbox import Outbox
from client.transport.quarantine import Quarantine
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
    config, coordinator = load_site_config(home.site_yaml), load_coordinator(home)
    key, outbox = load_private(home.key), Outbox(home.outbox)
    transport = TransportContext(
        name=config.name,
        to=coordinator.name,
        key=key,
        inbox=Inbox(home.inbox),
        outbox=outbox,
        disclosures=Disclosures(home.disclosures),
        records=SiteRecords(home),
        worker=NoiseWorker(home, config.name, outbox),
        quarantine=Quarantine(home.quarantine),
        meters=SiteMeters(CollectorRegistry()),
        tell=lambda event, facts: print(event, facts, flush=True),
    )
    admission = AdmissionContext(
        config=config,
        coordinator=coordinator.fingerprint,
        paused=home.paused,
        approvals=Approvals(home.approvals),
    )
    correspondence = MessageLoop(transport, admission)
    fleet = FleetClient(coordinator.address, load_authority(home, coordinator), key)
    node = fleet.activate()
    threading.Thread(target=_beat, args=(fleet, over), daemon=True).start()
    while not over.is_set():
        if not correspondence.turn(fleet, 1.0) and correspondence.open:
            over.wait(0.05)
    fleet.deactivate(node)
    fleet.close()


def _beat(fleet: FleetClient, over: threading.Event) -> None:
    """Say that the site is here, also while it is at work for long."""
    while not over.wait(HEARTBEAT_SECONDS / 2):
        fleet.heartbeat()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Home(Path(sys.argv[1])))
