"""Sites over Flower: asked, waited for, asked again.

How long they are waited for stands in server/rounds/late_answers.py, how many must be there in
server/rounds/quorum.py. A site whose daemon came back since it was asked is asked again at once.
Asking again is safe: the same question has the same answer at a site, charged once.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from common.messages.answer_sizes import largest_answer
from common.messages.signed_envelope import seal
from common.messages.wire import (
    Answer,
    EvaluationRequest,
    Refusal,
    Request,
    SiteReport,
    SiteStatistics,
    SiteUpdate,
    StatisticsRequest,
    TrainRequest,
)
from common.platform.errors import RunFailed, RunGone
from server.files.status_writer import Board, Phase
from server.rounds.late_answers import Deadline, awake, late, patience_of
from server.rounds.non_admission_reasons import Fault
from server.rounds.quorum import Start
from server.rounds.run_setting import RunSetting
from server.rounds.update_admission import NotAdmitted
from server.transport.asked_site import Asked
from server.transport.incoming_answer import Arriving, not_admitted
from server.transport.runtime import AnswerBounds, AnswerTooLarge, NodeFacts, Runtime
from server.transport.standings import Standings, keep_receipt, online, receipts_for
from server.transport.turn import AlwaysItsTurn, RunTurn

#: Between two looks for answers, and between two looks for who is online.
_LOOK_SECONDS = 0.05
_NODES_SECONDS = 1.0
#: An answer is heard of at once; the wait for it ends now and then to see who is online.
_WAIT_SECONDS = 0.5

A = TypeVar("A", SiteUpdate, SiteReport, SiteStatistics)


class FlowerSites:
    """The sites that were accepted, as one run reaches them."""

    def __init__(
        self, runtime: Runtime, setting: RunSetting, board: Board, turn: RunTurn | None = None
    ) -> None:
        self._runtime = runtime
        self._turn = turn or AlwaysItsTurn()
        self._setting = setting
        self._board = board
        self._standings = Standings(runtime, setting, board)
        self.approval = self._standings.approval
        self._patience = patience_of(setting.round_seconds)
        # What an earlier process of this run left there is asked for anew.
        shutil.rmtree(setting.arriving, ignore_errors=True)
        self._opened_ones: list[Arriving] = []  # which the SuperLink keeps until a round is saved
        self._waited = False  # for sites that had said neither yes nor no

    def available(self) -> tuple[str, ...]:
        """Return the sites that approved the run and are online, once they are a quorum.

        With those that have room for it, once the service says that it is the run's turn. RunFailed
        when so many said no that there can be no quorum, or when none came about in
        `exchange.wait_hours`.
        """
        config = self._setting.config
        quorum = config.aggregation.smallest_quorum
        start = Start(config, waits=self._setting.waits)
        phase, number = self._board.phase, self._board.round
        in_line = gave_way = False
        while True:
            members = self._setting.members()
            nodes = self.propose()
            ready = self.approval.ready(nodes)
            missing = self.approval.undecided(members)
            working = any(name in nodes and self.approval.is_read(name) for name in missing)
            ends = start.without(ready, working=working)
            if len(ready) >= quorum and (self._waited or not missing or awake() > ends):
                if found := self._take_turn(ready):
                    self._waited = True
                    self._board.begin(phase, number)
                    return found
                start.is_in_line()
                in_line = True
            elif in_line or (
                ends == start.gives_up and not gave_way and start.gives_way(working=working)
            ):
                self._turn.give_way()
                in_line, gave_way = False, True
            if not self.approval.open:  # else somebody who was asked has not answered yet
                self.approval.check_quorum(members, quorum)
            if awake() > start.gives_up:
                raise RunFailed(self.approval.why_waiting(members, quorum))
            if self._board.phase != "approval":
                self._board.begin("approval", number)
            self._board.wait_until(time.time() + ends - awake())
            self._board.write()
            time.sleep(4 * _LOOK_SECONDS)

    def _take_turn(self, ready: Sequence[str]) -> tuple[str, ...]:
        """Return the ready sites that have room for the run, or none before it is its turn."""
        all_of_them = self._setting.waits and not self._waited
        least = len(ready) if all_of_them else self._setting.config.aggregation.smallest_quorum
        limits = {name: self.approval.standings[name].runs_at_once for name in ready}
        found = self._turn.take(limits, least)
        for name in set(ready) - set(found) if found else ():
            self._board.site(name, "ready", "it serves other runs now, and joins when it has room")
        return found

    def train(
        self, request: TrainRequest, sites: Sequence[str]
    ) -> Iterator[SiteUpdate | Refusal | NotAdmitted]:
        """Yield updates as they come, until all are here or the round's time is over."""
        yield from self._ask(request, sites, "training", SiteUpdate)
        self._board.begin("aggregating", request.round)

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal | NotAdmitted]:
        """Yield reports as they come."""
        yield from self._ask(request, sites, "evaluating", SiteReport)
        self._board.begin("saving", request.round)

    def describe(
        self, request: StatisticsRequest, sites: Sequence[str]
    ) -> Iterator[SiteStatistics | Refusal | NotAdmitted]:
        """Yield what sites say of their cohorts; a run does not wait long for it."""
        yield from self._ask(request, sites, "counting", SiteStatistics)

    # --- asking --------------------------------------------------------------------------

    def _ask(
        self, request: Request, sites: Sequence[str], phase: Phase, wanted: type[A]
    ) -> Iterator[A | Refusal | NotAdmitted]:
        while self._opened_ones:  # what was made of them is saved by now
            self._opened_ones.pop().close(self._runtime)
        members = {n: k for n, k in self._setting.members().items() if n in sites}
        seconds = self._setting.round_seconds
        deadline = Deadline.after(self._patience if phase == "counting" else seconds)
        for name in members:
            self._board.site(name, "asked")
        self._board.begin(phase, request.round, deadline.ends)
        open_ = {name: Asked() for name in members}
        largest = largest_answer(request)
        self._post(request, open_, deadline)
        looked, answered = awake(), 0
        while open_ and not deadline.is_over:
            self._look(open_, members, largest)
            self._board.wait_until(deadline.ends)
            for name in [n for n, asked in open_.items() if asked.answer is not None]:
                # In no local: a generator keeps those while it waits, and the update with them.
                finished = [a for a in [self._finish(name, open_[name], wanted)] if a is not None]
                if finished:
                    del open_[name]
                    answered += 1
                    yield finished.pop()
            if awake() - looked > _NODES_SECONDS:
                self._post(request, open_, deadline)
                yield from self._give_up(open_, answered)
                looked = awake()
            self._board.write()
            if not any(a.names for a in open_.values()) or any(a.answer for a in open_.values()):
                time.sleep(_LOOK_SECONDS)
        for name, asked in open_.items():
            self._board.site(name, "late", "no answer within exchange.round_minutes")
            if asked.answer is not None:
                asked.answer.close(self._runtime)  # what came of it is of no use
            yield late(name, "no answer within exchange.round_minutes")

    def _give_up(self, open_: dict[str, Asked], answered: int) -> Iterator[NotAdmitted]:
        """Stop waiting for sites that were revoked, and, given a quorum, for those long offline."""
        members = self._setting.members()
        enough = answered >= self._setting.config.aggregation.smallest_quorum
        for name, asked in list(open_.items()):
            if name not in members:
                self._board.site(name, "refused", "revoked")
                del open_[name]
                yield late(name, "its key was revoked meanwhile")
            elif enough and asked.is_given_up(self._patience):
                self._board.site(name, "late", "offline for too long")
                del open_[name]
                if asked.answer is not None:
                    asked.answer.close(self._runtime)
                yield late(name, "offline for too long")

    def _post(self, request: Request, open_: Mapping[str, Asked], deadline: Deadline) -> None:
        """Send the request to sites that have not got it, or should get it again."""
        members = self._setting.members()
        nodes = self._nodes(members)
        due = [
            name
            for name, asked in open_.items()
            if name in nodes and asked.is_due(nodes[name], self._patience)
        ]
        for name, asked in open_.items():
            asked.seen(online=name in nodes)
            self._board.transfer(name, asked.transfer(nodes.get(name)))
            if name not in nodes:
                self._board.site(name, "offline", "not connected")
        left = deadline.left
        if not due or left <= 0:
            return
        # Sealed anew each time, so that no packed copy of the weights stays in memory.
        envelope = seal(request)
        kind = "train" if isinstance(request, TrainRequest) else "evaluate"
        answer = AnswerBounds(bytes=largest_answer(request), seconds=left)
        receipts = receipts_for(self._setting, {name: nodes[name] for name in due})
        names = self._runtime.post(envelope, kind, receipts, answer)
        for name in due:
            node, asked = nodes[name], open_[name]
            if node.node_id in names:
                asked.sent(names[node.node_id], node, envelope.size)
                self._board.site(name, "asked")
                self._board.count(name, sent=envelope.size)

    def _look(self, open_: Mapping[str, Asked], members: Mapping[str, str], largest: int) -> None:
        """Note which answers were announced, and which sites are offline."""
        owners = {name: site for site, asked in open_.items() for name in asked.names}
        # While an answer is on its way there is something to do; else wait for the next.
        wait = 0.0 if any(asked.answer for asked in open_.values()) else _WAIT_SECONDS
        for arrival in self._runtime.pull([*owners, *self.approval.open], wait):
            if arrival.asked not in owners:
                self._standings.take(arrival, members)
                continue
            site = owners[arrival.asked]
            open_[site].names.discard(arrival.asked)
            if arrival.gone:
                open_[site].again = True
                self._board.site(site, "offline", "not connected")
            elif open_[site].wants_answer:
                stood_still = open_[site].answer
                open_[site].answer = Arriving(
                    site=site,
                    public_key=members[site],
                    arrival=arrival,
                    largest=largest,
                    folder=self._setting.arriving / arrival.name,
                )
                if stood_still is not None:  # what they share stays at the SuperLink
                    stood_still.close(self._runtime)
                self._board.site(site, "sending")
            else:
                self._runtime.confirm(arrival.name)  # a second answer is not wanted
        self._standings.look()

    def _finish(self, site: str, asked: Asked, wanted: type[A]) -> A | Refusal | NotAdmitted | None:
        """Return a site's answer once all of it is here."""
        answer = None if asked.answer is None else self._opened(site, asked, asked.answer)
        match answer:
            case None:
                return None
            case Refusal():
                if wanted is SiteUpdate:  # one that does not report may train all the same
                    self.approval.withdraw(site, answer)
                self._board.site(site, "refused", answer.reason.value)
                return answer
            case NotAdmitted():
                self.approval.fault(site, answer.fault.value)
                self._board.site(site, "refused", answer.fault.value)
                return answer
            case _:
                pass
        if not isinstance(answer, wanted):
            return not_admitted(site, Fault.UNREADABLE, f"it is a {type(answer).__name__}")
        if answer.spend is not None:
            if answer.spend.simulated_noise:  # between hospitals a seed is no privacy
                return not_admitted(site, Fault.WRONG_SPEND, "its noise came from a seed")
            self._board.sites[site].epsilon = answer.spend.run_epsilon
            self._board.sites[site].common_epsilon = answer.spend.run_common_epsilon
        self._board.site(site, "answered")
        return answer

    def _opened(self, site: str, asked: Asked, arriving: Arriving) -> Answer | NotAdmitted | None:
        """Return an answer, or why it is none, once all of it is here."""
        try:
            if not self._is_whole(site, asked, arriving):
                return None
            answer = arriving.opened()
            self._opened_ones.append(arriving)
        except AnswerTooLarge as error:
            asked.answer = None
            arriving.close(self._runtime)
            return not_admitted(site, Fault.TOO_LONG, str(error))
        keep_receipt(self._setting, arriving)
        return answer

    def _is_whole(self, site: str, asked: Asked, arriving: Arriving) -> bool:
        """Fetch what has come of an answer; one that was cut off too long is asked for again."""
        before = arriving.received
        try:
            whole = arriving.fetch(self._runtime)
        except RunGone:
            asked.answer, asked.again = None, True
            arriving.close(self._runtime)
            return False
        self._board.count(site, received=arriving.received - before)
        return whole

    def _nodes(self, members: Mapping[str, str]) -> dict[str, NodeFacts]:
        return online(self._runtime, members)

    def propose(self) -> dict[str, NodeFacts]:
        """Ask sites that have not said yes whether they would; returns who is online."""
        return self._standings.propose()
