"""Results by STOW-RS, read back by WADO-RS (PS3.18 10.5 and 10.4)."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Self

import requests
from pydicom.dataset import Dataset

from client.pacs.connection.web_session import TIMEOUT, refusal, web_client, web_session
from client.pacs.sending.delivery import NotReadable
from client.pacs.sending.failure_reasons import why_refused
from client.results.writing import Result
from client.site.pacs_section import PacsConfig
from common.platform.errors import WardroundError

#: PS3.18 table 10.5.3-1: the body says of each object what became of it.
_WITH_BODY = frozenset({HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT})
#: Of the whole PACS, not of what was sent.
_OF_THE_PACS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
_WHY: dict[int, str] = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "it is larger than the PACS takes by STOW-RS",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "the PACS takes no DICOM files by STOW-RS",
    HTTPStatus.SERVICE_UNAVAILABLE: "the PACS is busy; send again later",
    HTTPStatus.INSUFFICIENT_STORAGE: "the PACS has no room",
}


class Stow:
    """The route of DICOMweb."""

    def __init__(self, pacs: PacsConfig) -> None:
        self._pacs = pacs
        self._session = web_session(pacs)
        self._client = web_client(pacs)
        self._client.set_http_retry_params(retry=False)  # whoever sends decides on another try

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._session.close()

    def fetch(self, result: Result) -> Dataset | None:
        """Return the PACS's copy by WADO-RS; None where it answers that it has none."""
        try:
            found: Dataset = self._client.retrieve_instance(
                result.study,
                str(result.series),
                str(result.sop_instance),
                media_types=(("application/dicom", "*"),),
            )
        except requests.RequestException as error:
            status = None if error.response is None else error.response.status_code
            if status == HTTPStatus.NOT_FOUND:
                return None
            if status is None or status in _OF_THE_PACS:
                raise refusal(self._pacs, error) from error
            message = f"WADO-RS answered with status {status}. Ask the PACS team why."
            raise NotReadable(message) from error
        except (ValueError, EOFError) as error:
            message = f"WADO-RS answered with what is no DICOM object ({type(error).__name__})."
            raise NotReadable(message) from error
        return found

    def send(self, results: Sequence[Result]) -> Mapping[str, str]:
        """Send the files as they are, one in a request: some PACS refuse a request as a whole."""
        found = {str(result.sop_instance): self._send_one(result) for result in results}
        return {uid: why for uid, why in found.items() if why}

    def _send_one(self, result: Result) -> str:
        """Return why the PACS refused; empty where it stored."""
        boundary = secrets.token_hex(16)
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        url = f"{str(self._pacs.url).rstrip('/')}/studies/{result.study}"
        try:
            answer = self._session.post(
                url,
                data=b"".join(_parts(result, boundary)),
                timeout=TIMEOUT,
                headers={"Content-Type": kind, "Accept": "application/dicom+json"},
            )
        except requests.RequestException as error:
            raise refusal(self._pacs, error) from error
        if answer.status_code in _OF_THE_PACS:
            raise self._refusal_of(answer)
        if answer.status_code in _WITH_BODY:
            return _refused(result, answer)
        why = _WHY.get(answer.status_code, "ask the PACS team for its log")
        return f"STOW-RS answered with status {answer.status_code}: {why}."

    def _refusal_of(self, answer: requests.Response) -> WardroundError:
        return refusal(self._pacs, requests.HTTPError(response=answer))


def _parts(result: Result, boundary: str) -> Iterator[bytes]:
    yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    yield result.path.read_bytes()
    yield f"\r\n--{boundary}--\r\n".encode()


def _refused(result: Result, answer: requests.Response) -> str:
    """Return why the answer says that the object failed (PS3.18 I.2); empty where it did not."""
    said = Dataset()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        body = json.loads(answer.content)
        said = Dataset.from_json(body[0] if isinstance(body, list) else body)
    for item in said.get("FailedSOPSequence") or ():
        if item.get("ReferencedSOPInstanceUID") in {None, "", result.sop_instance}:
            reason = item.get("FailureReason")
            return why_refused(None if reason is None else int(reason))
    return why_refused(None) if answer.status_code == HTTPStatus.CONFLICT else ""
