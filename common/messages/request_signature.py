"""Text that a site signs of each request.

Method, path, query, the hash of the body, the headers of ours, the time and a number that is used
once. The coordinator takes each number once (server/http/replays.py), within the
time for which it takes signatures at all.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from common.messages.signing_key import sign

SIGNATURE_HEADER = "wardround-signature"
NUMBER_HEADER = "wardround-once"
BODY_HEADER = "wardround-body-sha256"
#: Characters of a number that is used once: 128 bits in hex.
NUMBER_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class SignedRequest:
    """Everything of a request that means anything."""

    method: str
    path: str
    query: str
    body_sha256: str  # in hex
    signed_at: str  # ISO 8601 with an offset
    number: str  # used once
    wait_seconds: str  # of a pull; else empty
    received: str  # the delivery that is safe at the site; else empty
    answer_bytes: str  # of what a push announces; else empty

    def content(self) -> bytes:
        """Return the bytes that are signed; lengths stand before parts, so none can shift."""
        parts = ("wardround-request-1", *vars(self).values())
        return b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)

    def headers(self, key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
        """Return the headers that prove who sent this very request."""
        return {
            BODY_HEADER: self.body_sha256,
            NUMBER_HEADER: self.number,
            SIGNATURE_HEADER: base64.b64encode(sign(key, self.content())).decode("ascii"),
        }


def hash_of(body: bytes) -> str:
    """Return a body's SHA-256 in hex."""
    return hashlib.sha256(body).hexdigest()


def new_number() -> str:
    """Return a number that nobody has used."""
    return secrets.token_hex(NUMBER_LENGTH // 2)
