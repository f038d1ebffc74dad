"""Messages of joining, leaving and changing keys: an invitation line, then small ones over TLS.

    coordinator                                site
      invite line  -- any safe way -->           reads address, CA's hash and secret
      CA certificate  <-- GET /wardround/ca      trusted if its hash is the invite's
      JoinRequest     <-- POST /wardround/join   the site's public key and a proof
      JoinReply    -->                           pending until the admin has compared fingerprints
      StateRequest    <-- POST /wardround/joined signed with the site's key
      RotateRequest   <-- POST /wardround/rotate a new key, signed with the old one and itself
      LeaveRequest    <-- POST /wardround/leave  signed with the site's key

The secret itself never travels again: the proof is an HMAC under it, over the site's name
and its public key, so whoever sees a join cannot use it for a key of their own. What is signed
names the kind of its message first: no signature of one kind serves for another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import operator
from typing import Annotated, ClassVar, Literal, Self

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from common.messages.signing_key import public_text, sign, verify
from common.platform.errors import TrustRefused

CA_PATH = "/wardround/ca"
JOIN_PATH = "/wardround/join"
JOINED_PATH = "/wardround/joined"
ROTATE_PATH = "/wardround/rotate"
LEAVE_PATH = "/wardround/leave"

_PREFIX = "wardround-invite-"
_VERSION = "1-"
_CHECK_BYTES = 4
_ROTATE = "wardround-rotate-1"

#: A site's name: lower case, digits and hyphens, as runs are named.
SiteName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
#: Host and port that a site connects to.
Address = Annotated[str, StringConstraints(pattern=r"^\S{1,253}:[0-9]{1,5}$")]
_PublicKey = Annotated[str, StringConstraints(max_length=400)]
_Signature = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}){1,150}$")]
_Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class EnrolmentMessage(BaseModel):
    """A frozen message as JSON, read with bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def to_json(self) -> bytes:
        """Return the message as JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a message; TrustRefused names what does not fit."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            where = ", ".join(".".join(map(str, d["loc"])) or "JSON" for d in error.errors())
            message = f"This is no {cls.__name__}: {where} does not fit. Install the same release."
            raise TrustRefused(message) from error


class Invite(EnrolmentMessage):
    """What a site needs in order to join, once."""

    #: Host and port that the site connects to.
    address: Address
    #: SHA-256 of the coordinator's CA certificate (DER), in hex.
    ca_sha256: _Hex
    site: SiteName
    #: Shown in no log or error.
    secret: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")] = Field(repr=False)
    #: Seconds since 1970, UTC.
    expires: Annotated[int, Field(ge=0)]
    #: TLS to the address ends before the coordinator (common/messages/tunnel.py).
    tunnel: Annotated[bool, Field(exclude_if=operator.not_)] = False

    def text(self) -> str:
        """Return the one line that is sent to the site's admin."""
        content = self.to_json()
        return f"{_PREFIX}{_VERSION}{_encoded(content + _check(content))}"

    @classmethod
    def from_text(cls, text: str) -> Invite:
        """Read the line; TrustRefused says whether it was cut, changed or is something else."""
        line = "".join(text.split())  # mail programs break long lines
        if not line.startswith(_PREFIX):
            message = (
                f"{line[:24]!r} is no invitation, expected a line that begins with {_PREFIX}. "
                "Copy the whole line, or give the file that holds it."
            )
            raise TrustRefused(message)
        code = line.removeprefix(_PREFIX)
        if not code.startswith(_VERSION):
            message = (
                "The invitation was made by another release of Wardround. "
                "Ask the coordinator which release to install."
            )
            raise TrustRefused(message)
        try:
            whole = base64.b64decode(code[2:] + "=" * (-len(code[2:]) % 4), "-_", validate=True)
        except (binascii.Error, ValueError):
            whole = b""
        content, check = whole[:-_CHECK_BYTES], whole[-_CHECK_BYTES:]
        if _check(content) != check or _encoded(whole) != code[2:]:
            message = (
                "The invitation was cut or changed on its way. "
                "Copy the whole line again, without a space or a dot at its end."
            )
            raise TrustRefused(message)
        return cls.parse(content)


class JoinRequest(EnrolmentMessage):
    """A site shows its public key, and that it holds the invitation's secret."""

    site: SiteName
    public_key: _PublicKey
    proof: _Hex

    @classmethod
    def made(cls, invite: Invite, public_key: str) -> JoinRequest:
        """Return the request of the invited site."""
        return cls(
            site=invite.site,
            public_key=public_key,
            proof=_proof(invite.secret, invite.site, public_key),
        )

    def proves(self, secret: str) -> bool:
        """Return whether the sender holds the secret; takes equally long either way."""
        return hmac.compare_digest(self.proof, _proof(secret, self.site, self.public_key))


class _SignedByKey(EnrolmentMessage):
    """What only a key's owner may ask."""

    _kind: ClassVar[str]
    site: SiteName
    public_key: _PublicKey
    signature: _Signature

    @classmethod
    def made(cls, site: str, private_key: ec.EllipticCurvePrivateKey) -> Self:
        """Return the request of the site that holds this key."""
        public = public_text(private_key)
        signature = sign(private_key, _signed(cls._kind, site, public)).hex()
        return cls(site=site, public_key=public, signature=signature)

    def is_signed(self) -> bool:
        """Return whether the owner of the public key asks."""
        content = _signed(self._kind, self.site, self.public_key)
        return verify(self.public_key, content, bytes.fromhex(self.signature))


class StateRequest(_SignedByKey):
    """A site asks whether it was accepted; only the key's owner is told."""

    _kind = "wardround-joined-1"


class LeaveRequest(_SignedByKey):
    """A site leaves: its key is good for nothing from then on."""

    _kind = "wardround-leave-1"


class RotateRequest(EnrolmentMessage):
    """A site changes its key: the old one names the new one, which proves that it is held."""

    site: SiteName
    public_key: _PublicKey  # the old one
    new_key: _PublicKey
    signature: _Signature  # with the old one
    new_signature: _Signature

    @classmethod
    def made(
        cls, site: str, old: ec.EllipticCurvePrivateKey, new: ec.EllipticCurvePrivateKey
    ) -> RotateRequest:
        """Return the request of the site that holds both keys."""
        keys = (public_text(old), public_text(new))
        content = _signed(_ROTATE, site, *keys)
        return cls(
            site=site,
            public_key=keys[0],
            new_key=keys[1],
            signature=sign(old, content).hex(),
            new_signature=sign(new, content).hex(),
        )

    def is_signed(self) -> bool:
        """Return whether the owner of both keys asks."""
        content = _signed(_ROTATE, self.site, self.public_key, self.new_key)
        return verify(self.public_key, content, bytes.fromhex(self.signature)) and verify(
            self.new_key, content, bytes.fromhex(self.new_signature)
        )


class JoinReply(EnrolmentMessage):
    """Where the enrolment stands, as the coordinator sees it."""

    state: Literal["pending", "accepted", "refused", "left"]
    #: Why it was refused and what to do; empty otherwise.
    reason: str = Field(default="", max_length=1000)
    #: The coordinator's own name.
    coordinator: str = Field(max_length=200)
    #: Of the public key that the coordinator saw; empty when refused.
    fingerprint: str = Field(default="", max_length=100)


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _check(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECK_BYTES]


def _proof(secret: str, site: str, public_key: str) -> str:
    content = f"wardround-join-1\n{site}\n{public_key}".encode()
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


def _signed(*parts: str) -> bytes:
    """Return what is signed; none of the parts has a line's end."""
    return "\n".join(parts).encode()
