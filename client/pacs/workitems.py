"""Workitems of a PACS's worklist by UPS-RS (PS3.18 11), as IHE AIW-I's Task Performer uses them.

A workitem is claimed with a Transaction UID that is ours alone; who has another is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from types import TracebackType
from typing import Literal, Self

import requests
from pydicom.dataset import Dataset

from client.pacs.connection.web_session import TIMEOUT, refusal, web_session
from client.pacs.received_file import is_uid
from client.results.codes import own
from client.results.equipment import PRODUCT, coded
from client.results.writing import Result
from client.site.pacs_section import PacsConfig, Worklist
from common.platform.errors import ConfigurationError

_MEDIA = "application/dicom+json"
_LARGEST_LIST = 32 << 20  # bytes
#: What a claim or an update is answered with where the workitem is somebody else's, or over.
_NOT_OURS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.GONE})

State = Literal["SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"]


@dataclass(frozen=True, kw_only=True)
class Workitem:
    """A step that somebody is asked to perform."""

    uid: str  # SOPInstanceUID
    study: str  # StudyInstanceUID of its input; empty where it names not exactly one


class Workitems:
    """The worklist's service; use it as a context."""

    def __init__(self, pacs: PacsConfig, rules: Worklist) -> None:
        root = rules.url or pacs.url
        if root is None:
            message = "pacs.listen.worklist needs url, the root of UPS-RS; pacs has none either."
            raise ConfigurationError(message)
        self._pacs, self._rules = pacs.model_copy(update={"url": root}), rules
        self._root = f"{root.rstrip('/')}/workitems"
        self._session = web_session(self._pacs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.close()

    def scheduled(self) -> list[Workitem]:
        """Return what is to be performed and is ours by label and code."""
        asked = {
            "ProcedureStepState": "SCHEDULED",
            "includefield": "InputInformationSequence",
            "limit": "50",
        }
        if self._rules.label is not None:
            asked["WorklistLabel"] = self._rules.label
        if self._rules.code is not None:
            asked["ScheduledWorkitemCodeSequence.CodeValue"] = self._rules.code
        answer = self._sent("GET", self._root, params=asked)
        if answer.status_code == HTTPStatus.NO_CONTENT:
            return []
        found = [_dataset(one) for one in _listed(answer)]
        return [_workitem(one) for one in found if self._is_ours(one)]

    def _is_ours(self, one: Dataset) -> bool:
        """Return whether a workitem is what was asked for: some servers ignore the question."""
        code = one.get("ScheduledWorkitemCodeSequence") or [Dataset()]
        return (
            is_uid(str(one.get("SOPInstanceUID") or ""))
            and one.get("ProcedureStepState", "SCHEDULED") == "SCHEDULED"
            and one.get("InputReadinessState", "READY") == "READY"
            and self._rules.label in {None, one.get("WorklistLabel", self._rules.label)}
            and self._rules.code in {None, code[0].get("CodeValue", self._rules.code)}
        )

    def claim(self, uid: str, transaction: str) -> bool:
        """Begin a workitem; False where somebody else has, or it is over."""
        return self._changed(uid, transaction, "IN PROGRESS")

    def is_held(self, uid: str, transaction: str) -> bool:
        """Return whether a workitem is in progress with this transaction."""
        said = Dataset()
        said.TransactionUID = transaction
        return self._updated(uid, transaction, said)

    def complete(self, uid: str, transaction: str, results: Sequence[Result], began: float) -> bool:
        """Say what was made, and that the workitem is done; False where it is no longer ours."""
        said = Dataset()
        said.TransactionUID = transaction
        said.UnifiedProcedureStepPerformedProcedureSequence = [
            _performed(results, began, self._pacs)
        ]
        return self._updated(uid, transaction, said) and self._changed(
            uid, transaction, "COMPLETED"
        )

    def cancel(self, uid: str, transaction: str, why: str) -> bool:
        """Give a workitem up; False where it is no longer ours."""
        said, progress = Dataset(), Dataset()
        said.TransactionUID = transaction
        progress.ReasonForCancellation = why[:1024]
        progress.ProcedureStepCancellationDateTime = _moment(None)
        said.ProcedureStepProgressInformationSequence = [progress]
        return self._updated(uid, transaction, said) and self._changed(uid, transaction, "CANCELED")

    def _updated(self, uid: str, transaction: str, said: Dataset) -> bool:
        return self._told("POST", f"{self._root}/{uid}", said, {"transaction": transaction})

    def _changed(self, uid: str, transaction: str, state: State) -> bool:
        said = Dataset()
        said.TransactionUID, said.ProcedureStepState = transaction, state
        return self._told("PUT", f"{self._root}/{uid}/state", said, {})

    def _told(self, method: str, url: str, said: Dataset, params: Mapping[str, str]) -> bool:
        body = json.dumps([said.to_json_dict()]).encode()
        answer = self._sent(method, url, params=params, body=body, may=_NOT_OURS | {404})
        return answer.ok

    def _sent(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str],
        body: bytes | None = None,
        may: frozenset[int] | frozenset[HTTPStatus] = frozenset(),
    ) -> requests.Response:
        kind = {} if body is None else {"Content-Type": _MEDIA}
        try:
            answer = self._session.request(
                method,
                url,
                params=params,
                data=body,
                headers={"Accept": _MEDIA, **kind},
                timeout=TIMEOUT,
            )
            if answer.status_code not in may:
                answer.raise_for_status()
        except requests.RequestException as error:
            raise refusal(self._pacs, error) from error
        return answer


