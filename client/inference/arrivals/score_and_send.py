"""Listening: studies that arrive are scored one after the other, and their results sent.

The life of a study is the table in client/inference/arrivals/queue.py: it arrives until it is whole
(by the PACS's count where there is one to ask, client/inference/arrivals/pacs_count.py), is
scored once, and its results are sent until they have arrived. What goes wrong with one study is
written down for it, and the next one follows. Lines of the log name a study by its number in the
queue, never by an identifier.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from client.dicom.reasons import Unusable
from client.inference.arrivals.pacs_count import can_be_asked, missing
from client.inference.arrivals.purge import patients_of, remove
from client.inference.arrivals.queue import ArrivalQueue, Arrived
from client.inference.local import local_of
from client.inference.trained_model import TrainedModel, score_study
from client.pacs.receivers.deliver_everywhere import deliver_everywhere
from client.results.writing import write_results
from client.site.home import Home
from client.site.pacs_section import Listening, PacsConfig
from client.site.results_section import ResultReceivers
from client.site.withdrawals import withdrawn
from common.platform.errors import TrustRefused, Unreachable, WardroundError
from common.platform.logs import log

_log = log(__name__)
#: A PACS that does not answer, or lacks images, is asked again no sooner and no later than this.
_SOONEST_SECONDS, _LATEST_SECONDS = 2.0, 300.0


@dataclass(frozen=True, kw_only=True)
class Post:
    """Where the listener stands: what it scores with, and where results go."""

    home: Home
    model: TrainedModel
    arrivals: ArrivalQueue
    pacs: PacsConfig | None  # whom to ask whether a study is whole; None: nobody
    send: bool  # whether results go to that PACS
    rules: Listening
    receivers: ResultReceivers = field(default_factory=ResultReceivers)  # whom else to tell

    def step(self, now: Callable[[], float] = time.time) -> bool:
        """Take one study one step further; False when none is to be looked at now."""
        one = self.arrivals.due(now())
        if one is None:
            self._tidy(now())
            return False
        try:
            if one.state == "arriving":
                self._score(one, now)
            else:
                self._deliver(one, now)
        except (OSError, MemoryError) as error:
            # The machine's fault, not the study's: a full disk has room again some day.
            self._wait(one, now(), getattr(error, "strerror", None) or type(error).__name__)
        except Exception as error:  # noqa: BLE001  # one study never stops the others
            _log.exception("a study broke the listener's code", study=one.number)
            self._fail(one, now(), f"{type(error).__name__}; the log has more")
        return True

    # --- arriving ---------------------------------------------------------------------------

    def _score(self, one: Arrived, now: Callable[[], float]) -> None:
        if not self._is_whole(one, now()):
            return
        began = time.monotonic()
        local = local_of(self.home, self.model)
        if self._is_withdrawn(one):
            return
        problems: list[Unusable] = []
        try:
            scores = score_study(one.files, self.model, local, problems.append)
            folder = self.home.results / folder_name(one.study)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            results = [result for score in scores for result in write_results(score, folder)]
        except WardroundError as error:
            self._fail(one, now(), str(error))
            return
        if self._is_withdrawn(one):  # meanwhile
            for result in results:
                result.path.unlink(missing_ok=True)
            return
        self.arrivals.written(one, results, now())
        _log.info(
            "scored",
            study=one.number,
            images=len(one.files),
            scores=len(scores),
            left_out=len(problems),
            seconds=round(time.monotonic() - began, 1),
        )

    def _is_withdrawn(self, one: Arrived) -> bool:
        """Return whether the study's patient was withdrawn; then nothing of it is left here."""
        if not patients_of(one.files) & withdrawn(self.home):
            return False
        self._remove(one.study)
        _log.info("a withdrawn patient's study was removed; it has no result", study=one.number)
        return True

    def _is_whole(self, one: Arrived, now: float) -> bool:
        """Return whether the study is all there; otherwise it waits, or is given up."""
        if self.pacs is None or not can_be_asked(self.pacs):
            return True  # nobody to ask: it has been quiet for settle_seconds
        images = self.model.config.cohort.images
        modalities = images.modalities if images is not None else ()
        try:
            lacking = missing(self.pacs, one.series, one.own, one.study, modalities)
        except (Unreachable, TrustRefused) as error:
            self._wait(one, now, f"the PACS cannot be asked whether it is whole: {error}")
            return False
        if not lacking:
            return True
        if now - one.changed > 3600 * self.rules.give_up_hours:
            self._fail(one, now, f"{lacking}. Have the whole study sent again.")
        else:
            self._wait(one, now, lacking)
        return False

    # --- written ----------------------------------------------------------------------------

    def _deliver(self, one: Arrived, now: Callable[[], float]) -> None:
        if self._is_withdrawn(one):
            return
        results = self.arrivals.undelivered(one.study)
        if not self.send or (self.pacs is None and not self.receivers.any):
            self.arrivals.done(one, (), now(), "written; nothing is sent without --send")
            return
        delivered, fault = deliver_everywhere(results, self.pacs, self.receivers)
        if fault is not None:
            self._wait(one, now(), f"its results wait: {fault}")
            return
        arrived = [d.result for d in delivered if d.arrived]
        told = "; ".join(sorted({d.detail for d in delivered if d.detail}))
        if len(arrived) == len(delivered):
            self.arrivals.done(one, results, now(), told)
            _log.info("results have arrived", study=one.number, objects=len(arrived))
        elif now() - one.changed > 3600 * self.rules.give_up_hours:
            self._fail(one, now(), f"its results did not arrive: {told}")
        else:
            self._wait(one, now(), f"{len(arrived)} of {len(delivered)} results arrived: {told}")

    # --- what is kept -----------------------------------------------------------------------

    def _wait(self, one: Arrived, now: float, told: str) -> None:
        """Look at it again after as long as it has waited, within limits."""
        wait = min(max(now - one.changed, _SOONEST_SECONDS), _LATEST_SECONDS)
        self.arrivals.wait(one, now + wait, told)
        _log.info("a study waits; `wardround-site listen --list` says why", study=one.number)

    def _fail(self, one: Arrived, now: float, told: str) -> None:
        self.arrivals.failed(one, now, told)
        _log.warning("a study failed; `wardround-site listen --list` says why", study=one.number)

    def _tidy(self, now: float) -> None:
        """Remove what arrived long ago and is dealt with."""
        for study in self.arrivals.past(now - 3600 * self.rules.keep_hours):
            self._remove(study)

    def _remove(self, study: str) -> None:
        remove(self.home, self.arrivals, study)


def folder_name(study: str) -> str:
    """Return a name for a study's folder of results that is no identifier."""
    return hashlib.sha256(study.encode()).hexdigest()[:16]
