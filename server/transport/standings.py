"""Standings: what sites say to a run's proposal.

Nobody waits for one site's answer: what has come is fetched at each look, and an answer that does
not come within its time, or is none of ours, is thrown away here and at the SuperLink, named in
the log and counted against its site (server/rounds/approval.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from common.messages.answer_sizes import largest_answer
from common.messages.signed_envelope import seal
from common.messages.signing_key import public_pem
from common.messages.wire import Refusal, Standing
from common.platform.errors import AnswerNotAdmitted, RunGone
from common.platform.logs import log
from server.files.status_writer import Board
from server.rounds.approval import Approval
from server.rounds.late_answers import awake
from server.rounds.run_setting import RunSetting
from server.transport.incoming_answer import Arriving
from server.transport.runtime import AnswerBounds, Arrival, NodeFacts, Runtime

#: A standing is a few hundred bytes, and no slow link takes longer.
_LONGEST_SECONDS = 30.0
_WAIT_SECONDS = 0.5


class Standings:
    """The proposals of one run, and what comes of them."""

    def __init__(self, runtime: Runtime, setting: RunSetting, board: Board) -> None:
        self._runtime = runtime
        self._setting = setting
        self._board = board
        self.approval = Approval(setting.run, setting.seed, setting.config)
        self._largest = largest_answer(self.approval.proposal)
        self._coming: dict[str, Arriving] = {}  # by the name of the message that was sent

    def propose(self) -> dict[str, NodeFacts]:
        """Ask sites that have not said yes whether they would; returns who is online."""
        members = self._setting.members()
        nodes = online(self._runtime, members)
        for name in members.keys() - nodes.keys():
            self._board.site(name, "offline", "not connected")
        due = self.approval.due(nodes)
        if due:
            envelope = seal(self.approval.proposal)
            receipts = receipts_for(self._setting, {name: nodes[name] for name in due})
            answer = AnswerBounds(bytes=self._largest, seconds=self._setting.round_seconds)
            names = self._runtime.post(envelope, "query", receipts, answer)
            numbers = {name: nodes[name].node_id for name in due}
            self.approval.asked({n: names[k] for n, k in numbers.items() if k in names})
        waiting = 0.0 if self._coming else _WAIT_SECONDS
        for arrival in self._runtime.pull(list(self.approval.open), waiting):
            self.take(arrival, members)
        self.look()
        self.approval.show(self._board, nodes)
        return nodes

    def take(self, arrival: Arrival, members: Mapping[str, str]) -> None:
        """Note that an answer was announced."""
        site = self.approval.open.get(arrival.asked)
        if site is None or site not in members or arrival.gone or arrival.asked in self._coming:
            if arrival.asked not in self._coming:
                self.approval.lost(arrival.asked)
            self._runtime.confirm(arrival.name)
            return
        self._coming[arrival.asked] = Arriving(
            site=site,
            public_key=members[site],
            arrival=arrival,
            largest=self._largest,
            folder=self._setting.arriving / arrival.name,
        )

    def look(self) -> None:
        """Fetch what has come of the answers, and take those that are whole."""
        for asked, arriving in list(self._coming.items()):
            try:
                self._advance(asked, arriving)
            except RunGone:
                self._close(asked, arriving)
            except AnswerNotAdmitted as error:
                self._close(asked, arriving)
                self.approval.fault(arriving.site, str(error))
                log(__name__).warning("answer closed", site=arriving.site, why=str(error))

    def _advance(self, asked: str, arriving: Arriving) -> None:
        if arriving.fetch(self._runtime):
            answer = arriving.open()
            if not isinstance(answer, Standing | Refusal):
                message = f"it is a {type(answer).__name__}, expected a Standing or a Refusal"
                raise AnswerNotAdmitted(message)
            del self._coming[asked]
            keep_receipt(self._setting, arriving)
            arriving.close(self._runtime)
            if asked in self.approval.open:
                self.approval.take(asked, answer)
        elif awake() - arriving.since > _LONGEST_SECONDS:
            message = f"it was announced and did not come within {_LONGEST_SECONDS:g} s"
            raise AnswerNotAdmitted(message)

    def _close(self, asked: str, arriving: Arriving) -> None:
        del self._coming[asked]
        self.approval.lost(asked)
        arriving.close(self._runtime)


def receipts_for(setting: RunSetting, nodes: Mapping[str, NodeFacts]) -> dict[int, str]:
    """Return what each site that is asked now gave to be kept for it, by its number."""
    keys = setting.members()
    return {node.node_id: setting.receipts.of(name, keys[name]) for name, node in nodes.items()}


def keep_receipt(setting: RunSetting, arriving: Arriving) -> None:
    """Keep what a site gave with its answer, before anything is made of that."""
    if arriving.receipt:
        setting.receipts.keep(arriving.site, arriving.public_key, arriving.receipt)


def online(runtime: Runtime, members: Mapping[str, str]) -> dict[str, NodeFacts]:
    """Return the members that are online."""
    nodes = runtime.nodes()
    keys = {name: public_pem(key) for name, key in members.items()}
    return {n: nodes[k] for n, k in keys.items() if k in nodes and nodes[k].online}
