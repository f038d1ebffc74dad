"""C-FIND and C-MOVE (PS3.4 C.4.2): the PACS opens an association to our SCP."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import evt

from client.dicom.reasons import Reason, UnusableFile
from client.pacs import cfind
from client.pacs.cget import OUT_OF_RESOURCES, STORED, judge, requests
from client.pacs.connection.association import associate
from client.pacs.image_source import ArrivalObserver, Halt, RemoteSeries, only
from client.pacs.received_file import Landed, place
from client.pacs.storage_scp import listen
from client.site.pacs_section import PacsConfig
from common.platform.errors import TrustRefused

#: PS3.4 table C.4-2: the destination is unknown. Some say "unable to process" for it.
_DESTINATION_UNKNOWN, _UNABLE = 0xA801, 0xC000
#: PS3.7 annex C.5.22, for what was not asked for.
NOT_AUTHORISED = 0x0124


@contextmanager
def cmove(pacs: PacsConfig, data: Path) -> Iterator[CMove]:
    """Yield the source; its SCP listens meanwhile."""
    source = CMove(pacs, data)
    with listen(pacs, source.store):
        try:
            yield source
        finally:
            source.finder.close()


class CMove(cfind.Asking):
    """C-MOVE; also what its SCP asks and tells, by series."""

    def __init__(self, pacs: PacsConfig, data: Path) -> None:
        super().__init__(pacs, data)
        self._lock = threading.Lock()
        self._expected: dict[str, tuple[RemoteSeries, ArrivalObserver]] = {}  # by SeriesInstanceUID
        self._failures: dict[str, Exception] = {}  # the same

    def fetch(
        self, series: RemoteSeries, missing: Collection[str] | None, arrivals: ArrivalObserver
    ) -> None:
        """Ask the PACS to send the series, or its missing instances, to our title."""
        self.finder.close()  # all is found, and an association may be all that we are allowed
        with self._lock:
            self._expected[series.series] = series, arrivals
        try:
            with associate(self._pacs, [cfind.MOVE]) as association:
                for asked in requests(series, missing):
                    answers = association.send_c_move(asked, self._pacs.own_title, cfind.MOVE)
                    for status, _ in answers:
                        self._check(series.series)
                        self._judge(status)
        finally:
            with self._lock:
                del self._expected[series.series]
                self._failures.pop(series.series, None)

    def store(self, event: evt.Event) -> int:
        """Take what the PACS sends, if it was asked for, and return the status for it."""
        try:
            landed = place(self._data, [event.encoded_dataset()], self._asked_for)
        except UnusableFile as problem:
            self._tell_the_only_one(problem)
            if problem.reason == Reason.UNEXPECTED:
                return NOT_AUTHORISED
            return STORED  # a failure would end the whole series at some PACS
        except OSError as error:  # a full disk ends every series
            with self._lock:
                self._failures |= dict.fromkeys(self._expected, error)
            return OUT_OF_RESOURCES
        with self._lock:
            _, arrivals = self._expected.get(landed.series, (None, None))
        if arrivals is None:  # the series ended meanwhile; the next pull finds the file
            return STORED
        arrivals.landed(landed)
        try:
            arrivals.wait()
        except Halt as halt:
            with self._lock:
                self._failures[landed.series] = halt
        return STORED

    def _asked_for(self, landed: Landed) -> None:
        with self._lock:
            series, _ = self._expected.get(landed.series, (None, None))
        if series is None:
            raise UnusableFile(Reason.UNEXPECTED, "a series that was not asked for")
        only(series)(landed)

    def _tell_the_only_one(self, problem: UnusableFile) -> None:
        """Tell whose object it was, where there is no doubt: it may not say itself."""
        with self._lock:
            expected = list(self._expected.values())
        if len(expected) == 1 and problem.reason != Reason.UNEXPECTED:
            expected[0][1].refused(problem)

    def _check(self, series: str) -> None:
        with self._lock:
            failure = self._failures.get(series)
        if failure is not None:
            raise failure

    def _judge(self, status: Dataset) -> None:
        code = status.get("Status")
        nothing = not status.get("NumberOfCompletedSuboperations")
        if code == _DESTINATION_UNKNOWN or (code == _UNABLE and nothing):
            message = unknown_destination(self._pacs, code)
            raise TrustRefused(message)
        judge(self._pacs, code, "C-MOVE")


def unknown_destination(pacs: PacsConfig, code: int) -> str:
    """Return what a C-MOVE that sends nothing means; many PACS say 0xC000 and no more."""
    return (
        f"The PACS {pacs.called_title} moves nothing to us (C-MOVE status 0x{code:04X}). Ask the "
        f"PACS team to register our AE title {pacs.own_title} with this machine's address and "
        f"port {pacs.own_port}, and the firewall's team to let the PACS connect to that port."
    )
