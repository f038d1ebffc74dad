"""Certificate authority of the coordinator and the certificate of its listeners.

Sites trust the authority's certificate, whose hash is in their invitation, and nothing else;
so the server's certificate can be renewed at any time without asking them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.platform.durable_files import replace_durably
from common.platform.errors import TrustRefused
from server.files.folder import Folder

_Content = TypeVar("_Content")
_AUTHORITY_YEARS = 10
_SERVER_DAYS = 397
#: Renewed when this much is left, so that a coordinator started monthly never shows an old one.
RENEWAL = timedelta(days=60)
#: It signs once for each connection, also a stranger's: P-384 costs twenty times as much.
_SERVER_CURVE = ec.SECP256R1
#: A site's clock may be behind ours.
_BACKDATED = timedelta(days=1)
_SECRET_MODE = 0o600


def now() -> datetime:
    """Return the time that certificates are judged by."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A certificate authority in memory."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, name: str, at: datetime) -> Authority:
        """Return a new authority that signs server certificates and nothing else."""
        key = ec.generate_private_key(ec.SECP384R1())
        own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Wardround {name}"[:64])])
        end = at + timedelta(days=365 * _AUTHORITY_YEARS)
        built = _as_authority(_builder(own, own, key, at, end))
        return cls(certificate=built.sign(key, hashes.SHA384()), key=key)

    @classmethod
    def load(cls, folder: Folder) -> Authority:
        """Read the authority; TrustRefused when a file is missing or is something else."""
        key = _read(folder.ca_key, lambda c: serialization.load_pem_private_key(c, None))
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise _unreadable(folder.ca_key, "another kind of key")
        return cls(certificate=read_certificate(folder.ca), key=key)

    def renewed(self, at: datetime) -> Authority:
        """Return the same authority for years more: name and key stay, so what it signed holds."""
        name, end = self.certificate.subject, at + timedelta(days=365 * _AUTHORITY_YEARS)
        built = _as_authority(_builder(name, name, self.key, at, end))
        return replace(self, certificate=built.sign(self.key, hashes.SHA384()))

    def save(self, folder: Folder, *, beside: Authority | None = None) -> None:
        """Write ca.pem and ca.key; invitations name the certificate `beside`, perhaps."""
        replace_durably(folder.ca_key, _key_pem(self.key), mode=_SECRET_MODE)
        known = b"" if beside is None else certificate_pem(beside.certificate)
        replace_durably(folder.ca, certificate_pem(self.certificate) + known)

    def issue(self, folder: Folder, hosts: Sequence[str], at: datetime) -> None:
        """Write server.pem and server.key, valid for these hosts and for this machine itself."""
        key = ec.generate_private_key(_SERVER_CURVE())
        own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
        end = min(at + timedelta(days=_SERVER_DAYS), self.certificate.not_valid_after_utc)
        built = _builder(own, self.certificate.subject, key, at, end)
        built = built.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        built = built.add_extension(_usage(signs_certificates=False), critical=True)
        built = built.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        names = [_name(host) for host in _with_this_machine(hosts)]
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        certificate = built.add_extension(issuer, critical=False).sign(self.key, hashes.SHA384())
        # One file for both: a crash between two could leave a key that fits no certificate.
        pair = _key_pem(key) + certificate_pem(certificate)
        replace_durably(folder.server_key, pair, mode=_SECRET_MODE)
        replace_durably(folder.server, certificate_pem(certificate))


def renew_if_due(folder: Folder, hosts: Sequence[str], at: datetime) -> bool:
    """Issue a new server certificate when it ends soon, is missing, lacks a host or is slow."""
    if folder.server_key.is_file():
        current = read_certificate(folder.server_key)
        names = current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        covered = all(_name(host) in names for host in _with_this_machine(hosts))
        key = current.public_key()
        ours = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _SERVER_CURVE)
        if ours and covered and current.not_valid_after_utc - at > RENEWAL:
            return False
    Authority.load(folder).issue(folder, hosts, at)
    return True


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate; TrustRefused says what the file holds instead."""
    return _read(path, x509.load_pem_x509_certificate)


def authority_hash(pem: bytes) -> str:
    """Return the SHA-256 of a certificate's DER, in hex: what an invitation carries."""
    certificate = x509.load_pem_x509_certificate(pem)
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def server_context(folder: Folder) -> ssl.SSLContext:
    """Return what a listener needs: our certificate, TLS 1.3 and nothing older."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder.server_key)
    return context


def client_context(folder: Folder) -> ssl.SSLContext:
    """Return what a command needs to trust our own service and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(folder.ca)
    return context


def _builder(
    own: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(own).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(start - _BACKDATED).not_valid_after(end)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False)


def _as_authority(built: x509.CertificateBuilder) -> x509.CertificateBuilder:
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return built.add_extension(_usage(signs_certificates=True), critical=True)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _with_this_machine(hosts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*hosts, "localhost", "127.0.0.1"]))


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate's text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _read(path: Path, load: Callable[[bytes], _Content]) -> _Content:
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from error
    except ValueError as error:
        raise _unreadable(path, "no PEM of what it is named after") from error


def _unreadable(path: Path, found: str) -> TrustRefused:
    message = (
        f"{path} cannot be used: {found}. Put the coordinator's own copy back; without it, "
        "every site must be invited again by a new coordinator."
    )
    return TrustRefused(message)
