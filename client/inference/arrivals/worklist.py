"""Studies by the PACS's worklist: claimed, fetched, scored, and told of as done (IHE AIW-I).

The Transaction UID with which a workitem is claimed is on the disk before the claim, so for a crash
at any moment:

    before the claim       another one takes it, or we do
    between claim and row   the row is there; whether the claim came through is asked
    while it is fetched or scored    it goes on with what has arrived, under the same transaction
    between delivery and the word that it is done    the word is said again
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydicom.uid import generate_uid

from client.dicom.reasons import UnusableFile
from client.inference.arrivals.queue import ArrivalQueue, Listed
from client.pacs.image_source import PacsQuery, SeriesRefused, open_source
from client.pacs.received_file import Landed, durable, leftovers
from client.pacs.workitems import Workitems
from client.site.pacs_section import PacsConfig, Worklist
from client.site.shared_database import SharedDatabase
from common.platform.errors import ConfigurationError, WardroundError
from common.platform.logs import log

_log = log(__name__)
_TABLES = """
CREATE TABLE IF NOT EXISTS workitem (
    uid TEXT PRIMARY KEY, txn TEXT NOT NULL, study TEXT NOT NULL, began REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('claiming', 'claimed', 'fetched'))
) STRICT;
"""


@dataclass(frozen=True, kw_only=True)
class _Held:
    uid: str
    transaction: str
    study: str
    began: float  # seconds since 1970
    state: str


class WorkitemLedger(SharedDatabase):
    """Which workitems are ours."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            _TABLES,
            synchronous="FULL",
            remedy="Remove it; workitems that were in progress have to be released at the PACS.",
        )

    def note(self, uid: str, study: str, now: float) -> str:
        """Write down a claim that is to be made, and return its transaction."""
        transaction = str(generate_uid(prefix=None))
        with self._lock, self._database as database:
            database.execute(
                "INSERT OR REPLACE INTO workitem VALUES (?, ?, ?, ?, 'claiming')",
                (uid, transaction, study, now),
            )
        return transaction

    def set(self, uid: str, state: Literal["claimed", "fetched"]) -> None:
        """Note how far a workitem is."""
        with self._lock, self._database as database:
            database.execute("UPDATE workitem SET state = ? WHERE uid = ?", (state, uid))

    def over(self, uid: str) -> None:
        """Forget a workitem: it names a patient's study."""
        with self._lock, self._database as database:
            database.execute("DELETE FROM workitem WHERE uid = ?", (uid,))
        self._leave_no_trace()

    def open(self) -> tuple[_Held, ...]:
        """Return the workitems that are not over."""
        with self._lock:
            rows = self._database.execute(
                "SELECT uid, txn, study, began, state FROM workitem ORDER BY began"
            ).fetchall()
        return tuple(
            _Held(uid=uid, transaction=txn, study=study, began=began, state=state)
            for uid, txn, study, began, state in rows
        )


@contextmanager
def by_worklist(
    pacs: PacsConfig, folder: Path, ledger: Path, arrivals: ArrivalQueue
) -> Iterator[str]:
    """Perform workitems until left; yields which in words.

    ConfigurationError when site.yaml does not say which are ours.
    """
    rules = pacs.listen.worklist
    if rules is None or pacs.route == "folder":
        message = (
            "site.yaml does not say which workitems are ours, or the PACS's route cannot fetch a "
            "study. Write pacs.listen.worklist: {label: ...} or {code: ...}, and a route that asks."
        )
        raise ConfigurationError(message)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    leftovers(folder)
    stop = threading.Event()
    with WorkitemLedger(ledger) as held:
        performer = Performer(pacs=pacs, rules=rules, folder=folder, ledger=held, arrivals=arrivals)

        def work() -> None:
            while not stop.is_set():
                try:
                    performer.look()
                except Exception:  # noqa: BLE001  # one workitem never ends the looking
                    _log.exception("a workitem broke the listener's code")
                stop.wait(rules.poll_seconds)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield f"workitems of {rules.url or pacs.url}"
        finally:
            stop.set()
            thread.join()


