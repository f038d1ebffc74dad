"""Notice: where the coordinator is now, and its authority's newest certificate, signed by it.

Guarantee: a notice says something to a site only if the key of the authority that the site joined
signed it, and if it is newer than the last one that the site took. So it may come over any way:

    from whoever answers at an address       only the signature counts
    an older notice, sent again              its number is not above the last one's: nothing
    another authority's notice               not signed with the key that was joined: TrustRefused
    a certificate of another key             TrustRefused: an authority's key is never changed so
    a stranger's address                     the site moves only once the authority's own server
                                             answers there (client/transport/moving.py)
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, StringConstraints

from common.messages.enrolment import Address, EnrolmentMessage
from common.platform.errors import TrustRefused

NOTICE_PATH = "/wardround/notice"
_PREFIX = "wardround-notice-1-"
_SIGNING = ec.ECDSA(hashes.SHA384())


class Notice(EnrolmentMessage):
    """What a coordinator's authority says of itself."""

    #: Each is above the one before, also over a coordinator that was put back: seconds since 1970.
    number: Annotated[int, Field(ge=1, lt=1 << 53)]
    #: Where sites reach the coordinator.
    address: Address
    #: The authority's certificate, PEM.
    certificate: Annotated[str, StringConstraints(max_length=8000)]
    signature: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}){0,150}$")] = ""

    def signed(self, key: ec.EllipticCurvePrivateKey) -> Notice:
        """Return the notice with the authority's signature."""
        return self.model_copy(update={"signature": key.sign(self._content(), _SIGNING).hex()})

    def check(self, known: str) -> None:
        """Raise TrustRefused unless the authority with the known certificate (PEM) says this."""
        try:
            own = x509.load_pem_x509_certificate(known.encode("ascii")).public_key()
            if not isinstance(own, ec.EllipticCurvePublicKey) or not is_of_same_key(
                known, self.certificate
            ):
                message = "its certificate is of another key than the coordinator's"
                raise ValueError(message)
            own.verify(bytes.fromhex(self.signature), self._content(), _SIGNING)
        except (InvalidSignature, ValueError) as error:
            message = (
                "The notice is not the coordinator's that this site joined: "
                f"{str(error) or 'another signature'}. Nothing was changed. Call the coordinator."
            )
            raise TrustRefused(message) from error

    def text(self) -> str:
        """Return the one line that can be sent by any way: it is no secret."""
        return _PREFIX + base64.urlsafe_b64encode(self.to_json()).decode()

    @classmethod
    def from_text(cls, text: str) -> Notice:
        """Read the line; TrustRefused for what is none."""
        line = "".join(text.split())  # mail programs break long lines
        try:
            if not line.startswith(_PREFIX):
                message = f"expected a line that begins with {_PREFIX}"
                raise ValueError(message)
            return cls.parse(base64.b64decode(line.removeprefix(_PREFIX), "-_", validate=True))
        except (binascii.Error, ValueError) as error:
            message = f"{line[:24]!r} is no notice: {error}. Copy the whole line again."
            raise TrustRefused(message) from error

    def _content(self) -> bytes:
        facts = self.model_dump(exclude={"signature"})
        return b"wardround-notice-1\n" + json.dumps(facts, sort_keys=True).encode()


def is_of_same_key(known: str, other: str) -> bool:
    """Return whether two certificates (PEM) are of one key."""
    try:
        first, second = (
            x509.load_pem_x509_certificate(one.encode("ascii")).public_key()
            for one in (known, other)
        )
    except ValueError:
        return False
    return first == second
