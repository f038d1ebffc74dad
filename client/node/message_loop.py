"""Message loop of a site: fetch, decide, work, answer; each step can be repeated after a crash.

What is on disk decides what is done next, so a process that was killed anywhere goes on:

    message here, objects missing      fetch what is missing
    request whole                      decide: an answer at once, or the worker's
    answer in the outbox               one line in the disclosures, then send
    sent in part                       send what is missing
    nobody waits for it any more       forget the message, keep the answer
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from client.governance.policy import Denied
from client.governance.repetition_limits import MANY_NAMES, Names
from client.governance.request_admission import (
    NO_QUESTION,
    AdmissionContext,
    AskedRequest,
    denied,
    question_of,
)
from client.node.message_transfer import Carrier, MessageTraffic, TransportContext
from client.node.prometheus_metrics import Outcome
from client.node.worker_process import Finished
from client.transport.fleet_client import FleetClient, PendingMessage, reply_to
from client.transport.inbox import Sending
from client.transport.quarantine import MOST_INTERRUPTIONS
from common.messages.signed_envelope import Envelope, facts_of, read_head, seal
from common.messages.signing_key import public_text, sign, verify
from common.messages.wire import Refusal, RefusalReason
from common.platform.errors import (
    AnswerNotAdmitted,
    PrivacyError,
    RecordsLost,
    RunGone,
    StateDamaged,
)

__all__ = ["MessageLoop", "MessageTraffic", "TransportContext"]

#: A site that is at work looks for more this often; one that is not waits for it.
_BUSY_PULL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class _Letter:
    delivery: PendingMessage
    question: AskedRequest
    digest: str  # of the request, in hex
    refusal: Envelope | None  # an answer that needs no work
    at: float  # when it was decided on, on the monotonic clock


def _nothing_changed() -> None:
    """Stand for a site whose rules stay as they are."""


@dataclass
class MessageLoop:
    """All letters of a daemon; `turn` does what can be done now.

    `refresh` takes up what the admin changed. It is called between receiving and deciding: rules
    that changed while a message was waited for hold for that message.
    """

    transport: TransportContext
    admission: AdmissionContext
    refresh: Callable[[], None] = _nothing_changed
    traffic: MessageTraffic = field(default_factory=MessageTraffic)
    _letters: dict[str, _Letter] = field(default_factory=dict)  # decided on, by message
    _releases: dict[int, str] = field(default_factory=dict)  # by Flower's number of the run
    _pulled_at: float = -math.inf
    _runs: Names = field(default_factory=Names)
    _unreadable: set[str] = field(default_factory=set)  # questions of which the worker made nothing

    def __post_init__(self) -> None:
        self._carrier = Carrier(self.transport, self.traffic)
        self.transport.worker.died = self.transport.quarantine.died

    def turn(self, fleet: FleetClient, wait_seconds: float) -> bool:
        """Take one step of each kind; returns whether anything happened.

        With nothing to do, a message is waited for so long. LinkDown and SiteUnknown end the
        turn where it stands; nothing is lost.
        """
        busy = self._letters or self._half_here()
        came = self._receive(fleet, 0.0 if busy else wait_seconds)
        self.refresh()
        self._decide(fleet)
        self.work()
        return self._send(fleet) or came

    def work(self) -> None:
        """Look what the worker has done and give it the next; needs no coordinator.

        One that rests is woken by the first piece of a request, and loads while the rest comes.
        """
        worker = self.transport.worker
        finished = worker.look()
        if finished is not None:
            self._finished(finished)
        undone = next(filter(self._needs_work, self._letters.values()), None)
        wanted = undone is not None or bool(self._half_here())
        if wanted or not worker.rests:
            worker.start()
        if undone is not None and worker.can_take:
            self._give_to_worker(undone)
        elif not wanted:
            worker.rest()

    def close(self) -> None:
        """Take back the try of what the worker is at: it is ended by us, not by the request."""
        self.transport.disclosures.close()
        if self.transport.worker.given is not None:
            self.transport.quarantine.undo(self.transport.worker.given)

    def _give_to_worker(self, letter: _Letter) -> None:
        """Count the try durably, then make it."""
        asked = letter.question
        what = f"{asked.kind} of run {asked.run}, round {asked.round}"
        self.transport.quarantine.begin(letter.digest, what)
        if not self.transport.worker.give(
            self.transport.inbox.request(letter.delivery), letter.digest
        ):
            self.transport.quarantine.undo(letter.digest)

    def _needs_work(self, letter: _Letter) -> bool:
        """Return whether a letter waits for the worker, and may have it."""
        if letter.refusal is not None or letter.digest in self._unreadable:
            return False
        if self.transport.quarantine.tries(letter.digest).is_over:
            return False
        return not self.transport.outbox.has(letter.digest)

    def _finished(self, finished: Finished) -> None:
        quarantine, name = self.transport.quarantine, finished.question
        self.transport.meters.took("work", finished.seconds)
        of = [x for x in self._letters.values() if x.digest == name]
        if of:
            self.transport.meters.took("wait", time.monotonic() - of[0].at - finished.seconds)
        if finished.unreadable:
            self._unreadable.add(name)
            self.transport.tell("a request cannot be read", {"why": finished.unreadable})
        if finished.unkept:
            self.transport.tell("an answer cannot be kept", {"why": finished.unkept})
            for x in of:
                reason = RefusalReason.NO_ROOM if finished.is_full else RefusalReason.FAILED
                no = self._no(x.question, reason)
                self._letters[x.delivery.id] = replace(x, refusal=no)
        if not finished.failed or finished.unreadable or finished.unkept:
            quarantine.end(name)
            return
        if of:
            quarantine.keep(name, self.transport.inbox.request(of[0].delivery))
        why = {"why": quarantine.tries(name).sentence, "next": "wardround-site doctor"}
        self.transport.tell("a request is set aside", why)

    def set_aside(self) -> list[str]:
        """Return what is set aside, a sentence each."""
        return [tries.sentence for tries in self.transport.quarantine.set_aside().values()]

    def doing(self) -> AskedRequest | None:
        """Return what the worker is at."""
        given = self.transport.worker.given
        return next((x.question for x in self._letters.values() if x.digest == given), None)

    @property
    def open(self) -> int:
        """Return how many letters are not answered, also those that are not whole yet."""
        return len(self._letters) + len(self._half_here())

    def _half_here(self) -> list[PendingMessage]:
        inbox = self.transport.inbox
        return [known for known in inbox.waiting() if not inbox.request(known).exists()]

    def _receive(self, fleet: FleetClient, wait_seconds: float) -> bool:
        delivery = None
        if wait_seconds or time.monotonic() - self._pulled_at > _BUSY_PULL_SECONDS:
            delivery = fleet.pull(wait_seconds)
            if delivery is not None and delivery.fault:
                # Kept, it would end this daemon and every later one when it is to be answered.
                self.transport.tell("a request cannot be read", {"why": delivery.fault})
            elif delivery is not None:
                self.transport.inbox.keep(delivery)
            fleet.received()
            self._pulled_at = time.monotonic()
        self._carrier.largest_request = self.admission.config.largest_request_mib * 2**20
        before = self.traffic.received
        for known in self._half_here():
            self._or_drop(known, self._carrier.fetch, fleet)
        return delivery is not None or self.traffic.received > before

    def _decide(self, fleet: FleetClient) -> None:
        waiting = [
            d for d in self.transport.inbox.waiting() if self.transport.inbox.request(d).exists()
        ]
        for delivery in waiting:
            if delivery.id not in self._letters:
                self.transport.quarantine.begin(delivery.id, "a request that was being opened")
                try:
                    self._or_drop(delivery, self._open, fleet)
                finally:  # a daemon that is killed in it never comes here
                    self.transport.quarantine.undo(delivery.id)
        for delivery in waiting:
            self._drop_if_too_late(delivery)

    def _open(self, delivery: PendingMessage, fleet: FleetClient) -> None:
        """Read a request's facts and decide whether the site takes part."""
        header, digest = read_head(self.transport.inbox.request(delivery))
        question, why = self._judged(header, delivery, fleet)
        refusal = None
        if why is not None:
            refusal = self._no(question, why.reason)
            facts = {"run": question.run, "round": question.round, "reason": why.reason.name}
            self.transport.tell("refused", {**facts, "detail": why.detail})
        self._letters[delivery.id] = _Letter(
            delivery=delivery,
            question=question,
            digest=digest,
            refusal=refusal,
            at=time.monotonic(),
        )

    def _judged(
        self, header: str, delivery: PendingMessage, fleet: FleetClient
    ) -> tuple[AskedRequest, Denied | None]:
        """Return what is asked, and why the site does not take part in it."""
        tries = self.transport.quarantine.tries(delivery.id)
        if tries.begun > MOST_INTERRUPTIONS:  # this one is among them
            return NO_QUESTION, Denied(reason=RefusalReason.SET_ASIDE, detail=tries.sentence)
        try:
            question = question_of(header)
        except AnswerNotAdmitted as error:
            return NO_QUESTION, Denied(reason=RefusalReason.UNREADABLE, detail=str(error))
        if not self._runs.may_begin(question.run):
            return question, Denied(reason=RefusalReason.NOT_APPROVED, detail=MANY_NAMES)
        if delivery.run_id not in self._releases:
            self._releases[delivery.run_id] = fleet.release_of(delivery.run_id)
        release = self._releases[delivery.run_id]
        why = denied(question, release, self.admission, datetime.now(UTC).astimezone())
        return question, why or self._lost(delivery)

    def _lost(self, delivery: PendingMessage) -> Denied | None:
        """Return why the site's records are not to be built on, by all that is known of them."""
        try:
            self.transport.records.check(self.transport.inbox.receipt(delivery))
        except RecordsLost as error:
            return Denied(reason=RefusalReason.RECORDS, detail=str(error))
        except (PrivacyError, StateDamaged):
            return None  # the worker meets it, too, and tells of it
        return None

    def _no(self, asked: AskedRequest, reason: RefusalReason) -> Envelope:
        no = Refusal(run=asked.run, round=asked.round, site=self.transport.name, reason=reason)
        envelope = seal(no)
        return envelope.signed(sign(self.transport.key, envelope.digest))

    def _drop_if_too_late(self, delivery: PendingMessage) -> None:
        """Forget what nobody waits for: its time is over, or a later round was asked for."""
        letter = self._letters.get(delivery.id)
        if letter is None or letter.digest == self.transport.worker.given:
            return
        own, questions = letter.question, [other.question for other in self._letters.values()]
        later = any(
            (q.run, q.kind) == (own.run, own.kind) and q.round > own.round for q in questions
        )
        if later or delivery.ends < time.time():
            self._drop(delivery)

    def _send(self, fleet: FleetClient) -> bool:
        sent = False
        for letter in list(self._letters.values()):
            answer = self._answer(letter)
            if answer is not None:
                self._or_drop(letter.delivery, partial(self._post, answer), fleet)
                sent = True
        return sent

    def _answer(self, letter: _Letter) -> Envelope | None:
        if letter.refusal is not None:
            return letter.refusal
        if letter.digest in self._unreadable:
            return self._no(letter.question, RefusalReason.UNREADABLE)
        if self.transport.quarantine.tries(letter.digest).is_over:
            return self._no(letter.question, RefusalReason.SET_ASIDE)
        answer, key = self.transport.outbox.find(letter.digest), self.transport.key
        if answer is None or verify(public_text(key), answer.digest, answer.signature):
            return answer
        return answer.signed(sign(key, answer.digest))  # kept from before a change of the key

    def _post(self, answer: Envelope, delivery: PendingMessage, fleet: FleetClient) -> None:
        """Send an answer, or what is missing of it."""
        inbox = self.transport.inbox
        sending = inbox.sending(delivery)
        if sending is None:
            receipt = self._carrier.disclose(answer)
            at = delivery.created_at
            sending = Sending(created_at=at, session="", left=None, receipt=receipt)
            inbox.note(delivery, sending)
        reply = reply_to(delivery, answer, sending.created_at, sending.receipt)
        start = time.monotonic()
        letter = self._letters[delivery.id]
        if sending.left is None or not self._carrier.give(delivery, fleet, reply, sending):
            left, session = fleet.offer(reply)
            offered = replace(sending, session=session, left=tuple(left))
            inbox.note(delivery, offered)
            self._carrier.give(delivery, fleet, reply, offered)
        self.transport.meters.took("send", time.monotonic() - start)
        self._answered(letter, facts_of(answer.header))
        self._drop(delivery)

    def _answered(self, letter: _Letter, facts: Mapping[str, object]) -> None:
        """Count an answer that was sent; only updates and reports are kept for another time."""
        if facts["kind"] in {"standing", "refusal"}:
            self.transport.outbox.forget(letter.digest)  # the next one may be another
        self._unreadable.discard(letter.digest)
        failed = facts.get("reason") in {RefusalReason.FAILED.name, RefusalReason.SET_ASIDE.name}
        outcome: Outcome = "refused" if facts["kind"] == "refusal" else "done"
        outcome = "failed" if failed else outcome
        self.transport.meters.answered(letter.question.kind, outcome)
        spend = facts.get("spend")
        if isinstance(spend, dict):
            limit = self.admission.config.policy.largest_epsilon_per_cohort
            self.transport.meters.charged(float(spend["cohort_epsilon"]), limit)

    def _or_drop(
        self,
        delivery: PendingMessage,
        step: Callable[[PendingMessage, FleetClient], None],
        fleet: FleetClient,
    ) -> None:
        """Take a step of one letter; one that can lead to nothing is forgotten, with a word."""
        try:
            step(delivery, fleet)
        except (RunGone, AnswerNotAdmitted, StateDamaged) as error:
            self.transport.tell("a request is dropped", {"why": str(error)})
            self._drop(delivery)

    def _drop(self, delivery: PendingMessage) -> None:
        self._letters.pop(delivery.id, None)
        self.transport.inbox.drop(delivery)
