"""Pull: find what there is, fetch what is missing, compare with what the PACS says.

It ends complete, or says for each series what is missing and why. A PACS that goes away is waited
for; a process that is killed goes on where it was, and no instance is fetched twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.dicom.reasons import UnusableFile
from client.pacs.arrival_batch import ArrivalBatch, ArrivalNotes
from client.pacs.fsync import boot
from client.pacs.image_source import Halt, ImageSource, RemoteSeries, SeriesRefused, open_source
from client.pacs.pull_queue import Counted, Queue
from client.pacs.pull_selection import WantedSeries
from client.pacs.rate_limit import Pace, pause_seconds
from client.pacs.received_file import folder_of, is_uid, leftovers, look
from client.site.pacs_section import PacsConfig
from common.platform.errors import RunFailed, Unreachable
from common.platform.file_lock import FileLock, Taken

Tell = Callable[[str], None]  # a line for whoever watches; called from any thread

#: A series that the PACS refuses, or that stays short, is asked for so often in one pull.
_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """How a pull ended."""

    counted: Counted
    unanswered: tuple[WantedSeries, ...]  # of these the PACS has nothing that fits


@dataclass(frozen=True, kw_only=True)
class PullOrder:
    """What is pulled, and to where."""

    pacs: PacsConfig
    data: Path  # folder
    wanted: Sequence[WantedSeries]
    withdrawn: frozenset[str]  # PatientIDs of whom nothing is fetched


def pull(order: PullOrder, notes: ArrivalNotes, pace: Pace, tell: Tell) -> Pulled:
    """Pull what is wanted; Unreachable or TrustRefused when the PACS does not let it go on.

    RunFailed when the data folder cannot be written, AtWork when another pull fills it. Returns
    early, with series left waiting, when `pace` was stopped.
    """
    try:
        return _pull(order, notes, pace, tell)
    except OSError as error:  # a full disk, a share that went away
        raise cannot_write(order.data, error) from error


def _pull(order: PullOrder, notes: ArrivalNotes, pace: Pace, tell: Tell) -> Pulled:
    queue = notes.queue
    order.data.mkdir(parents=True, exist_ok=True)
    with _alone(order.data), open_source(order.pacs, order.data) as source:
        leftovers(order.data)
        if not pace.open:
            tell(f"Outside the hours {order.pacs.hours} of the PACS; waiting for them.")
            pace.until_open()
        found, unanswered = _list(source, order, pace, tell)
        if pace.stopped:
            return Pulled(counted=queue.counted(), unanswered=unanswered)
        queue.offer(found)
        queue.after_start(boot())
        _look_again(queue, order.data)
        _Work(source, notes, pace, order.data, tell).run(order.pacs.associations)
    return Pulled(counted=queue.counted(), unanswered=unanswered)


class AtWork(RunFailed):
    """Another pull fills the same folder."""


def cannot_write(data: Path, error: OSError) -> RunFailed:
    """Return what a disk that takes no more means."""
    message = (
        f"Cannot write to {data}: {error.strerror or error}. Make room there or mount it again; "
        "`wardround-site pull` goes on from here."
    )
    return RunFailed(message)


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the data folder; AtWork when another pull does."""
    try:
        lock = FileLock(data / ".pull.lock", mode=0o666)
    except Taken as error:
        message = f"Another pull into {data} is at work. Wait for it, or end it first."
        raise AtWork(message) from error
    with lock:
        yield


def _list(
    source: ImageSource, order: PullOrder, pace: Pace, tell: Tell
) -> tuple[list[RemoteSeries], tuple[WantedSeries, ...]]:
    """Ask everything there is to ask; each question is tried again after a cut."""
    found: dict[str, RemoteSeries] = {}
    unanswered = []
    unnamed = set[str]()
    for number, one in enumerate(order.wanted):
        if number and number % 100 == 0:
            tell(f"Asked {number} of {len(order.wanted)} questions: {len(found)} series.")
        asked = () if one.question.why_not_asked else _asked(source, one, pace, tell)
        fitting = [s for s in asked if one.takes(s)]
        for more in {m for s in fitting if (m := one.of_study(s)) is not None}:
            fitting += [s for s in _asked(source, more, pace, tell) if more.takes(s)]
        allowed = [s for s in fitting if s.patient not in order.withdrawn]
        if order.withdrawn:
            unnamed |= {s.series for s in allowed if not s.patient}
            allowed = [s for s in allowed if s.patient]
        # A hostile UID would be a path; such a series is nothing that could be stored.
        found |= {s.series: s for s in allowed if is_uid(s.series) and is_uid(s.study)}
        if not fitting:
            unanswered.append(one)
        if pace.stopped:
            break
    for remark in source.remarks():
        tell(remark)
    if unnamed:
        tell(
            f"{len(unnamed)} series are not fetched: the PACS does not say whose they are "
            "(PatientID), and patients have withdrawn."
        )
    return list(found.values()), tuple(unanswered)


