"""TLS to the coordinator, and in words why it is refused: certificate, clock, or key."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

#: What a clock may be off: signed requests are taken for about as long.
_CLOCK_SECONDS = 5.0


def tls_context(authority: str) -> ssl.SSLContext:
    """Return TLS 1.3 that trusts the coordinator's own authority and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    return context


def why_not_reached(address: str, error: httpx.TransportError) -> str:
    """Return what keeps this site from its coordinator, and what to do about it."""
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("CERTIFICATE_VERIFY_FAILED] ")[2] or text
        return (
            f"The certificate of {address} is not accepted: {reason} Nothing was sent. If the "
            "coordinator renewed its authority, ask for a new invite; else call them."
        )
    return f"Cannot reach the coordinator at {address}: {text}. Trying again."


def why_unknown(address: str, response: httpx.Response) -> str:
    """Return why a key may not be taken: a wrong clock looks the same as a revoked key."""
    off = clock_offset(response)
    if off is not None and abs(off) > _CLOCK_SECONDS:
        side = "ahead of" if off > 0 else "behind"
        return (
            f"This machine's clock is {abs(off):.0f} s {side} the coordinator's, and signed "
            "requests are taken within 5 s. Set the clock (timedatectl set-ntp true)."
        )
    return (
        f"{address} does not know this site's key: it has not accepted the site yet, or has "
        "revoked it. Ask the coordinator; `wardround-site join` takes a new invite."
    )


def clock_offset(response: httpx.Response) -> float | None:
    """Return by how many seconds this clock is ahead of the one that answered."""
    try:
        theirs = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return None
    return (datetime.now(UTC) - theirs).total_seconds()
