"""Reasons why the PACS is not reached or not trusted, for its admin."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from cryptography import x509

from client.site.pacs_section import PacsConfig
from common.platform.errors import ConfigurationError, TrustRefused, Unreachable, WardroundError

#: Seconds for TCP and for the TLS handshake, each.
CONNECT_SECONDS = 10.0
#: A port that speaks something else says nothing to a TLS greeting.
_SILENT_SECONDS = 3.0


def tls_context(pacs: PacsConfig) -> ssl.SSLContext:
    """Return TLS that trusts the hospital's authority, or this machine's if none is named.

    Names in the certificate are compared with the host, as PS3.15 B.12 (BCP 195) asks.
    ConfigurationError names the file that cannot be used.
    """
    _readable(pacs.authority, "authority")
    try:
        context = ssl.create_default_context(cafile=pacs.authority)
    except (OSError, ssl.SSLError) as error:
        message = (
            f"pacs.authority {pacs.authority} holds no certificate in PEM: {error}. Ask the PACS "
            "team for the file of the hospital's authority (-----BEGIN CERTIFICATE-----)."
        )
        raise ConfigurationError(message) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pacs.certificate is not None:
        _present(context, pacs)
    return context


def reach(host: str, port: int, context: ssl.SSLContext | None) -> WardroundError | None:
    """Open a connection, with TLS if there is a context, and close it; return what is wrong."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as connection:
            if context is None:
                return None
            with context.wrap_socket(connection, server_hostname=host) as secured:
                return _after_handshake(f"{host}:{port}", secured)
    except ssl.SSLCertVerificationError as error:
        return _untrusted(host, port, error)
    except OSError as error:
        return meaning(host, port, error, secured=context is not None)


def meaning(host: str, port: int, error: OSError, *, secured: bool) -> WardroundError:
    """Return what a failed connection means, and who mends it."""
    place = f"{host}:{port}"
    match error:
        case ssl.SSLError():
            return _no_tls(place, error)
        case ConnectionResetError() if secured:
            return _no_tls(place, error)
        case TimeoutError():
            message = (
                f"The PACS at {place} does not answer within {CONNECT_SECONDS:.0f} s. Ask whoever "
                "runs the firewall to let this machine connect there, and the PACS team whether "
                "it runs."
            )
        case socket.gaierror():
            message = (
                f"The name {host} is not known here: {error.strerror}. Compare it with the PACS "
                "team's, or write its IP address."
            )
        case _:
            message = (
                f"The PACS at {place} is not reached: {error.strerror or error}. Compare host and "
                "port with the PACS team's, and ask them whether it runs."
            )
    return Unreachable(message)


def _no_tls(place: str, error: OSError) -> TrustRefused:
    text = str(error).partition("] ")[2].partition(" (_ssl")[0] or str(error)
    if "alert" in text or "ALERT" in str(error):
        return _certificate_wanted(place, text)
    message = (
        f"The PACS at {place} does not speak TLS there: {text}. Ask the PACS team for the port "
        "with TLS; if there is none, write tls: false (or http: in url), which sends images in "
        "the clear."
    )
    return TrustRefused(message)


def _certificate_wanted(place: str, text: str) -> TrustRefused:
    message = (
        f"The PACS at {place} refuses our side of TLS: {text}. It may want a certificate of ours: "
        "ask the PACS team for one that their authority signed, and name it in pacs.certificate "
        "and pacs.key."
    )
    return TrustRefused(message)


def _after_handshake(place: str, secured: ssl.SSLSocket) -> TrustRefused | None:
    """Wait a moment: with TLS 1.3 a server refuses our certificate after our side is done."""
    secured.settimeout(0.5)
    try:
        secured.recv(1)
    except TimeoutError:
        return None  # it waits for us to speak
    except ssl.SSLError as error:
        return _certificate_wanted(place, str(error).partition("] ")[2].partition(" (_ssl")[0])
    except OSError:
        return None
    return None


def _untrusted(host: str, port: int, error: ssl.SSLCertVerificationError) -> TrustRefused:
    """Tell a certificate without names from one of other names, and both from another signer."""
    place, reason = f"{host}:{port}", error.verify_message.rstrip(".")
    if "ismatch" in reason or "not valid for" in reason:
        names = _names(host, port)
        if not names:
            message = (
                f"The certificate of {place} names no host (it has no subjectAltName), so nobody "
                f"can see that it is the PACS's. Ask the PACS team for one with {host} in its "
                "subjectAltName; a Common Name alone has not counted since RFC 6125."
            )
            return TrustRefused(message)
        message = (
            f"The certificate of {place} is for {', '.join(names)}, not for {host}. Write one of "
            "those in site.yaml, or ask the PACS team for a certificate with this one."
        )
        return TrustRefused(message)
    if "expired" in reason or "not yet valid" in reason:
        message = (
            f"The certificate of {place} is not accepted: {reason}. If this machine's clock is "
            "right (timedatectl), the PACS team must renew it."
        )
        return TrustRefused(message)
    message = (
        f"The certificate of {place} is not signed by the authority that pacs.authority names: "
        f"{reason}. Ask the PACS team for their authority's certificate; if it is the one you "
        "have, somebody may be in between: do not go on."
    )
    return TrustRefused(message)


def speaks_tls(host: str, port: int) -> bool:
    """Return whether a port answers TLS, whoever it is; nothing is sent beyond the handshake."""
    return _shown(host, port) is not None


def _names(host: str, port: int) -> list[str]:
    """Return the hosts that the shown certificate names."""
    content = _shown(host, port)
    try:
        extensions = x509.load_der_x509_certificate(content or b"").extensions
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    except ValueError:
        return ["another host"]
    return [str(name.value) for name in found]


def _shown(host: str, port: int) -> bytes | None:
    """Return the certificate that is shown, in DER; None where no TLS is spoken."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=_SILENT_SECONDS) as connection,
            blind.wrap_socket(connection, server_hostname=host) as secured,
        ):
            return secured.getpeercert(binary_form=True)
    except OSError:
        return None


def _present(context: ssl.SSLContext, pacs: PacsConfig) -> None:
    _readable(pacs.certificate, "certificate")
    _readable(pacs.key, "key")
    try:
        context.load_cert_chain(str(pacs.certificate), pacs.key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        message = (
            f"pacs.certificate {pacs.certificate} and pacs.key {pacs.key} cannot be used: {error}. "
            "Both must be PEM, belong together, and the key must have no password."
        )
        raise ConfigurationError(message) from error


def _no_password() -> str:
    """Return nothing, as OpenSSL would ask on the terminal."""
    return ""


def _readable(path: Path | None, name: str) -> None:
    if path is None:
        return
    try:
        path.read_bytes()
    except OSError as error:
        message = (
            f"Cannot read pacs.{name} {path}: {error.strerror}. Correct it in site.yaml, or let "
            "the user who runs this read it."
        )
        raise ConfigurationError(message) from error
