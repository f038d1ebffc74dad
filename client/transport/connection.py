"""TLS connection to the coordinator, and why one is refused: certificate, clock or key."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

_OTHER_HOST = (
    "The coordinator's certificate names other hosts than this address; call them, so that they "
    "set it up with this one."
)
#: Words in OpenSSL's reason, and what to do about it; the last one fits any.
_OF_CERTIFICATES = {
    "expired": (
        "If this machine's clock is right, the coordinator's service must be started again, "
        "which renews the certificate; call them."
    ),
    "not yet valid": "Set this machine's clock (timedatectl set-ntp true).",
    "mismatch": _OTHER_HOST,
    "not valid for": _OTHER_HOST,
    "": (
        "Somebody may be between you and the coordinator: do not go on, call them. If they made "
        "a new authority, ask for a new invite."
    ),
}
_NO_TUNNEL = (
    "No load balancer hands on to a coordinator there: ask them whether TLS ends before it (front: "
    "in coordinator.yaml); if not, write tunnel: false in site.yaml."
)
#: Words in the reason for which there is no connection, and what to look at.
_OF_THE_NETWORK = {
    "Name or service not known": (
        "Compare the name with the coordinator's, and ask whoever runs DNS here."
    ),
    "name resolution": "DNS does not answer on this machine; ask whoever runs the network.",
    "": "Ask them whether it runs: wardround-coordinator status.",
}
_FIREWALL = "Let this machine make outgoing TCP connections there; ask whoever runs the firewall."
_PROXY = (
    "Ask whoever runs the proxy to let this machine CONNECT there, or write another proxy: in "
    "site.yaml (direct for none)."
)
_PROXY_AUTHENTICATION = (
    "The proxy wants a name and a password: proxy: http://USER:PASSWORD@HOST:PORT in site.yaml."
)
#: Schemes of a proxy that wants to know who asks, and what to do; the last fits any.
_SCHEMES = {
    "no kerberos ticket": (
        "Let the user of this service have one: kinit, or KRB5_CLIENT_KTNAME=KEYTAB in its "
        "environment; or write a name and a password, if the proxy takes Basic as well."
    ),
    "basic": _PROXY_AUTHENTICATION,
    "negotiate": (
        "It takes Kerberos: write its URL without a name and a password, as proxy: in site.yaml, "
        "and let this service's user have a ticket (kinit)."
    ),
    "ntlm": (
        "NTLM is not spoken here: ask whoever runs the proxy to let this machine through by its "
        "address, or with Basic or Kerberos."
    ),
    "": _PROXY_AUTHENTICATION,
}
_PROXY_AWAY = "Compare proxy: in site.yaml, or HTTPS_PROXY, with what whoever runs the proxy says."
_SILENT = "It is reached but does not answer; call them."
#: What a clock may be off: signed requests are taken for about as long.
_CLOCK_SECONDS = 5.0


def tls_context(authority: str) -> ssl.SSLContext:
    """Return TLS 1.3 that trusts the coordinator's own authority and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    return context


def why_not_reached(address: str, error: httpx.TransportError, proxy: str | None = None) -> str:
    """Return what keeps this site from its coordinator, for whoever reads the log."""
    said = why_untrusted(address, error)
    return said or f"{why_not_connected(address, error, proxy)} Trying again."


def why_untrusted(address: str, error: httpx.TransportError) -> str | None:
    """Return why the other side is not taken for the coordinator; None when it was not reached."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("verify failed: ")[2].partition(" (_ssl")[0] or text
        advice = next(a for words, a in _OF_CERTIFICATES.items() if words in reason)
        return (
            f"The certificate of {address} is not accepted: {reason}. Nothing of this site was "
            f"sent. {advice}"
        )
    if "[SSL" in text:
        reason = text.partition("] ")[2].partition(" (_ssl")[0] or text
        return (
            f"{address} does not speak TLS 1.3: {reason}. Nothing of this site was sent. Compare "
            "the address with the coordinator's; a proxy that opens TLS in between must let this "
            "through."
        )
    return None


def why_not_connected(address: str, error: httpx.TransportError, proxy: str | None = None) -> str:
    """Return what keeps this machine from reaching an address, and what to look at.

    `proxy` is the HOST:PORT of the proxy that was asked, if one was.
    """
    text = str(error) or type(error).__name__
    match error:
        case httpx.ProxyError():
            known = (a for words, a in _SCHEMES.items() if words in text.lower())
            advice = next(known) if "407" in text else _PROXY
        case httpx.ConnectError() if "no tunnel" in text:
            advice = _NO_TUNNEL
        case httpx.ConnectTimeout():
            advice = _FIREWALL if proxy is None else _PROXY_AWAY
            text = "no connection within the time"
        case httpx.ConnectError() if proxy is not None:
            advice = _PROXY_AWAY
        case httpx.TimeoutException():
            text, advice = "no answer within the time", _SILENT
        case _:
            advice = next(a for words, a in _OF_THE_NETWORK.items() if words in text)
    through = "" if proxy is None else f" through the proxy {proxy}"
    return f"Cannot reach the coordinator at {address}{through}: {text.rstrip('.')}. {advice}"


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
