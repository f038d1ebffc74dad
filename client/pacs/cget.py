"""C-FIND and C-GET (PS3.4 C.4.3): images come over the association that we opened."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import evt

from client.dicom.reasons import UnusableFile
from client.pacs import cfind
from client.pacs.connection.association import COMPRESSED, UNCOMPRESSED, associate
from client.pacs.connection.storage_classes import classes_of
from client.pacs.image_source import ArrivalObserver, Halt, RemoteSeries, SeriesRefused, only
from client.pacs.received_file import place
from client.site.pacs_section import PacsConfig
from common.platform.errors import Unreachable

#: PS3.4 table B.2-1.
STORED, OUT_OF_RESOURCES = 0x0000, 0xA700
#: Completed with failures: what is missing shows when the counts are compared.
_PARTLY = 0xB000
#: A list of UIDs in one request; some PACS limit its length.
UIDS_AT_A_TIME = 50
_MOST_CLASSES = 8


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

    def fetch(
        self, series: RemoteSeries, missing: Collection[str] | None, arrivals: ArrivalObserver
    ) -> None:
        """Ask for the series, or for its missing instances, on one association."""
        self.finder.close()  # all is found, and an association may be all that we are allowed
        told = list(dict.fromkeys(cfind.instances(self._pacs, series).values()))
        guessed = [] if all(told) and told else classes_of(series.modality)
        classes = [*filter(None, told), *guessed]
        wanted = [cfind.GET, *list(dict.fromkeys(classes))[:_MOST_CLASSES]]
        notes = _Desk(self._data, series, arrivals)
        with associate(
            self._pacs, wanted, syntaxes=(UNCOMPRESSED, *COMPRESSED), store=notes.store
        ) as association:
            for asked in requests(series, missing):
                for status, _ in association.send_c_get(asked, cfind.GET):
                    notes.check()
                    if not (guessed and _nothing_fits(status)):
                        judge(self._pacs, status, "C-GET")
        if guessed and not notes.count:
            raise SeriesRefused(_untold(series))


class _Desk:
    """Takes C-STORE requests; what goes wrong in pynetdicom's call is raised outside of it."""

    def __init__(self, data: Path, series: RemoteSeries, arrivals: ArrivalObserver) -> None:
        self._data, self._expected, self._arrivals = data, only(series), arrivals
        self._failure: Exception | None = None
        self.count = 0  # objects that the PACS sent

    def store(self, event: evt.Event) -> int:
        """Put one object in its place and return the status for the PACS."""
        if self._failure is not None:
            return OUT_OF_RESOURCES
        self.count += 1
        try:
            self._arrivals.wait()
            landed = place(self._data, [event.encoded_dataset()], self._expected)
        except UnusableFile as problem:
            self._arrivals.refused(problem)
            return STORED  # a failure would end the whole series at some PACS
        except (OSError, Halt) as error:  # a full disk
            self._failure = error
            return OUT_OF_RESOURCES
        self._arrivals.landed(landed)
        return STORED

    def check(self) -> None:
        """Raise what went wrong."""
        if self._failure is not None:
            raise self._failure


def _nothing_fits(status: Dataset) -> bool:
    """Return whether all that failed were single objects, which the PACS could not send us."""
    return bool(status.get("NumberOfFailedSuboperations"))


def _untold(series: RemoteSeries) -> str:
    return (
        "the PACS leaves the optional SOPClassUID out of its answers (C-FIND at IMAGE level), so "
        f"the kinds of object that are usual for {series.modality or 'images'} were proposed, and "
        "it sent none. Ask the PACS team to return SOPClassUID, or write route: c-move or dicomweb"
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


def judge(pacs: PacsConfig, status: Dataset, service: str) -> None:
    """Return if a retrieval's status is good; Unreachable or SeriesRefused if not."""
    code = status.get("Status")
    if code is None:
        message = (
            f"The PACS {pacs.called_title} broke off a {service}. If it does so with every "
            f"series, ask the PACS team whether it allows {service} to {pacs.own_title}."
        )
        raise Unreachable(message)
    if code not in cfind.PENDING and code not in {cfind.SUCCESS, _PARTLY}:
        message = f"the PACS answers {service} with status 0x{code:04X}"
        raise SeriesRefused(message)
