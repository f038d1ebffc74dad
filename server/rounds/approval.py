"""Approval of a run by its sites: asked before the first round, and again while one waits."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from common.config.run_config import RunConfig
from common.messages.refusals import PASSING
from common.messages.wire import Answer, Proposal, Refusal, RefusalReason, Standing
from common.platform.errors import RunFailed
from server.files.status_writer import Board

#: Reasons that pass with a word of the site's admin: asked again soon.
_SOON = frozenset({RefusalReason.NOT_APPROVED, RefusalReason.PAUSED})
_SOON_SECONDS = 2.0
#: A full disk is looked at again.
_ROOM_SECONDS = 10.0
#: Hours begin, failures are mended, policies change: asked again, but not counted on.
_LATER_SECONDS = 60.0
#: A site whose answers were closed so often is not asked any more, by this process.
_MOST_FAULTS = 3
#: Nobody waits for sites that said this.
_NO = frozenset(RefusalReason) - PASSING


class Approval:
    """What each site said to one run's proposal; kept in memory, asked anew by a new process."""

    def __init__(self, run: str, seed: int, config: RunConfig) -> None:
        self.proposal = Proposal(run=run, round=0, seed=seed, config=config)
        self.open: dict[str, str] = {}  # sites by the name of the message they were sent
        self.standings: dict[str, Standing] = {}
        self.refusals: dict[str, Refusal] = {}
        self.faults: dict[str, list[str]] = {}  # why answers of a site were closed
        self._asked: dict[str, float] = {}

    def due(self, online: Collection[str]) -> list[str]:
        """Return the sites to be asked now."""
        waiting = set(self.open.values())
        return [
            name
            for name in sorted(online)
            if name not in self.standings
            and name not in waiting
            and self._is_time(name)
            and not self.is_out(name)
        ]

    def asked(self, messages: Mapping[str, str]) -> None:
        """Note the messages that sites were sent."""
        for site, message in messages.items():
            self.open[message] = site
            self._asked[site] = time.monotonic()

    def take(self, message: str, answer: Answer) -> None:
        """Note what a site said."""
        site = self.open.pop(message)
        match answer:
            case Standing():
                self.standings[site] = answer
                self.refusals.pop(site, None)
            case Refusal():
                self.refusals[site] = answer
            case _:
                self._asked.pop(site, None)

    def lost(self, message: str) -> None:
        """Note that a message was not answered; its site is asked again."""
        self.open.pop(message, None)

    def fault(self, site: str, why: str) -> None:
        """Count an answer that was closed against its site; the site is asked later, or never."""
        self.faults.setdefault(site, []).append(why)
        self._asked[site] = time.monotonic()

    def is_out(self, site: str) -> bool:
        """Return whether so many of a site's answers were closed that the run does without it."""
        return len(self.faults.get(site, ())) >= _MOST_FAULTS

    def withdraw(self, site: str, refusal: Refusal) -> None:
        """Note that a site that had said yes said no in a round; it is asked again."""
        self.standings.pop(site, None)
        self.refusals[site] = refusal
        self._asked[site] = time.monotonic()

    def ready(self, online: Collection[str]) -> tuple[str, ...]:
        """Return the sites that said yes and are online."""
        ready = (n for n in self.standings if n in online and not self.is_out(n))
        return tuple(sorted(ready))

    def undecided(self, members: Collection[str]) -> list[str]:
        """Return the sites that have said neither yes nor a no that nobody waits for."""
        return [n for n in members if n not in self.standings and not self._said_no(n)]

    def is_read(self, site: str) -> bool:
        """Return whether a site has the proposal and has not answered: it reads its images."""
        return site in self.open.values() and site not in self.refusals

    def check_quorum(self, members: Collection[str], quorum: int) -> None:
        """Raise RunFailed when too many sites said no for a quorum ever to come about."""
        possible = [name for name in members if not self._said_no(name)]
        if len(members) >= quorum > len(possible):
            raise RunFailed(self.why_waiting(members, quorum))

    def why_waiting(self, members: Collection[str], quorum: int) -> str:
        """Return what keeps the run from starting, and what to do."""
        told = [
            f"{name}: {self._why_not(name)}"
            for name in sorted(members)
            if name not in self.standings or self.is_out(name)
        ]
        return (
            f"{len(members) - len(told)} of {len(members)} sites take part, expected at least "
            f"{quorum} (aggregation.smallest_quorum). "
            f"{'; '.join(told) or 'No other site is accepted'}. "
            "Change the configuration or ask the sites, then resume the run."
        )

    def show(self, board: Board, online: Collection[str]) -> None:
        """Put what the sites said on the board."""
        for name in online:
            if name in self.faults and (self.is_out(name) or name not in self.standings):
                board.site(name, "refused", f"an answer was closed: {self.faults[name][-1]}")
            elif name in self.standings:
                board.site(name, "ready")
                board.sites[name].patients = self.standings[name].patients
                privacy = self.proposal.config.privacy
                if privacy != "none":
                    known = privacy.training_patients_are(name)
                    board.sites[name].patients_are = known
            elif name in self.refusals:
                refusal = self.refusals[name]
                board.site(name, "refused" if refusal.reason in _NO else "asked", refusal.told)
            else:
                board.site(name, "asked", "no answer yet")

    def _why_not(self, name: str) -> str:
        if name in self.faults:
            return f"an answer was closed: {self.faults[name][-1]}"
        return self.refusals[name].told if name in self.refusals else "no answer"

    def _said_no(self, name: str) -> bool:
        if name in self.faults and name not in self.standings:
            return True
        if self.is_out(name):
            return True
        return name in self.refusals and self.refusals[name].reason in _NO

    def _is_time(self, name: str) -> bool:
        if name not in self._asked:
            return True
        refusal = self.refusals.get(name)
        if name in self.faults:
            return time.monotonic() - self._asked[name] > _LATER_SECONDS
        seconds = _LATER_SECONDS
        if refusal is None or refusal.reason in _SOON:
            seconds = _SOON_SECONDS
        elif refusal.reason is RefusalReason.NO_ROOM:
            seconds = _ROOM_SECONDS
        return time.monotonic() - self._asked[name] > seconds