def _listed(answer: requests.Response) -> list[dict[str, object]]:
    try:
        found = json.loads(answer.content) if len(answer.content) <= _LARGEST_LIST else None
    except ValueError:
        found = None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _dataset(entry: dict[str, object]) -> Dataset:
    try:
        return Dataset.from_json(entry)
    except Exception:  # noqa: BLE001  # whatever a broken entry makes the parser raise
        return Dataset()


def _workitem(one: Dataset) -> Workitem:
    inputs = one.get("InputInformationSequence") or ()
    studies = {str(item.get("StudyInstanceUID") or "") for item in inputs}
    study = studies.pop() if len(studies) == 1 else ""
    return Workitem(uid=str(one.SOPInstanceUID), study=study if is_uid(study) else "")


def _performed(results: Sequence[Result], began: float, pacs: PacsConfig) -> Dataset:
    """Return what was performed (PS3.3 C.30.3), with what a completed workitem must have."""
    found = Dataset()
    found.OutputInformationSequence = [
        _output(result, pacs) for result in results if result.sop_instance is not None
    ]
    found.PerformedStationNameCodeSequence = [coded(own(PRODUCT))]
    found.PerformedWorkitemCodeSequence = [coded(own("Inference by a research model"))]
    found.PerformedProcedureStepStartDateTime = _moment(began)
    found.PerformedProcedureStepEndDateTime = _moment(None)
    return found


def _output(result: Result, pacs: PacsConfig) -> Dataset:
    """Return where a result is (PS3.16 macro Referenced Instances and Access, PS3.3 10.3.1)."""
    item, instance, access = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = result.sop_class
    instance.ReferencedSOPInstanceUID = result.sop_instance
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID, item.SeriesInstanceUID = result.study, result.series
    item.ReferencedSOPSequence = [instance]
    access.RetrieveURL = (
        f"{str(pacs.url).rstrip('/')}/studies/{result.study}/series/{result.series}"
    )
    item.WADORSRetrievalSequence = [access]
    return item


def _moment(seconds: float | None) -> str:
    made = datetime.now() if seconds is None else datetime.fromtimestamp(seconds)  # noqa: DTZ005, DTZ006
    return made.astimezone().strftime("%Y%m%d%H%M%S%z")
