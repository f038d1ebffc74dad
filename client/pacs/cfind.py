"""C-FIND (PS3.4 C.4.1): studies and series of the PACS."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from client.pacs.connection.association import associate
from client.pacs.image_source import (
    NOBODY,
    Key,
    PacsQuery,
    RemoteSeries,
    in_days,
    merged,
    modality_of,
)
from client.pacs.received_file import is_uid
from client.site.pacs_section import PacsConfig
from common.platform.errors import TrustRefused, Unreachable

#: Study Root Query/Retrieve (PS3.4 C.6.2).
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
#: PS3.7 annex C.
SUCCESS, PENDING = 0x0000, frozenset({0xFF00, 0xFF01})
#: PS3.4 table C.4-1.
_OUT_OF_RESOURCES = 0xA700
_WARNINGS = range(0xB000, 0xC000)
#: Character sets (PS3.3 C.12.1.1.2) and Python's names, for identifiers beyond ASCII. Some PACS
#: compare bytes, so one that is found in no UTF-8 is asked for as an old modality wrote it.
_CHARACTER_SETS = (
    ("ISO_IR 192", "utf-8"),
    ("ISO_IR 100", "iso8859-1"),
    ("ISO_IR 101", "iso8859-2"),
    ("ISO_IR 148", "iso8859-9"),
    ("ISO_IR 144", "iso8859-5"),
    ("ISO_IR 126", "iso8859-7"),
    ("ISO_IR 13", "shift_jis"),
)
_MOST_CHARACTER_SETS = 3


class Finder:
    """Asks many questions on one association, as some PACS log each; opened when it is needed."""

    def __init__(self, pacs: PacsConfig) -> None:
        self._pacs = pacs
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._association: Association | None = None
        self._ignored: dict[Key, bool] = {}  # whether the PACS answers with everybody
        self.remarks: Counter[str] = Counter()  # what was strange -> how often

    def find(self, question: PacsQuery) -> Iterator[RemoteSeries]:
        """Return the series that match; Unreachable or TrustRefused when the PACS drops it."""
        with self._lock:
            try:
                return iter(list(merged(self._found(question))))
            except BaseException:
                self._close()
                raise

    def close(self) -> None:
        """Let the association go; the next question opens another."""
        with self._lock:
            self._close()

    def _found(self, question: PacsQuery) -> Iterator[RemoteSeries]:
        if question.key == "SeriesInstanceUID":
            yield from self._series(Dataset(), question)
            return
        studies: dict[str, Dataset] = {}
        for study in self._studies(question):
            said = _text(study, question.key) if question.key else ""
            if question.key and said and not _same(said, question.value):
                continue  # what a wildcard matched beside
            if question.key and not said and self._ignores(question.key):
                self.remarks[f"studies without {question.key} to a query by it, {_IGNORES}"] += 1
                continue
            if not in_days(_text(study, "StudyDate"), question):
                continue
            uid = _text(study, "StudyInstanceUID")
            if is_uid(uid):
                studies.setdefault(uid, study)
            else:
                self.remarks["studies without a valid StudyInstanceUID"] += 1
        for study in studies.values():
            yield from self._series(study, question)

    def _studies(self, question: PacsQuery) -> list[Dataset]:
        """Ask for studies, in each character set that may be the PACS's until one is found."""
        asked = _of_studies(question)
        if question.value.isascii():
            return self._ask(asked)
        sets = [name for name, codec in _CHARACTER_SETS if _encodes(question.value, codec)]
        *others, last = sets[:_MOST_CHARACTER_SETS]
        for name in others:
            asked.SpecificCharacterSet = name
            try:
                found = self._ask(asked)
            except TrustRefused:  # it does not take that character set
                continue
            if found:
                return found
        asked.SpecificCharacterSet = last
        return self._ask(asked)

    def _ignores(self, key: Key) -> bool:
        """Return whether the PACS answers a query by this key whatever its value is.

        Such a PACS finds studies for a patient whom nobody has.
        """
        if key not in self._ignored:
            nobody = PacsQuery(key=key, value=NOBODY, modality="", first_day="", last_day="")
            self._ignored[key] = bool(self._ask(_of_studies(nobody)))
        return self._ignored[key]

    def _series(self, study: Dataset, question: PacsQuery) -> Iterator[RemoteSeries]:
        uid = _text(study, "StudyInstanceUID")
        asked = Dataset()
        asked.QueryRetrieveLevel = "SERIES"
        asked.StudyInstanceUID, asked.Modality = uid, ""
        asked.NumberOfSeriesRelatedInstances = asked.SeriesInstanceUID = ""
        if question.key == "SeriesInstanceUID":
            asked.SeriesInstanceUID = question.value
            asked.PatientID = asked.AccessionNumber = ""
        known: dict[Key, str] = {} if question.key is None else {question.key: question.value}
        modalities = study.get("ModalitiesInStudy") or []
        for one in self._ask(asked):
            if _text(one, "StudyInstanceUID") not in {"", uid} and uid:
                self.remarks["series of another study than the one that was asked for"] += 1
                continue
            if not is_uid(_text(one, "SeriesInstanceUID")):
                self.remarks["series without a valid SeriesInstanceUID"] += 1
                continue
            count = _text(one, "NumberOfSeriesRelatedInstances")

            def told(key: Key, one: Dataset = one) -> str:
                said = _text(study, key) or _text(one, key)
                value = known.get(key, "")
                return value if not said or _same(said, value) else said

            yield RemoteSeries(
                patient=told("PatientID"),
                accession=told("AccessionNumber"),
                study=_text(one, "StudyInstanceUID") or uid,
                series=_text(one, "SeriesInstanceUID"),
                modality=modality_of(
                    _text(one, "Modality"),
                    [modalities] if isinstance(modalities, str) else list(modalities),
                ),
                instances=int(count) if count.isdigit() else None,
            )

    def _ask(self, asked: Dataset) -> list[Dataset]:
        if self._association is None or not self._association.is_established:
            self._close()
            self._association = self._open.enter_context(associate(self._pacs, [FIND]))
        return ask(self._association, self._pacs, asked, self.remarks)

    def _close(self) -> None:
        self._association = None
        self._open.close()