@dataclass(frozen=True, kw_only=True)
class Performer:
    """Takes workitems one step further at a time."""

    pacs: PacsConfig
    rules: Worklist
    folder: Path  # where images that arrive are put
    ledger: WorkitemLedger
    arrivals: ArrivalQueue
    now: Callable[[], float] = time.time

    def look(self) -> None:
        """Go on with what is ours, then claim the next; what goes wrong is tried again later."""
        try:
            with Workitems(self.pacs, self.rules) as service:
                for held in self.ledger.open():
                    self._go_on(held, service)
                if not self.ledger.open():  # one at a time: others perform, too
                    self._claim_next(service)
        except (WardroundError, OSError) as error:
            _log.warning("the worklist waits", why=str(error))

    def _claim_next(self, service: Workitems) -> None:
        for one in service.scheduled():
            transaction = self.ledger.note(one.uid, one.study, self.now())
            if not service.claim(one.uid, transaction):
                self.ledger.over(one.uid)  # somebody else was faster
                continue
            self.ledger.set(one.uid, "claimed")
            _log.info("a workitem was claimed")
            (held,) = [mine for mine in self.ledger.open() if mine.uid == one.uid]
            self._go_on(held, service)
            return

    def _go_on(self, held: _Held, service: Workitems) -> None:
        if held.state == "claiming":
            # Killed between row and answer: whether the claim came through, the server knows.
            mine = service.is_held(held.uid, held.transaction)
            if not mine:
                self.ledger.over(held.uid)
                return
            self.ledger.set(held.uid, "claimed")
        if held.state != "fetched":
            if not held.study:
                self._cancel(held, service, "The input names not exactly one study.")
                return
            if not self._fetch(held.study):
                self._cancel(held, service, "The PACS has no image of the study that can be read.")
                return
            self.ledger.set(held.uid, "fetched")
        self._finish(held, service)

    def _fetch(self, study: str) -> bool:
        """Fetch a study's images into the queue; return whether there is any."""
        question = PacsQuery(
            key="StudyInstanceUID", value=study, modality="", first_day="", last_day=""
        )
        taker = _Taker(self.arrivals, self.now, self.pacs.listen.settle_seconds)
        with open_source(self.pacs, self.folder) as source:
            for series in source.find(question):
                if series.study == study:
                    # What does not come now is waited for as of a study that was sent.
                    with contextlib.suppress(SeriesRefused):
                        source.fetch(series, None, taker)
        return any(one.study == study for one in self.arrivals.listed())

    def _finish(self, held: _Held, service: Workitems) -> None:
        """Say that a workitem is done or given up, once its study is."""
        found = next((one for one in self.arrivals.listed() if one.study == held.study), None)
        if found is None:
            self._cancel(held, service, "The study was withdrawn.")
        elif found.state == "failed":
            self._cancel(held, service, _reason(found))
        elif found.state == "done":
            results = self.arrivals.results(held.study)
            service.complete(held.uid, held.transaction, results, held.began)
            self.ledger.over(held.uid)
            _log.info("a workitem is completed", study=found.number, objects=len(results))

    def _cancel(self, held: _Held, service: Workitems, why: str) -> None:
        service.cancel(held.uid, held.transaction, why)
        self.ledger.over(held.uid)
        _log.warning("a workitem was given up", why=why)


def _reason(found: Listed) -> str:
    return found.told or "The study could not be scored."


class _Taker:
    """Puts images that a source fetches into the queue (an ArrivalObserver)."""

    def __init__(self, arrivals: ArrivalQueue, now: Callable[[], float], settle: float) -> None:
        self._arrivals, self._now, self._settle = arrivals, now, settle

    def wait(self) -> None:
        """Return at once: a study that is asked for is wanted now."""

    def landed(self, one: Landed) -> None:
        """Let an image reach the disk, and note it."""
        durable([one.path])
        digest = hashlib.sha256(one.path.read_bytes()).hexdigest()
        now = self._now()
        self._arrivals.came(one, digest, now, now + self._settle)

    def refused(self, problem: UnusableFile) -> None:
        """Write down what is no usable file, without an identifier."""
        _log.warning("an image was not taken", why=problem.reason.name)
