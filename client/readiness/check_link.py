"""Check that the coordinator is reached, is the one that was joined, and knows this site."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpcore
import httpx
from cryptography import x509

from client.readiness.check_finding import Finding, Subject, wrong
from client.site.terminal import as_text
from client.transport.connecting import open_client, outer_certificate
from client.transport.connection import clock_offset, tls_context, why_not_connected, why_untrusted
from client.transport.coordinator import SOON_DAYS, end_of, load_authority
from client.transport.joining import state
from client.transport.proxy import Way, way_to
from common.messages.enrolment import CA_PATH
from common.platform.errors import TrustRefused, Unreachable

_SECONDS = 10.0
_NOT_REACHED = (
    *(httpcore.NetworkError, httpcore.ProtocolError),
    *(httpcore.ProxyError, httpcore.TimeoutException),
)
#: How far this clock may be ahead of, and behind, the coordinator's: Flower's own limits.
_AHEAD_SECONDS, _BEHIND_SECONDS = 5.0, 300.0


def reached(subject: Subject) -> Iterator[Finding]:
    """Ask for a page as the daemon asks: on the same way, with the same trust.

    Then say of the answer how long it took, whose certificate it came with, and its clock.
    """
    coordinator = subject.coordinator
    if coordinator is None:
        return
    address, way = coordinator.address, way_to(coordinator.address, subject.config)
    try:
        authority = load_authority(subject.home, coordinator)
    except TrustRefused as error:
        yield wrong("TLS", error)
        return
    started = time.monotonic()
    try:
        with (
            open_client(tls_context(authority), _SECONDS, way) as client,
            client.stream("GET", f"https://{address}{CA_PATH}") as response,
        ):
            stream = response.extensions["network_stream"]
            shown = stream.get_extra_info("ssl_object").getpeercert()
    except httpx.TransportError as error:
        said = why_untrusted(address, error)
        if said is None:
            problem, _, fix = why_not_connected(address, error, way.shown).partition(". ")
            yield Finding(check="network", state="wrong", detail=problem, fix=fix)
        else:
            yield from _network(subject, way, time.monotonic() - started)
            problem, _, fix = said.partition(". Nothing of this site was sent. ")
            ends = _where_tls_ends(address, way)
            if ends and not way.tunnel:
                problem = f"{problem}; TLS ends on the way, at {ends}"
                fix = f"{fix} If that is their load balancer or a proxy of yours that opens TLS, "
                fix += f"write tunnel: true in {subject.home.site_yaml}"
            yield Finding(check="TLS", state="wrong", detail=problem, fix=fix)
        return
    yield from _network(subject, way, time.monotonic() - started)
    detail = f"TLS 1.3, and {coordinator.name} is who was joined"
    if way.tunnel:
        ends = _where_tls_ends(address, way)
        detail = f"{detail}; TLS ends on the way, at {ends}, and theirs goes inside of it"
    yield Finding(check="TLS", state="ok", detail=detail)
    yield from _valid_until(authority, shown["notAfter"])
    yield clock(clock_offset(response))


def _valid_until(authority: str, server: str) -> Iterator[Finding]:
    """Say until when the coordinator's two certificates hold; both are renewed by themselves."""
    ends = {
        "authority's": end_of(authority),
        "server's": datetime.fromtimestamp(ssl.cert_time_to_seconds(server), UTC),
    }
    for whose, end in ends.items():
        left = (end - datetime.now(UTC)).days
        detail = f"the coordinator's {whose} certificate is valid until {end:%Y-%m-%d}"
        if left >= SOON_DAYS:
            yield Finding(check="certificate", state="ok", detail=detail)
        else:
            yield Finding(
                check="certificate",
                state="note",
                detail=f"{detail}: expires in {left} days",
                fix="Call the coordinator: its service renews it while it runs.",
            )


def _where_tls_ends(address: str, way: Way) -> str:
    """Return whose certificate the address shows, for a person; empty where it shows none."""
    parts = urlsplit(f"//{address}")
    try:
        shown = outer_certificate(way, parts.hostname or "", parts.port or 443, _SECONDS)
        found = x509.load_der_x509_certificate(shown)
    except (*_NOT_REACHED, ValueError):
        return ""
    subject, issuer = (name.rfc4514_string() or "no name" for name in (found.subject, found.issuer))
    return as_text(f"a certificate of {subject}, issued by {issuer}")


def _network(subject: Subject, way: Way, seconds: float) -> Iterator[Finding]:
    assert subject.coordinator is not None  # noqa: S101 - the caller looked
    proxy = way.proxy
    through = " directly" if proxy is None else f" through the proxy {proxy.shown}"
    detail = f"{subject.coordinator.address} answers{through} in {1000 * seconds:.0f} ms"
    yield Finding(check="network", state="ok", detail=detail)
    if proxy is not None and proxy.source == "HTTPS_PROXY":
        yield Finding(
            check="proxy",
            state="note",
            detail=f"{proxy.shown} is named by HTTPS_PROXY, which a systemd service does not see",
            fix=f"Write proxy: http://{proxy.shown} in {subject.home.site_yaml}, with "
            "USER:PASSWORD@ before the host if it wants one",
        )


def clock(ahead: float | None) -> Finding:
    """Judge by how many seconds this clock is ahead: signed requests carry the time."""
    if ahead is None:
        return Finding(check="clock", state="note", detail="the coordinator tells no time")
    side = "ahead of" if ahead > 0 else "behind"
    detail = f"{abs(ahead):.0f} s {side} the coordinator's"
    if -_BEHIND_SECONDS <= ahead <= _AHEAD_SECONDS:
        return Finding(check="clock", state="ok", detail=detail)
    return Finding(
        check="clock",
        state="wrong",
        detail=f"{detail}, so it takes no request of this site",
        fix="timedatectl set-ntp true; if this clock is right, tell the coordinator",
    )


def enrolment(subject: Subject) -> Iterator[Finding]:
    """Ask whether the coordinator has accepted this site's key."""
    if subject.coordinator is None:
        return
    try:
        reply = state(subject.home)
    except Unreachable:
        return  # said before
    if reply.state == "accepted":
        detail = f"{reply.coordinator} has accepted this site"
        yield Finding(check="enrolment", state="ok", detail=detail)
    else:
        yield Finding(
            check="enrolment",
            state="note",
            detail=f"{reply.coordinator} has not accepted this site yet",
            fix=f"Read them its fingerprint: {reply.fingerprint}",
        )
