"""Bound on the coordinator's answers: none is read beyond the longest that it can have."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from typing_extensions import override

from common.messages.answer_sizes import LARGEST_OBJECT

#: An object, or the names of a request's objects, and what Flower adds.
LARGEST_RESPONSE = LARGEST_OBJECT + 64 * 1024


class _Bounded(httpx.SyncByteStream):
    """Ends with an error instead of more than so many bytes."""

    def __init__(self, stream: httpx.SyncByteStream, largest: int) -> None:
        self._stream, self._left = stream, largest

    @override
    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            self._left -= len(part)
            if self._left < 0:
                message = "it sent more than any answer of a coordinator has"
                raise httpx.ReadError(message)
            yield part

    @override
    def close(self) -> None:
        self._stream.close()


def bound_response(response: httpx.Response) -> None:
    """Bound an answer before it is read; compressed ones, which may grow, are not read at all."""
    if response.headers.get("content-encoding", "identity") != "identity":
        message = "it sent a compressed answer, which a coordinator does not"
        raise httpx.ReadError(message)
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Bounded(response.stream, LARGEST_RESPONSE)