_IGNORES = "as the PACS answers it with everybody's"


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
        """Return what was strange about the PACS's answers."""
        return tuple(
            f"The PACS {self._pacs.called_title} gave answers that are passed over: {count} {what}."
            for what, count in self.finder.remarks.items()
        )


def instances(pacs: PacsConfig, series: RemoteSeries) -> dict[str, str]:
    """Return SOP Instance UID -> SOP Class UID of a series."""
    with associate(pacs, [FIND]) as association:
        return listed(association, pacs, series)


def listed(association: Association, pacs: PacsConfig, series: RemoteSeries) -> dict[str, str]:
    """Do so on an association that is there; the class is empty where the PACS does not say it."""
    asked = Dataset()
    asked.QueryRetrieveLevel = "IMAGE"
    asked.StudyInstanceUID, asked.SeriesInstanceUID = series.study, series.series
    asked.SOPInstanceUID = asked.SOPClassUID = ""
    found: dict[str, str] = {}
    for one in ask(association, pacs, asked):
        uid, sop_class = _text(one, "SOPInstanceUID"), _text(one, "SOPClassUID")
        of_another = _text(one, "SeriesInstanceUID") not in {"", series.series}
        if is_uid(uid) and not of_another:
            found[uid] = (sop_class if is_uid(sop_class) else "") or found.get(uid, "")
    return found


def ask(
    association: Association, pacs: PacsConfig, asked: Dataset, remarks: Counter[str] | None = None
) -> list[Dataset]:
    """Return the matches of a query; what cannot be read of the answer is counted in `remarks`.

    An unknown calling title may be let in and then dropped without a word, which pynetdicom
    gives as an empty status: that is no empty answer.
    """
    found = []
    remarks = Counter() if remarks is None else remarks
    for status, match in association.send_c_find(asked, FIND):
        code = status.get("Status")
        if code is None:
            raise dropped(pacs)
        if code in PENDING:
            if match is None:
                remarks["answers without content that can be read"] += 1
            else:
                found.append(match)
        elif code == _OUT_OF_RESOURCES:
            message = f"The PACS {pacs.called_title} is busy (C-FIND status 0x{code:04X})."
            raise Unreachable(message)
        elif code in _WARNINGS:
            remarks[f"lists that end with a warning (0x{code:04X}), so there may be more"] += 1
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


def _of_studies(question: PacsQuery) -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    asked.PatientID = asked.AccessionNumber = asked.StudyInstanceUID = ""
    asked.StudyDate = question.dates
    asked.ModalitiesInStudy = question.modality
    if question.key is not None:
        setattr(asked, question.key, question.value)
    return asked


def _encodes(text: str, codec: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _same(said: str, value: str) -> bool:
    """Return whether an answer is what was asked for.

    Latin-1 is what is read where a PACS does not name its character set: it may be UTF-8.
    """
    return said == value or said.encode("latin-1", "replace") == value.encode()


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip(" \0")
