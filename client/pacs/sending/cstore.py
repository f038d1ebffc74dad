"""Results by C-STORE, read back by C-GET (PS3.4 annexes B and C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association

from client.pacs.connection.association import associate
from client.pacs.sending.delivery import NotReadable
from client.pacs.sending.failure_reasons import is_stored, why_refused
from client.results.writing import Result
from client.site.pacs_section import PacsConfig
from common.platform.errors import Unreachable

_FIND, _GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"  # Study Root
_NOT_UNDERSTOOD = 0xC000
_PENDING = frozenset({0xFF00, 0xFF01})


class Storing:
    """The route of DICOM associations: one to send on, one to read back on."""

    def __init__(self, pacs: PacsConfig, classes: Sequence[str]) -> None:
        self._pacs = pacs
        self._classes = list(dict.fromkeys(classes))
        self._stack = ExitStack()
        self._reading: Association | None = None
        self._arrived: list[Dataset] = []

    def __enter__(self) -> Self:
        """Return itself; associations are opened when they are needed."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the associations."""
        self._stack.__exit__(kind, error, trace)

    def fetch(self, result: Result) -> Dataset | None:
        """Return the PACS's copy by C-GET, None where it has none."""
        association = self._readable()
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID = result.study, result.series
        query.SOPInstanceUID = result.sop_instance
        self._arrived.clear()
        status: int | None = None
        for answer, _ in association.send_c_get(query, _GET):
            status = answer.get("Status") if answer else None
            if status not in _PENDING:
                break
        if status is None:
            raise self._broken("while it was asked for a result")
        copies = [d for d in self._arrived if d.get("SOPInstanceUID") == result.sop_instance]
        if copies:
            return copies[0]
        if status == 0 or not self._listed(association, query):
            return None
        message = (
            f"C-GET ended with 0x{status:04X}. Ask the PACS team to allow C-GET to "
            f"{self._pacs.own_title}."
        )
        raise NotReadable(message)

    def _listed(self, association: Association, query: Dataset) -> bool:
        """Return whether C-FIND names the instance: some PACS fail a C-GET for what they lack."""
        if _FIND not in {str(c.abstract_syntax) for c in association.accepted_contexts}:
            return True
        answers = list(association.send_c_find(query, _FIND))
        return any(answer.get("Status") in _PENDING for answer, _ in answers if answer)

    def send(self, results: Sequence[Result]) -> Mapping[str, str]:
        """Send the files one by one."""
        refused: dict[str, str] = {}
        if not results:
            return refused
        with associate(self._pacs, self._classes) as association:
            taken = {str(c.abstract_syntax) for c in association.accepted_contexts}
            for result in results:
                why = self._send_one(association, result, taken)
                if why:
                    refused[str(result.sop_instance)] = why
        return refused

    def _send_one(self, association: Association, result: Result, taken: set[str]) -> str:
        """Return why the PACS refused; empty where it stored."""
        if result.sop_class not in taken:
            return why_refused(0x0122)
        if not association.is_established:
            raise self._broken("while results were sent")
        answer = association.send_c_store(result.path)
        status = answer.get("Status")
        if status is None:
            raise self._broken("while results were sent")
        return "" if is_stored(int(status)) else why_refused(int(status))

    def _readable(self) -> Association:
        """Return the association on which copies come in."""
        if self._reading is None or not self._reading.is_established:
            self._reading = self._stack.enter_context(
                associate(self._pacs, [_FIND, _GET, *self._classes], store=self._take)
            )
        if _GET not in {str(c.abstract_syntax) for c in self._reading.accepted_contexts}:
            message = (
                "The PACS offers no C-GET. Ask the PACS team to allow it to "
                f"{self._pacs.own_title}, so that results can be compared."
            )
            raise NotReadable(message)
        return self._reading

    def _take(self, event: evt.Event) -> int:
        try:
            self._arrived.append(event.dataset)
        except Exception:  # noqa: BLE001  # whatever a broken object makes the parser raise
            return _NOT_UNDERSTOOD
        return 0

    def _broken(self, when: str) -> Unreachable:
        message = (
            f"The PACS {self._pacs.called_title} at {self._pacs.host}:{self._pacs.port} broke the "
            f"association off {when}. Send again: what it has is not sent twice."
        )
        return Unreachable(message)
