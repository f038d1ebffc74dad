"""Fetching and sending of messages, with a line in the disclosures for each that leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec

from client.governance.disclosures import Disclosure, Disclosures
from client.governance.records_check import SiteRecords
from client.node.prometheus_metrics import SiteMeters
from client.node.worker_process import WorkerProcess
from client.transport.fleet_client import FleetClient, PendingMessage, Reply
from client.transport.inbox import Inbox, Sending
from client.transport.outbox import Outbox
from client.transport.quarantine import Quarantine
from common.messages.flower_messages import Opened, open_objects
from common.messages.signed_envelope import Envelope, facts_of, write_envelope
from common.messages.transfer_progress import Transfer
from common.platform.errors import AnswerNotAdmitted, WardroundError

#: A step of fetching takes no longer than this and the object that is on its way by then.
_STEP_SECONDS = 1.0
#: Stands for a message of which no question can be made.
_UNREADABLE = Envelope(header="", frames=())


@dataclass(frozen=True, kw_only=True)
class TransportContext:
    """What letters are written with."""

    name: str  # of the site
    to: str  # of the coordinator
    key: ec.EllipticCurvePrivateKey
    inbox: Inbox
    outbox: Outbox
    quarantine: Quarantine
    disclosures: Disclosures
    records: SiteRecords
    worker: WorkerProcess
    tell: Callable[[str, Mapping[str, object]], None]  # what happened, and its facts
    meters: SiteMeters


@dataclass(kw_only=True)
class MessageTraffic:
    """Bytes of letters since the daemon began."""

    sent: int = 0
    received: int = 0
    way: str = ""  # how far what is under way is, in words
    told: Callable[[], None] = lambda: None  # is called when that has changed

    def under_way(self, verb: str, transfer: Transfer) -> None:
        """Note how far a transfer is."""
        words = transfer.words
        self.way = f"{verb} {words}" if words else ""
        self.told()

    def over(self) -> None:
        """Note that nothing is under way."""
        if self.way:
            self.way = ""
            self.told()


class Carrier:
    """Takes messages in and gives answers out, one object at a time, and counts their bytes."""

    def __init__(self, transport: TransportContext, traffic: MessageTraffic) -> None:
        self._transport = transport
        self._traffic = traffic
        self.largest_request = 0  # bytes, as site.yaml says now
        self._began: dict[str, tuple[float, int]] = {}  # of requests: when, and what was here

    def fetch(self, delivery: PendingMessage, fleet: FleetClient) -> None:
        """Fetch what is missing of a request, for a while; once all is here, write it as one file.

        A long one is fetched in several steps, so that an answer which is ready need not wait.
        """
        inbox, start = self._transport.inbox, time.monotonic()
        for name in inbox.lacking(delivery):
            if inbox.adopt(delivery, name):
                continue
            if time.monotonic() - start > _STEP_SECONDS:
                return
            content = fleet.fetch(delivery.run_id, name)
            if content is None:
                return  # the coordinator has announced it and is still sending it
            if inbox.held(delivery) + len(content) > self.largest_request:
                self._refuse(delivery, fleet)
                return
            inbox.put(delivery, name, content)
            self._traffic.received += len(content)
            self._transport.meters.received(len(content))
            self._traffic.under_way("receiving", self._incoming(delivery))
        self._traffic.over()
        receipt = ""
        try:
            opened = open_objects(lambda name: inbox.read(delivery, name), delivery.id)
            envelope = Envelope(header=opened.header, frames=self._frames(opened))
            receipt = opened.receipt
        except AnswerNotAdmitted as error:
            self._transport.tell("a request cannot be read", {"why": str(error)})
            envelope = _UNREADABLE  # so that the coordinator is answered
        fleet.confirm(delivery)
        inbox.note_receipt(delivery, receipt)
        write_envelope(inbox.request(delivery), envelope)
        inbox.complete(delivery)
        self._transport.meters.took("fetch", time.monotonic() - start)

    def _incoming(self, delivery: PendingMessage) -> Transfer:
        """Return how far a request is; what is still to come is taken to be like what came."""
        inbox, objects = self._transport.inbox, delivery.objects
        done, here = inbox.held(delivery), len(objects) - len(inbox.lacking(delivery))
        began = self._began.setdefault(delivery.id, (time.monotonic(), done))
        for name in self._began.keys() - {delivery.id, *(d.id for d in inbox.waiting())}:
            del self._began[name]
        return Transfer(
            done=done,
            total=done * len(objects) // max(here, 1),
            at_first=began[1],
            seconds=time.monotonic() - began[0],
        )

    def _frames(self, opened: Opened) -> tuple[bytes, ...]:
        """Return a request's frames; one object may stand for many, and each is held."""
        frames, held = [], 0
        for frame in opened.frames():
            held += len(frame)
            if held > self.largest_request:
                message = f"its frames are more than {self.largest_request} bytes"
                raise AnswerNotAdmitted(message)
            frames.append(frame)
        return tuple(frames)

    def _refuse(self, delivery: PendingMessage, fleet: FleetClient) -> None:
        """Fetch no more of a request that is too large, and have it answered so."""
        why = f"it has more than {self.largest_request} bytes"
        self._transport.tell(
            "a request cannot be read",
            {"why": why, "next": "raise largest_request_mib in site.yaml, if the network needs it"},
        )
        fleet.confirm(delivery)
        write_envelope(self._transport.inbox.request(delivery), _UNREADABLE)
        self._transport.inbox.complete(delivery)

    def give(
        self, delivery: PendingMessage, fleet: FleetClient, reply: Reply, sending: Sending
    ) -> bool:
        """Send the objects that are left; False when the session is over."""
        left, start = list(sending.left or ()), time.monotonic()
        total = sum(map(len, reply.objects.values()))
        before = total - sum(len(reply.objects[name]) for name in left)
        done = before
        while left:
            name = left[0]
            if not fleet.give(delivery.run_id, sending.session, name, reply.objects[name]):
                return False
            self._traffic.sent += len(reply.objects[name])
            self._transport.meters.sent(len(reply.objects[name]))
            done += len(reply.objects[name])
            passed = time.monotonic() - start
            self._traffic.under_way(
                "sending", Transfer(done=done, total=total, at_first=before, seconds=passed)
            )
            left.pop(0)
            self._transport.inbox.note(delivery, replace(sending, left=tuple(left)))
        self._traffic.over()
        return True

    def disclose(self, answer: Envelope) -> str:
        """Write the line that says what leaves, durably, before it leaves; returns the receipt.

        A refusal can be given whatever became of the records: what it says of them (a pause, say,
        that no other answer follows) is left out where they are not the newest.
        """
        facts = facts_of(answer.header)
        spend = facts.get("spend")
        epsilon = spend.get("cohort_epsilon") if isinstance(spend, dict) else None
        number = facts["round"]
        mark, receipt = None, ""
        if facts["kind"] != "refusal":
            try:
                mark, receipt = self._transport.records.attest()
            except WardroundError as error:
                raise AnswerNotAdmitted(str(error)) from error
        elif self._transport.records.are_begun:
            with suppress(WardroundError):
                mark, receipt = self._transport.records.attest()
        self._transport.disclosures.record(
            Disclosure(
                kind=str(facts["kind"]),
                to=self._transport.to,
                run=str(facts["run"]),
                round=number if isinstance(number, int) else 0,
                bytes=answer.size + len(receipt),
                sha256=answer.digest.hex(),
                epsilon=epsilon,
                records=mark,
            )
        )
        return receipt
