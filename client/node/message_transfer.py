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
from common.platform.errors import AnswerNotAdmitted, WardroundError

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


class Carrier:
    """Takes messages in and gives answers out, one object at a time, and counts their bytes."""

    def __init__(self, transport: TransportContext, traffic: MessageTraffic) -> None:
        self._transport = transport
        self._traffic = traffic
        self.largest_request = 0  # bytes, as site.yaml says now

    def fetch(self, delivery: PendingMessage, fleet: FleetClient) -> None:
        """Fetch what is missing of a request, and write it as one file."""
        inbox, start = self._transport.inbox, time.monotonic()
        for name in inbox.lacking(delivery):
            content = fleet.fetch(delivery.run_id, name)
            if content is None:
                return  # the coordinator has announced it and is still sending it
            if inbox.held(delivery) + len(content) > self.largest_request:
                self._refuse(delivery, fleet)
                return
            inbox.put(delivery, name, content)
            self._traffic.received += len(content)
            self._transport.meters.received(len(content))
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
        left = list(sending.left or ())
        while left:
            name = left[0]
            if not fleet.give(delivery.run_id, sending.session, name, reply.objects[name]):
                return False
            self._traffic.sent += len(reply.objects[name])
            self._transport.meters.sent(len(reply.objects[name]))
            left.pop(0)
            self._transport.inbox.note(delivery, replace(sending, left=tuple(left)))
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
