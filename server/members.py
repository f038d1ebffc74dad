"""Who may call the Fleet API: accepted sites that sign the time with their key.

The headers and the signature are Flower's own (NodeAuthHttpInterceptor), so that its clients
need nothing else. Flower checks them again; here they are checked before a body is read.
"""

from __future__ import annotations

import binascii
import time
from base64 import b64decode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.types import Scope

from common.errors import TrustRefused
from common.identity import public_pem
from server.asgi import header

KEY_HEADER = b"flwr-public-key"
SIGNATURE_HEADER = b"flwr-signature"
TIME_HEADER = b"flwr-timestamp"
#: How old, and how far ahead of our clock, a signed time may be; Flower's own limits.
OLDEST_SECONDS = 305.0
AHEAD_SECONDS = 5.0

_SIGNING = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, kw_only=True)
class Member:
    """An accepted site, as Flower knows it."""

    site: str
    node_id: int
    public_key: str


class Members:
    """The accepted sites of this moment; replaced whole, so that a revoked one is out at once."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._by_key: dict[bytes, tuple[Member, ec.EllipticCurvePublicKey]] = {}

    def replace(self, members: Iterable[Member]) -> None:
        """Take these sites and no others."""
        found: dict[bytes, tuple[Member, ec.EllipticCurvePublicKey]] = {}
        for member in members:
            pem = public_pem(member.public_key)
            key = serialization.load_pem_public_key(pem)
            assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - public_pem made it
            found[pem] = (member, key)
        self._by_key = found

    def authenticate(self, scope: Scope) -> Member:
        """Return who sent a request; TrustRefused tells a stranger nothing."""
        refused = TrustRefused("This site is not accepted here.")
        key, signature, signed_at = (
            header(scope, name) for name in (KEY_HEADER, SIGNATURE_HEADER, TIME_HEADER)
        )
        if key is None or signature is None or signed_at is None:
            raise refused
        try:
            found = self._by_key.get(b64decode(key, validate=True))
            if found is None:
                raise refused
            member, public = found
            public.verify(b64decode(signature, validate=True), signed_at.encode(), _SIGNING)
            age = self._clock() - datetime.fromisoformat(signed_at).timestamp()
        except (binascii.Error, ValueError, InvalidSignature) as error:
            raise refused from error
        if not -AHEAD_SECONDS < age < OLDEST_SECONDS:
            message = (
                f"The request was signed {age:+.0f} s ago by our clock. Set both clocks right, "
                "e.g. timedatectl set-ntp true."
            )
            raise TrustRefused(message)
        return member
