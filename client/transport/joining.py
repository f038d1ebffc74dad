"""Joining a federation: a new key, an invitation, and a fingerprint to compare.

    fetch the authority's certificate   from whoever answers; trusted if its hash is the invite's
    make the key                        here, for its owner alone; it never leaves
    join                                over TLS 1.3 with that authority: public key and proof
    ask                                 signed with the key: pending, accepted or refused

Interrupted anywhere, the same command again goes on: the key is kept, and the coordinator gives
the same answer to the same key. Before the certificate has proved itself nothing is sent, and
the invitation's secret is never sent at all.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client.site.home import Home
from client.transport.connecting import open_client
from client.transport.connection import clock_offset, tls_context, why_not_connected, why_untrusted
from client.transport.coordinator import Coordinator, load_authority, load_coordinator
from client.transport.proxy import Way, site_way
from common.messages.enrolment import (
    CA_PATH,
    JOIN_PATH,
    JOINED_PATH,
    Invite,
    JoinReply,
    JoinRequest,
    StateRequest,
)
from common.messages.signing_key import (
    fingerprint,
    load_private,
    new_private_key,
    private_text,
    public_text,
)
from common.platform.durable_files import replace_durably
from common.platform.errors import TrustRefused, Unreachable

__all__ = [
    "Coordinator",
    "ask",
    "fetch_authority",
    "fetch_unproven",
    "join",
    "load_authority",
    "load_coordinator",
    "state",
    "state_at",
    "wait_until_accepted",
]

_SECONDS = 15.0
_LARGEST_REPLY = 64 * 1024
_ASK_AGAIN_SECONDS = 2.0
#: A clock that is this far off is worth a word beside another fault.
_CLOCK_SECONDS = 60.0


def join(home: Home, invite_text: str, *, new_key: bool = False) -> JoinReply:
    """Join the coordinator of an invitation and return where the enrolment stands.

    TrustRefused says why not; Unreachable, that nobody answered. `new_key` puts an earlier key
    aside, which a coordinator that revoked it wants.
    """
    invite = Invite.from_text(invite_text)
    way = site_way(home, invite.address)
    way = replace(way, tunnel=way.tunnel or invite.tunnel)
    authority = fetch_authority(invite, way)
    key = _own_key(home, anew=new_key)
    request = JoinRequest.made(invite, public_text(key))
    reply = ask(invite.address, authority, way, JOIN_PATH, request.to_json())
    _check(reply, key)
    joined = Coordinator(
        address=invite.address,
        name=reply.coordinator,
        site=invite.site,
        fingerprint=invite.ca_sha256,
    )
    joined.save(home, authority)
    return reply


def state(home: Home) -> JoinReply:
    """Return where this site's enrolment stands; the coordinator is asked."""
    coordinator = load_coordinator(home)
    authority = load_authority(home, coordinator)
    return state_at(home, coordinator.site, coordinator.address, authority)


def state_at(home: Home, site: str, address: str, authority: str) -> JoinReply:
    """Return where the enrolment stands at an address, if the authority's own server is there."""
    key = load_private(home.key)
    request = StateRequest.made(site, key)
    way = site_way(home, address)
    reply = ask(address, authority, way, JOINED_PATH, request.to_json())
    _check(reply, key)
    return reply


def wait_until_accepted(home: Home) -> JoinReply:
    """Ask until the coordinator has accepted this site; TrustRefused when it says no."""
    while (reply := state(home)).state == "pending":
        time.sleep(_ASK_AGAIN_SECONDS)
    return reply


