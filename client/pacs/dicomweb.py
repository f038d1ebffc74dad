"""DICOMweb (PS3.18): QIDO-RS finds, WADO-RS brings a series straight to disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from client.dicom.reasons import UnusableFile
from client.pacs.connection.multipart import Malformed, Read, boundary_of, parts
from client.pacs.connection.web_session import TIMEOUT, refusal, web_session
from client.pacs.image_source import (
    NOBODY,
    ArrivalObserver,
    Key,
    PacsQuery,
    RemoteSeries,
    SeriesRefused,
    in_days,
    merged,
    modality_of,
    only,
)
from client.pacs.received_file import Expected, is_uid, place
from client.site.pacs_section import PacsConfig
from common.platform.errors import Unreachable

#: As they are stored, whatever the transfer syntax (PS3.18 8.7.3.5.2).
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_PAGE = 500
_PIECE_BYTES = 1 << 20
_TAGS: Mapping[Key, str] = {
    "PatientID": "00100020",
    "AccessionNumber": "00080050",
    "StudyInstanceUID": "0020000D",
    "SeriesInstanceUID": "0020000E",
}
_RELATED_INSTANCES = "00201209"
_STATUS_SERIES, _STATUS_BUSY = frozenset({404, 406, 409, 410, 500}), frozenset({413, 429})

Entry = Mapping[str, object]  # DICOM JSON (PS3.18 annex F): tag -> element


@contextmanager
def dicomweb(pacs: PacsConfig, data: Path) -> Iterator[DicomWeb]:
    """Yield the source, with a session of its own."""
    with web_session(pacs) as session:
        for adapter in session.adapters.values():
            if isinstance(adapter, HTTPAdapter):
                adapter.init_poolmanager(2, pacs.associations)
        yield DicomWeb(pacs, data, session)


class DicomWeb:
    """QIDO-RS and WADO-RS."""

    def __init__(self, pacs: PacsConfig, data: Path, session: requests.Session) -> None:
        self._pacs, self._data, self._session = pacs, data, session
        self._root = (pacs.url or "").rstrip("/")
        self._ignored: dict[Key, bool] = {}  # whether the server answers with everybody

    def find(self, question: PacsQuery) -> Iterator[RemoteSeries]:
        """Ask for studies, and each study for its series, as servers answer that everywhere."""
        return merged(self._found(question))

    def _found(self, question: PacsQuery) -> Iterator[RemoteSeries]:
        if question.key == "SeriesInstanceUID":
            yield from self._series("series", {"SeriesInstanceUID": question.value}, {})
            return
        studies: dict[str, Entry] = {}
        for study in self._studies(question):
            said = text(study, _TAGS[question.key]) if question.key else ""
            if question.key and said not in {"", question.value}:
                continue  # what a wildcard matched beside
            if question.key and not said:
                if self._ignores(question.key):
                    continue
                tag = _TAGS[question.key]
                study = {**study, tag: {"Value": [question.value]}}  # noqa: PLW2901 - with what it lacks
            uid = text(study, "0020000D")
            if is_uid(uid) and in_days(text(study, "00080020"), question):
                studies.setdefault(uid, study)
        for uid, study in studies.items():
            yield from self._series(f"studies/{uid}/series", {}, study)

    def _studies(self, question: PacsQuery) -> Iterator[Entry]:
        asked: dict[str, str] = {}
        if question.key:
            asked[question.key] = question.value
        if question.dates:
            asked["StudyDate"] = question.dates
        if question.modality:
            asked["ModalitiesInStudy"] = question.modality
        return self._pages("studies", asked)

    def _ignores(self, key: Key) -> bool:
        """Return whether a query by this key finds a patient whom nobody has."""
        if key not in self._ignored:
            nobody = PacsQuery(key=key, value=NOBODY, modality="", first_day="", last_day="")
            self._ignored[key] = any(True for _ in self._studies(nobody))
        return self._ignored[key]

    def instances(self, series: RemoteSeries) -> frozenset[str]:
        """Ask for the instances of a series."""
        entries = self._pages(f"studies/{series.study}/series/{series.series}/instances", {})
        return frozenset(
            uid
            for entry in entries
            if is_uid(uid := text(entry, "00080018"))
            and text(entry, "0020000E") in {"", series.series}
        )

    def remarks(self) -> tuple[str, ...]:
        """Return what is ignored; other faults are raised."""
        return tuple(
            f"The PACS at {self._root} answers a query by {key} with everybody's studies and does "
            f"not say their {key}: none of those is taken."
            for key, ignored in self._ignored.items()
            if ignored
        )

    def fetch(
        self, series: RemoteSeries, missing: Collection[str] | None, arrivals: ArrivalObserver
    ) -> None:
        """Take the series in one answer, or each missing instance in one of its own."""
        path = f"studies/{series.study}/series/{series.series}"
        if missing is None:
            self._retrieve(path, only(series), arrivals)
            return
        for uid in sorted(missing):
            if is_uid(uid):
                self._retrieve(f"{path}/instances/{uid}", only(series), arrivals)

    def _series(self, path: str, asked: Mapping[str, str], study: Entry) -> Iterator[RemoteSeries]:
        own, modalities = text(study, "0020000D"), texts(study, "00080061")
        for entry in self._pages(path, {**asked, "includefield": _RELATED_INSTANCES}):
            if own and text(entry, "0020000D") not in {"", own}:
                continue
            both = {**study, **{tag: one for tag, one in entry.items() if text(entry, tag)}}
            count = text(both, _RELATED_INSTANCES)
            yield RemoteSeries(
                patient=text(both, "00100020"),
                accession=text(both, "00080050"),
                study=text(both, "0020000D"),
                series=text(both, "0020000E"),
                modality=modality_of(text(entry, "00080060"), modalities),
                instances=int(count) if count.isdigit() else None,
            )

    def _pages(self, path: str, asked: Mapping[str, str]) -> Iterator[Entry]:
        """Yield the entries of all pages; a server that knows no pages gives all at once."""
        offset, seen = 0, frozenset[str]()
        while True:
            page = self._ask(path, {**asked, "limit": str(_PAGE), "offset": str(offset)})
            uids = frozenset(str(entry) for entry in page)
            if uids == seen:  # it ignores offset
                return
            yield from page
            if len(page) < _PAGE:
                return
            offset, seen = offset + len(page), uids

    def _ask(self, path: str, asked: Mapping[str, str]) -> list[Entry]:
        headers = {"Accept": "application/dicom+json"}
        # Wildcards stay as they are, which RFC 3986 allows: Orthanc does not decode them.
        query = urlencode(asked, safe="*?")
        try:
            answer = self._session.get(
                f"{self._root}/{path}", params=query, headers=headers, timeout=TIMEOUT
            )
            if answer.status_code == requests.codes.no_content:
                return []
            answer.raise_for_status()
            found = answer.json()
        except requests.JSONDecodeError as error:
            raise self._no_dicomweb() from error
        except requests.RequestException as error:
            raise refusal(self._pacs, error) from error
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise self._no_dicomweb()
        return found

    def _retrieve(self, path: str, expected: Expected, arrivals: ArrivalObserver) -> None:
        headers = {"Accept": _ACCEPT, "Accept-Encoding": "identity"}
        try:
            with self._session.get(
                f"{self._root}/{path}", headers=headers, timeout=TIMEOUT, stream=True
            ) as answer:
                if answer.status_code in _STATUS_SERIES:
                    message = f"the PACS answers with status {answer.status_code}"
                    raise SeriesRefused(message)
                if answer.status_code in _STATUS_BUSY:
                    message = f"The PACS at {self._root} is busy (status {answer.status_code})."
                    raise Unreachable(message)
                answer.raise_for_status()
                self._take(answer, expected, arrivals)
        except requests.RequestException as error:
            raise refusal(self._pacs, error) from error
        except HTTPError as error:
            message = f"The PACS at {self._root} broke off in the middle of an answer."
            raise Unreachable(message) from error

    def _take(
        self, answer: requests.Response, expected: Expected, arrivals: ArrivalObserver
    ) -> None:
        def read(count: int) -> bytes:
            # What is there, as read() would lose it when the connection breaks before `count`.
            piece = answer.raw.read1(count, decode_content=True)
            return piece if isinstance(piece, bytes) else b""

        try:
            for part in _objects(answer.headers.get("Content-Type", ""), read):
                arrivals.wait()
                try:
                    landed = place(self._data, part, expected)
                except UnusableFile as problem:
                    arrivals.refused(problem)
                else:
                    arrivals.landed(landed)
        except Malformed as error:
            message = f"The PACS at {self._root} sent {error}. What came whole is kept."
            raise Unreachable(message) from error

    def _no_dicomweb(self) -> Unreachable:
        message = (
            f"What answers at {self._root} is no DICOMweb (no DICOM JSON). Ask the PACS team for "
            "DICOMweb's root; a page to log in may stand in between."
        )
        return Unreachable(message)


def _objects(content_type: str, read: Read) -> Iterator[Iterator[bytes | memoryview]]:
    """Yield the objects of an answer; some servers send a single one without any parts."""
    kind = content_type.partition(";")[0].strip().lower()
    match kind:
        case "multipart/related":
            yield from parts(read, boundary_of(content_type))
        case "application/dicom":
            yield iter(lambda: read(_PIECE_BYTES), b"")
        case _:
            message = f"the PACS answers with {kind[:60] or 'no type'}, expected DICOM"
            raise SeriesRefused(message)


def text(entry: Entry, tag: str) -> str:
    """Return an element's first value; empty where there is none (PS3.18 F.2.2)."""
    return next(iter(texts(entry, tag)), "")


def texts(entry: Entry, tag: str) -> list[str]:
    """Return an element's values."""
    element = entry.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    found = values if isinstance(values, list) else []
    return [str(one).strip(" \0") for one in found if isinstance(one, str | int)]
