"""Check that the coordinator is reached, is the one that was joined, and knows this site."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx

from client.readiness.check_finding import Finding, Subject, wrong
from client.transport.connection import clock_offset, tls_context, why_not_connected, why_untrusted
from client.transport.coordinator import SOON_DAYS, end_of, load_authority
from client.transport.joining import state
from client.transport.proxy import Proxy, open_client, proxy_to
from common.messages.enrolment import CA_PATH
from common.platform.errors import TrustRefused, Unreachable

_SECONDS = 10.0
#: How far this clock may be ahead of, and behind, the coordinator's: Flower's own limits.
_AHEAD_SECONDS, _BEHIND_SECONDS = 5.0, 300.0


def reached(subject: Subject) -> Iterator[Finding]:
    """Ask for a page as the daemon asks: through the same proxy, with the same trust.

    Then say of the answer how long it took, whose certificate it came with, and its clock.
    """
    coordinator = subject.coordinator
    if coordinator is None:
        return
    address, proxy = coordinator.address, _proxy(subject)
    try:
        authority = load_authority(subject.home, coordinator)
    except TrustRefused as error:
        yield wrong("TLS", error)
        return
    started = time.monotonic()
    try:
        with (
            open_client(tls_context(authority), _SECONDS, proxy) as client,
            client.stream("GET", f"https://{address}{CA_PATH}") as response,
        ):
            stream = response.extensions["network_stream"]
            shown = stream.get_extra_info("ssl_object").getpeercert()
    except httpx.TransportError as error:
        said = why_untrusted(address, error)
        if said is None:
            shown = None if proxy is None else proxy.shown
            problem, _, fix = why_not_connected(address, error, shown).partition(". ")
            yield Finding(check="network", state="wrong", detail=problem, fix=fix)
        else:
            yield from _network(subject, proxy, time.monotonic() - started)
            problem, _, fix = said.partition(". Nothing was sent. ")
            yield Finding(check="TLS", state="wrong", detail=problem, fix=fix)
        return
    yield from _network(subject, proxy, time.monotonic() - started)
    detail = f"TLS 1.3, and {coordinator.name} is who was joined"
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


def _network(subject: Subject, proxy: Proxy | None, seconds: float) -> Iterator[Finding]:
    assert subject.coordinator is not None  # noqa: S101 - the caller looked
    through = "" if proxy is None else f" through the proxy {proxy.shown}"
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


def _proxy(subject: Subject) -> Proxy | None:
    assert subject.coordinator is not None  # noqa: S101 - the callers looked
    written = None if subject.config is None else subject.config.proxy
    return proxy_to(subject.coordinator.address, written)


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