def _asked(source: ImageSource, one: WantedSeries, pace: Pace, tell: Tell) -> list[RemoteSeries]:
    for tries in range(1, _TRIES + 1):
        try:
            return list(source.find(one.question))
        except Unreachable as error:
            if tries == _TRIES:
                raise
            tell(f"{error} Asking again in {pause_seconds(tries):.0f} s.")
            pace.pause(pause_seconds(tries))
    return []


def _look_again(queue: Queue, data: Path) -> None:
    """Notice files that somebody removed since."""
    for series in queue.complete():
        folder = folder_of(data, series.study, series.series)
        there = {path.stem for path in folder.glob("*.dcm")}
        gone = queue.here(series) - there
        if gone:
            queue.lost(series, gone)


class _Work:
    """The threads that fetch, and what they share."""

    def __init__(
        self, source: ImageSource, notes: ArrivalNotes, pace: Pace, data: Path, tell: Tell
    ) -> None:
        self._source, self._notes, self._pace, self._data = source, notes, pace, data
        self._queue, self._tell = notes.queue, tell
        self._fatal: list[BaseException] = []
        self._told = "", 0.0  # and when

    def run(self, threads: int) -> None:
        """Fetch until nothing waits; the first error that no waiting mends ends all threads."""
        started = [threading.Thread(target=self._thread, daemon=True) for _ in range(threads)]
        for thread in started:
            thread.start()
        try:
            for thread in started:
                while thread.is_alive():
                    thread.join(0.2)
        except KeyboardInterrupt:
            self._pace.stop()
            for thread in started:
                thread.join(5)
            raise
        if self._fatal:
            raise self._fatal[0]

    def _thread(self) -> None:
        try:
            while not self._pace.stopped:
                series = self._queue.take()
                if series is None:
                    return
                self._until_done(series)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._fatal.append(error)
            self._pace.stop()

    def _until_done(self, series: RemoteSeries) -> None:
        """Bring one series; wait for the PACS and its hours as often as it takes."""
        cuts = refusals = 0
        while not self._pace.stopped:
            if not self._pace.open:
                self._tell("The PACS's hours are over; going on when they begin again.")
                self._pace.until_open()
                continue
            batch = ArrivalBatch(self._notes, self._pace)
            try:
                with batch:
                    missing = self._bring(series, batch)
            except Halt:
                continue
            except SeriesRefused as error:
                refusals += 1
                if refusals == _TRIES:
                    here, of = len(self._queue.here(series)), series.instances or "unknown"
                    told = f"{here} of {of} images came; {error}"
                    self._queue.finish(series, "incomplete", told)
                    return
                self._pace.pause(pause_seconds(refusals))
            except Unreachable as error:
                cuts = 1 if batch.count else cuts + 1
                if not self._pace.patient:
                    raise
                self._tell_once(error, pause_seconds(cuts))
                self._pace.pause(pause_seconds(cuts))
            else:
                self._close(series, missing, batch.problems)
                return
        self._queue.put_back(series)

    def _tell_once(self, error: Unreachable, seconds: float) -> None:
        """Tell what several threads meet at the same time."""
        text, now = f"{error} Going on in {seconds:.0f} s.", time.monotonic()
        before, at = self._told
        if text != before or now - at > seconds:
            self._told = text, now
            self._tell(text)

    def _bring(self, series: RemoteSeries, batch: ArrivalBatch) -> frozenset[str]:
        """Fetch what is missing of a series; return what still is."""
        here = self._adopted(series)
        if not here:
            self._source.fetch(series, None, batch)
            batch.flush()
            here = self._queue.here(series)
            if series.instances is not None and len(here) == series.instances:
                return frozenset()
        listed = self._source.instances(series)
        if not listed and (not here or len(here) < (series.instances or 0)):
            message = "the PACS lists none of its images"
            raise SeriesRefused(message)
        missing = listed - here
        for _ in range(_TRIES - 1):
            if not missing:
                break
            self._source.fetch(series, missing, batch)
            batch.flush()
            missing -= self._queue.here(series)
        return missing

    def _close(
        self, series: RemoteSeries, missing: frozenset[str], problems: Sequence[UnusableFile]
    ) -> None:
        if not missing:
            self._queue.finish(series, "complete")
            return
        here = len(self._queue.here(series))
        why = {f"{p.reason.name}{f' ({p.detail})' if p.detail else ''}" for p in problems}
        told = f"{here} of {here + len(missing)} images came" + (
            f"; the others are {', '.join(sorted(why))}" if why else "; the PACS does not send more"
        )
        self._queue.finish(series, "incomplete", told)

    def _adopted(self, series: RemoteSeries) -> frozenset[str]:
        """Return what is on disk, with files that a crash kept out of the queue."""
        here = self._queue.here(series)
        folder = folder_of(self._data, series.study, series.series)
        found = []
        for path in folder.glob("*.dcm"):
            if path.stem in here:
                continue
            try:
                landed = look(path, path.stat().st_size, self._data)
            except UnusableFile:
                continue
            if landed.path == path:
                found.append(landed)
        if found:
            self._queue.acknowledge(found, boot())
            self._notes.flusher.flush(found)
        return here | {one.instance for one in found}
