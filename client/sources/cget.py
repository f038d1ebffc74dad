"""C-FIND and C-GET (PS3.4 C.4.3): images come over the association that we opened."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import evt

from client.dicom.reasons import UnusableFile
from client.pacs_config import PacsConfig
from client.sources import query
from client.sources.association import COMPRESSED, UNCOMPRESSED, associate
from client.sources.landing import place
from client.sources.source import Arrivals, Halt, RemoteSeries, SeriesRefused, only
from common.errors import Unreachable

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


class CGet(query.Asking):
    """C-GET."""

    def fetch(
        self, series: RemoteSeries, missing: Collection[str] | None, arrivals: Arrivals
    ) -> None:
        """Ask for the series, or for its missing instances, on one association."""
        self.finder.close()  # all is found, and an association may be all that we are allowed
        classes = dict.fromkeys(query.instances(self._pacs, series).values())
        wanted = [query.GET, *list(classes)[:_MOST_CLASSES]]
        desk = _Desk(self._data, series, arrivals)
        with associate(
            self._pacs, wanted, syntaxes=(UNCOMPRESSED, *COMPRESSED), store=desk.store
        ) as association:
            for asked in requests(series, missing):
                for status, _ in association.send_c_get(asked, query.GET):
                    desk.check()
                    judge(self._pacs, status, "C-GET")


class _Desk:
    """Takes C-STORE requests; what goes wrong in pynetdicom's call is raised outside of it."""

    def __init__(self, data: Path, series: RemoteSeries, arrivals: Arrivals) -> None:
        self._data, self._expected, self._arrivals = data, only(series), arrivals
        self._failure: Exception | None = None

    def store(self, event: evt.Event) -> int:
        """Put one object in its place and return the status for the PACS."""
        if self._failure is not None:
            return OUT_OF_RESOURCES
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
    if code not in query.PENDING and code not in {query.SUCCESS, _PARTLY}:
        message = f"the PACS answers {service} with status 0x{code:04X}"
        raise SeriesRefused(message)
