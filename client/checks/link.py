"""Whether the coordinator is reached, is who it was, and knows this site."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import httpx

from client.checks.finding import Finding, Subject
from client.connection import clock_offset, tls_context, why_not_connected, why_untrusted
from client.coordinator import load_authority
from client.joining import state
from common.enrolment_messages import CA_PATH
from common.errors import Unreachable

_SECONDS = 10.0
#: How far this clock may be ahead of, and behind, the coordinator's: Flower's own limits.
_AHEAD_SECONDS, _BEHIND_SECONDS = 5.0, 300.0


def network(subject: Subject) -> Iterator[Finding]:
    """Open a connection and close it again."""
    if subject.coordinator is None:
        return
    address = subject.coordinator.address
    host, _, port = address.rpartition(":")
    started = time.monotonic()
    try:
        place = (host.removeprefix("[").removesuffix("]"), int(port))
        socket.create_connection(place, timeout=_SECONDS).close()
    except OSError as error:
        kind = httpx.ConnectTimeout if isinstance(error, TimeoutError) else httpx.ConnectError
        problem, _, fix = why_not_connected(address, kind(str(error))).partition(". ")
        proxy = {"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} & set(os.environ)
        if proxy:
            detail = f"{problem}; through the proxy of {min(proxy)} it may still be reached"
            yield Finding(check="network", state="note", detail=detail)
        else:
            yield Finding(check="network", state="wrong", detail=problem, fix=fix)
        return
    milliseconds = 1000 * (time.monotonic() - started)
    detail = f"{address} answers in {milliseconds:.0f} ms"
    yield Finding(check="network", state="ok", detail=detail)


def tls(subject: Subject) -> Iterator[Finding]:
    """Compare the certificate with the one that was joined, and the clocks."""
    coordinator = subject.coordinator
    if coordinator is None:
        return
    context = tls_context(load_authority(subject.home, coordinator))
    try:
        with httpx.Client(verify=context, timeout=_SECONDS) as client:
            response = client.get(f"https://{coordinator.address}{CA_PATH}")
    except httpx.TransportError as error:
        said = why_untrusted(coordinator.address, error)
        if said is None:
            return  # not reached, which was said before
        problem, _, fix = said.partition(". Nothing was sent. ")
        yield Finding(check="TLS", state="wrong", detail=problem, fix=fix)
        return
    detail = f"TLS 1.3, and {coordinator.name} is who was joined"
    yield Finding(check="TLS", state="ok", detail=detail)
    yield clock(clock_offset(response))


def clock(ahead: float | None) -> Finding:
    """Judge by how many seconds this clock is ahead: signed requests carry the time."""
    if ahead is None:
        return Finding(check="clock", state="note", detail="the coordinator tells no time")
    side = "ahead of" if ahead > 0 else "behind"
    detail = f"{abs(ahead):.0f} s {side} the coordinator's"
    if -_BEHIND_SECONDS <= ahead <= _AHEAD_SECONDS:
        return Finding(check="clock", state="ok", detail=detail)
    return Finding(
        check="clock", state="wrong", detail=f"{detail}, so it takes no request of this site",
        fix="timedatectl set-ntp true; if this clock is right, tell the coordinator",
    )  # fmt: skip


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
            check="enrolment", state="note",
            detail=f"{reply.coordinator} has not accepted this site yet",
            fix=f"Read them its fingerprint: {reply.fingerprint}",
        )  # fmt: skip
