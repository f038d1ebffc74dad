"""C-FIND and C-GET (PS3.4 C.4.3): images come over the association that we opened."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset

from client.dicom.reasons import UnusableFile
from client.pacs import cfind
from client.pacs.connection.association import NETWORK_SECONDS, Proposal, associate
from client.pacs.connection.object_stream import StreamBroken, object_stream
from client.pacs.connection.storage_classes import classes_of, further_proposals, proposals
from client.pacs.image_source import ArrivalObserver, Halt, RemoteSeries, SeriesRefused, only
from client.pacs.received_file import place
from client.site.pacs_section import PacsConfig
from common.platform.errors import Unreachable

#: PS3.4 table B.2-1.
STORED, OUT_OF_RESOURCES = 0x0000, 0xA700
#: Completed with failures: what is missing shows when the counts are compared.
_PARTLY = 0xB000
#: Unable to perform sub-operations.
_UNABLE_TO_SEND = 0xA702
#: A list of UIDs in one request; some PACS limit its length.
UIDS_AT_A_TIME = 50
#: After so many a series counts as what breaks the association, and others have their turn.
_BREAKS = 4


@contextmanager
def cget(pacs: PacsConfig, data: Path) -> Iterator[CGet]:
    """Yield the source."""
    source = CGet(pacs, data)
    try:
        yield source
    finally:
        source.finder.close()


class CGet(cfind.Asking):
    """C-GET."""

    def __init__(self, pacs: PacsConfig, data: Path) -> None:
        super().__init__(pacs, data)
        self._lock = threading.Lock()
        self._found: dict[str, set[str]] = defaultdict(set)  # modality -> SOP classes that came
        self._exhausted: set[str] = set()  # series for which all was proposed
        self._broken: Counter[str] = Counter()  # series -> how often nothing but a break came

    def fetch(
        self, series: RemoteSeries, missing: Collection[str] | None, arrivals: ArrivalObserver
    ) -> None:
        """Ask for the series, or for its missing instances, one association after the other.

        Each next one proposes other classes, for what the one before did not bring.
        """
        self.finder.close()  # all is found, and an association may be all that we are allowed
        listed = cfind.instances(self._pacs, series)
        wanted = frozenset(listed if missing is None else missing)
        desk = _Desk(self._data, series, arrivals)
        refused: int | None = None
        for number, objects in enumerate(self._proposals(series, listed)):
            left = (missing if number == 0 else wanted - desk.sent) or None
            refused = self._get(series, left, objects, desk)
            if wanted <= desk.sent and refused is None:
                break
        with self._lock:
            self._found[series.modality] |= desk.classes
            if wanted - desk.sent:
                self._exhausted.add(series.series)
        if not desk.sent and wanted and not all(listed.values()):
            raise SeriesRefused(_UNTOLD)
        if not desk.sent and refused is not None:
            judge(self._pacs, refused, "C-GET")

    def _proposals(
        self, series: RemoteSeries, listed: Mapping[str, str]
    ) -> Iterator[list[Proposal]]:
        told = set(listed.values()) - {""}
        with self._lock:
            found, exhausted = self._found[series.modality], series.series in self._exhausted
        untold = not told or "" in listed.values()
        likely = [
            *sorted(told),
            *((*sorted(found), *classes_of(series.modality)) if untold else ()),
        ]
        yield from proposals(likely)
        if not exhausted:
            yield from further_proposals(likely)

    def _get(
        self,
        series: RemoteSeries,
        missing: Collection[str] | None,
        objects: Sequence[Proposal],
        desk: _Desk,
    ) -> int | None:
        """Return the status where objects failed that other classes may bring; None for none."""
        failed: int | None = None
        with (
            associate(self._pacs, [cfind.GET], objects=objects) as association,
            object_stream(association, NETWORK_SECONDS) as stream,
        ):
            try:
                for asked in requests(series, missing):
                    for answer in stream.get(cfind.GET, asked, desk.store):
                        desk.check()
                        if answer.failed or _may_be_the_classes(answer.status):
                            failed = answer.status
                        else:
                            judge(self._pacs, answer.status, "C-GET")
            except StreamBroken as error:
                desk.check()
                raise self._broken_off(series, desk) from error
        return failed

    def _broken_off(self, series: RemoteSeries, desk: _Desk) -> Unreachable | SeriesRefused:
        """Return what a break means: of one series again and again, it is the series."""
        with self._lock:
            self._broken[series.series] += not desk.sent
            often = self._broken[series.series]
        if often < _BREAKS:
            return broken_off(self._pacs, "C-GET")
        message = f"the PACS broke off {often} associations by which it was to be sent"
        return SeriesRefused(message)


class _Desk:
    """Takes C-STORE requests; what goes wrong is raised between them, so that each is answered."""

    def __init__(self, data: Path, series: RemoteSeries, arrivals: ArrivalObserver) -> None:
        self._data, self._expected, self._arrivals = data, only(series), arrivals
        self._failure: Exception | None = None
        self.sent: set[str] = set()  # SOP Instance UIDs
        self.classes: set[str] = set()  # SOP Class UIDs

    def store(self, sop_class: str, instance: str, content: Iterator[bytes]) -> int:
        """Put one object in its place and return the status for the PACS."""
        if self._failure is not None:
            return OUT_OF_RESOURCES
        self.sent.add(instance)
        self.classes.add(sop_class)
        try:
            self._arrivals.wait()
            landed = place(self._data, content, self._expected)
        except UnusableFile as problem:
            self._arrivals.refused(problem)
            return STORED  # a failure would end the whole series at some PACS
        except (OSError, Halt) as error:  # a full disk
            self._failure = error
            return OUT_OF_RESOURCES
        self.sent.add(landed.instance)
        self._arrivals.landed(landed)
        return STORED

    def check(self) -> None:
        """Raise what went wrong."""
        if self._failure is not None:
            raise self._failure


def _may_be_the_classes(status: int) -> bool:
    """Return whether a status may mean that no context fits (PS3.4 table C.4-3)."""
    return status == _UNABLE_TO_SEND or 0xC000 <= status <= 0xCFFF


_UNTOLD = (
    "the PACS leaves the optional SOPClassUID out of its answers (C-FIND at IMAGE level), so every "
    "storage class of the standard was proposed, uncompressed and compressed, and it sent none. "
    "Ask the PACS team what kind of object these are and whether C-GET sends them as they are "
    "stored, or write route: c-move or dicomweb"
)


def requests(series: RemoteSeries, missing: Collection[str] | None) -> Iterator[Dataset]:
    """Yield identifiers for a whole series, or for lists of its instances (PS3.4 C.4.2.1.4)."""
    uids = sorted(missing or ())
    for first in range(0, max(len(uids), 1), UIDS_AT_A_TIME):
        asked = Dataset()
        asked.QueryRetrieveLevel = "SERIES" if missing is None else "IMAGE"
        asked.StudyInstanceUID, asked.SeriesInstanceUID = series.study, series.series
        if missing is not None:
            asked.SOPInstanceUID = uids[first : first + UIDS_AT_A_TIME]
        yield asked


def judge(pacs: PacsConfig, code: int | None, service: str) -> None:
    """Return if a retrieval's status is good; Unreachable or SeriesRefused if not."""
    if code is None:
        raise broken_off(pacs, service)
    if code not in cfind.PENDING and code not in {cfind.SUCCESS, _PARTLY}:
        message = f"the PACS answers {service} with status 0x{code:04X}"
        raise SeriesRefused(message)


def broken_off(pacs: PacsConfig, service: str) -> Unreachable:
    """Return what a retrieval without a last answer means."""
    message = (
        f"The PACS {pacs.called_title} broke off a {service}. If it does so with every "
        f"series, ask the PACS team whether it allows {service} to {pacs.own_title}."
    )
    return Unreachable(message)
