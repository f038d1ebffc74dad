"""Access to the Fleet API: accepted sites that sign each request.

Flower's own signature is of the time alone, so that whoever saw one could send anything in the
site's name for five minutes; Flower still checks it. Ours (common/messages/request_signature.py) is
checked before a body is read, for the hash that the body must then have, and each request is taken
once.
"""

from __future__ import annotations

import binascii
import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from starlette.types import Scope

from common.messages.pull_headers import ANSWER_BYTES_HEADER, RECEIVED_HEADER, WAIT_HEADER
from common.messages.request_signature import (
    BODY_HEADER,
    NUMBER_HEADER,
    NUMBER_LENGTH,
    SIGNATURE_HEADER,
    SignedRequest,
)
from common.messages.signing_key import public_pem, verify
from common.platform.errors import TrustRefused
from server.http.asgi import header
from server.http.replays import Replays

KEY_HEADER = b"flwr-public-key"
TIME_HEADER = b"flwr-timestamp"
#: How old, and how far ahead of our clock, a signed time may be; Flower's own limits.
OLDEST_SECONDS = 305.0
AHEAD_SECONDS = 5.0

_NUMBER = re.compile(f"[0-9a-f]{{{NUMBER_LENGTH}}}")
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Member:
    """An accepted site, as Flower knows it."""

    site: str
    node_id: int
    public_key: str


@dataclass(frozen=True, kw_only=True)
class SignedCaller:
    """Who sent a request, and what its body must be."""

    member: Member
    body_sha256: str  # in hex


class AcceptedSites:
    """The accepted sites of this moment; replaced whole, so that a revoked one is out at once."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._began = clock()
        self._by_key: dict[bytes, Member] = {}
        self._came: dict[bytes, Replays] = {}

    def replace(self, members: Iterable[Member]) -> None:
        """Take these sites and no others."""
        found = {public_pem(member.public_key): member for member in members}
        self._came = {key: self._came.get(key) or self._new() for key in found}
        self._by_key = found

    def authenticate(self, scope: Scope) -> SignedCaller:
        """Return who sent a request; TrustRefused tells a stranger nothing."""
        key, signature = (_given(scope, name) for name in (KEY_HEADER, SIGNATURE_HEADER.encode()))
        request = _request_of(scope)
        try:
            pem = b64decode(key, validate=True)
            signed_at = datetime.fromisoformat(request.signed_at).timestamp()
            member = self._by_key.get(pem)
            if member is None or not verify(
                member.public_key, request.content(), b64decode(signature, validate=True)
            ):
                raise _stranger()
        except (binascii.Error, ValueError, OverflowError) as error:
            raise _stranger() from error
        now = self._clock()
        if not -AHEAD_SECONDS < now - signed_at < OLDEST_SECONDS:
            message = (
                f"The request was signed {now - signed_at:+.0f} s ago by our clock. Set both "
                "clocks right, e.g. timedatectl set-ntp true."
            )
            raise TrustRefused(message)
        if not self._came[pem].takes(request.number, signed_at, now):
            raise TrustRefused("This request came before. Sign it anew.")
        return SignedCaller(member=member, body_sha256=request.body_sha256)

    def shown_by(self, scope: Scope) -> Member | None:
        """Return the site whose key a request names; that it has signed is checked before."""
        try:
            return self._by_key.get(b64decode(header(scope, KEY_HEADER) or "", validate=True))
        except binascii.Error:
            return None

    def _new(self) -> Replays:
        return Replays(began=self._began, lasts_seconds=OLDEST_SECONDS)


def _request_of(scope: Scope) -> SignedRequest:
    """Return what is said to be signed; TrustRefused where it says nothing of the kind."""
    request = SignedRequest(
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        body_sha256=_given(scope, BODY_HEADER.encode()),
        signed_at=_given(scope, TIME_HEADER),
        number=_given(scope, NUMBER_HEADER.encode()),
        wait_seconds=header(scope, WAIT_HEADER.encode()) or "",
        received=header(scope, RECEIVED_HEADER.encode()) or "",
        answer_bytes=header(scope, ANSWER_BYTES_HEADER.encode()) or "",
    )
    if not _HASH.fullmatch(request.body_sha256) or not _NUMBER.fullmatch(request.number):
        raise _stranger()
    return request


def _given(scope: Scope, name: bytes) -> str:
    found = header(scope, name)
    if found is None:
        raise _stranger()
    return found


def _stranger() -> TrustRefused:
    return TrustRefused("This site is not accepted here.")