def fetch_authority(invite: Invite, way: Way | None = None) -> str:
    """Return the authority's certificate if it is the invitation's.

    It comes over a connection that proves nothing, so only its hash counts; of what came, only
    the certificate that was hashed is kept.
    """
    status, content = fetch_unproven(invite.address, way or Way(), CA_PATH)
    try:
        certificates = x509.load_pem_x509_certificates(content)  # one that was renewed comes first
    except ValueError:
        message = (
            f"{invite.address} answered {status} and no certificate, so it is no coordinator. "
            "Compare the address with the coordinator's; somebody may be between you."
        )
        raise TrustRefused(message) from None
    hashes = [
        hashlib.sha256(one.public_bytes(serialization.Encoding.DER)).hexdigest()
        for one in certificates
    ]
    found = next((one for one in hashes if hmac.compare_digest(one, invite.ca_sha256)), hashes[0])
    if found != invite.ca_sha256:
        message = (
            f"{invite.address} shows another certificate than the invitation names (SHA-256 "
            f"{found[:16]}..., expected {invite.ca_sha256[:16]}...): somebody may be between you "
            "and the coordinator; do not go on; call them. Nothing was sent."
        )
        raise TrustRefused(message)
    certificate = certificates[hashes.index(found)]
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def fetch_unproven(address: str, way: Way, path: str) -> tuple[int, bytes]:
    """Fetch a page from whoever answers: only what proves itself may be made of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with _explained(address, way), open_client(context, _SECONDS, way) as client:
        status, content, _ = _exchange(client, address, "GET", path)
    return status, content


def _own_key(home: Home, *, anew: bool) -> ec.EllipticCurvePrivateKey:
    """Return the site's key, made when there is none; only its owner may read it."""
    home.own.mkdir(mode=0o700, parents=True, exist_ok=True)
    if anew and home.key.exists():
        aside = home.key.with_name(f"key.until-{time.strftime('%Y%m%d-%H%M%S')}")
        os.rename(home.key, aside)  # noqa: PTH104 - must not replace an earlier one silently
    if home.key.exists():
        key = load_private(home.key)
    else:
        key = new_private_key()
        replace_durably(home.key, private_text(key).encode(), mode=0o600)
    replace_durably(home.public_key, f"{public_text(key)}\n".encode())
    return key


def ask(address: str, authority: str, way: Way, path: str, body: bytes) -> JoinReply:
    """Return what the coordinator answers to an enrolment's message; TrustRefused for a no."""
    context = tls_context(authority)
    with _explained(address, way), open_client(context, _SECONDS, way) as client:
        status, content, off = _exchange(client, address, "POST", path, body)
    if status not in {httpx.codes.OK, httpx.codes.FORBIDDEN}:
        message = (
            f"{address} answered {status}, expected the state of an enrolment. Ask the coordinator "
            "to look into its log."
        )
        raise Unreachable(message)
    reply = JoinReply.parse(content)
    if reply.state == "refused":
        raise TrustRefused(" ".join((f"The coordinator says no: {reply.reason}", *_clock(off))))
    return reply


def _check(reply: JoinReply, key: ec.EllipticCurvePrivateKey) -> None:
    """Refuse an answer about another key: people are going to compare this fingerprint."""
    own = fingerprint(public_text(key))
    if reply.fingerprint != own:
        message = (
            f"The coordinator answered about the key {reply.fingerprint}, this site's is {own}: "
            "do not go on; call them."
        )
        raise TrustRefused(message)


def _exchange(
    client: httpx.Client, address: str, method: str, path: str, body: bytes = b""
) -> tuple[int, bytes, float | None]:
    """Return status, content and by how much this clock is ahead; nothing too long is read."""
    with client.stream(method, f"https://{address}{path}", content=body) as response:
        content = b""
        for part in response.iter_raw():  # what is compressed may grow without end: never unpacked
            content += part
            if len(content) > _LARGEST_REPLY:
                message = f"{address} answers more than a coordinator would. Compare the address."
                raise TrustRefused(message)
        return response.status_code, content, clock_offset(response)


@contextmanager
def _explained(address: str, way: Way) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        said = why_untrusted(address, error)
        if said is not None:
            raise TrustRefused(said) from error
        raise Unreachable(why_not_connected(address, error, way.shown)) from error
    except httpx.InvalidURL as error:
        message = f"{address} is no address: {error}. Ask the coordinator for a new invite."
        raise TrustRefused(message) from error


def _clock(off: float | None) -> Iterator[str]:
    if off is not None and abs(off) > _CLOCK_SECONDS:
        side = "ahead of" if off > 0 else "behind"
        yield (
            f"This machine's clock is {abs(off):.0f} s {side} the coordinator's: set it "
            "(timedatectl set-ntp true)."
        )
