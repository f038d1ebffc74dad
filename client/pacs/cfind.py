"""C-FIND (PS3.4 C.4.1): studies and series of the PACS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from client.pacs.connection.association import associate
from client.pacs.image_source import PacsQuery, RemoteSeries
from client.pacs.received_file import is_uid
from client.site.pacs_section import PacsConfig
from common.platform.errors import TrustRefused, Unreachable

#: Study Root Query/Retrieve (PS3.4 C.6.2).
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
#: PS3.7 annex C.
SUCCESS, PENDING = 0x0000, frozenset({0xFF00, 0xFF01})


class Finder:
    """Asks many questions on one association, as some PACS log each; opened when it is needed."""

    def __init__(self, pacs: PacsConfig) -> None:
        self._pacs = pacs
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._association: Association | None = None

    def find(self, question: PacsQuery) -> Iterator[RemoteSeries]:
        """Return the series that match; Unreachable or TrustRefused when the PACS drops it."""
        with self._lock:
            try:
                return iter(self._found(question))
            except BaseException:
                self._close()
                raise

    def close(self) -> None:
        """Let the association go; the next question opens another."""
        with self._lock:
            self._close()

    def _found(self, question: PacsQuery) -> list[RemoteSeries]:
        if self._association is None or not self._association.is_established:
            self._close()
            self._association = self._open.enter_context(associate(self._pacs, [FIND]))
        return list(find(self._association, self._pacs, question))

    def _close(self) -> None:
        self._association = None
        self._open.close()


class Asking:
    """What the routes over DIMSE have in common: they ask by C-FIND."""

    def __init__(self, pacs: PacsConfig, data: Path) -> None:
        self._pacs, self._data = pacs, data
        self.finder = Finder(pacs)

    def find(self, question: PacsQuery) -> Iterator[RemoteSeries]:
        """Ask by C-FIND."""
        return self.finder.find(question)

    def instances(self, series: RemoteSeries) -> frozenset[str]:
        """Ask by C-FIND at image level."""
        return frozenset(instances(self._pacs, series))

    def remarks(self) -> tuple[str, ...]:
        """Return nothing: faults are raised."""
        return ()


def find(association: Association, pacs: PacsConfig, question: PacsQuery) -> Iterator[RemoteSeries]:
    """Yield the series that match; Unreachable or TrustRefused when the PACS drops the query."""
    if question.key == "SeriesInstanceUID":
        yield from _series(association, pacs, Dataset(), question.value)
        return
    asked = Dataset()
    if not question.value.isascii():
        asked.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, PS3.3 C.12.1.1.2
    asked.QueryRetrieveLevel = "STUDY"
    asked.PatientID = asked.AccessionNumber = asked.StudyInstanceUID = ""
    asked.StudyDate = question.dates
    asked.ModalitiesInStudy = question.modality
    if question.key is not None:
        setattr(asked, question.key, question.value)
    for study in ask(association, pacs, asked):
        if question.key is not None and _text(study, question.key) not in {"", question.value}:
            continue  # what a wildcard matched beside
        if is_uid(_text(study, "StudyInstanceUID")):
            yield from _series(association, pacs, study, "")


def instances(pacs: PacsConfig, series: RemoteSeries) -> dict[str, str]:
    """Return SOP Instance UID -> SOP Class UID of a series."""
    with associate(pacs, [FIND]) as association:
        return listed(association, pacs, series)


def listed(association: Association, pacs: PacsConfig, series: RemoteSeries) -> dict[str, str]:
    """Do so on an association that is there."""
    asked = Dataset()
    asked.QueryRetrieveLevel = "IMAGE"
    asked.StudyInstanceUID, asked.SeriesInstanceUID = series.study, series.series
    asked.SOPInstanceUID = asked.SOPClassUID = ""
    found = ask(association, pacs, asked)
    return {_text(one, "SOPInstanceUID"): _text(one, "SOPClassUID") for one in found}


def ask(association: Association, pacs: PacsConfig, asked: Dataset) -> list[Dataset]:
    """Return the matches of a query.

    An unknown calling title may be let in and then dropped without a word, which pynetdicom
    gives as an empty status: that is no empty answer.
    """
    found = []
    for status, match in association.send_c_find(asked, FIND):
        code = status.get("Status")
        if code is None:
            raise dropped(pacs)
        if code in PENDING and match is not None:
            found.append(match)
        elif code != SUCCESS:
            message = (
                f"The PACS {pacs.called_title} refuses a query (C-FIND) with status 0x{code:04X}. "
                f"Ask the PACS team to allow queries to {pacs.own_title}."
            )
            raise TrustRefused(message)
    return found


def dropped(pacs: PacsConfig) -> Unreachable:
    """Return what a query without any answer means."""
    message = (
        f"The PACS {pacs.called_title} took the association and dropped the query without an "
        f"answer. If that stays so, it does not know our title {pacs.own_title}: ask the PACS team "
        "to register it with this machine's address, for query and retrieve."
    )
    return Unreachable(message)


def _series(
    association: Association, pacs: PacsConfig, study: Dataset, series: str
) -> Iterator[RemoteSeries]:
    asked = Dataset()
    asked.QueryRetrieveLevel = "SERIES"
    asked.StudyInstanceUID = _text(study, "StudyInstanceUID")
    asked.SeriesInstanceUID, asked.Modality = series, ""
    asked.NumberOfSeriesRelatedInstances = ""
    if series:
        asked.PatientID = asked.AccessionNumber = ""
    for one in ask(association, pacs, asked):
        count = _text(one, "NumberOfSeriesRelatedInstances")
        yield RemoteSeries(
            patient=_text(study, "PatientID") or _text(one, "PatientID"),
            accession=_text(study, "AccessionNumber") or _text(one, "AccessionNumber"),
            study=_text(one, "StudyInstanceUID") or asked.StudyInstanceUID,
            series=_text(one, "SeriesInstanceUID"),
            modality=_text(one, "Modality"),
            instances=int(count) if count.isdigit() else None,
        )


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip(" \0")
