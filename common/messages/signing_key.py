"""A site's key pair and its fingerprint.

Keys are EC P-384 in OpenSSH's own text, so that `ssh-keygen -l -f key.pub` shows the same
fingerprint as our commands do. Signatures are ECDSA with SHA-384.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.platform.errors import TrustRefused

_KIND = "ecdsa-sha2-nistp384"
_SIGNING = ec.ECDSA(hashes.SHA384())
#: The public key's text is this long; a longer one is no key of ours.
_LONGEST_TEXT = 400


def new_private_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh EC P-384 key."""
    return ec.generate_private_key(ec.SECP384R1())


def private_text(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a private key as the content of an OpenSSH key file, without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    ).decode("ascii")


def public_text(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public half as one OpenSSH line without a comment."""
    return _text_of(key.public_key())


def load_private(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key; TrustRefused says what the file holds instead."""
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"Cannot read the private key {path}: {error.strerror}."
        raise TrustRefused(message) from error
    try:
        key = serialization.load_ssh_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        message = (
            f"{path} is no private key in OpenSSH's form without a passphrase: {error}. "
            "Put the site's own key back; a new key must be invited again."
        )
        raise TrustRefused(message) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        message = f"{path} holds another kind of key, expected {_KIND}. Put the site's key back."
        raise TrustRefused(message)
    return key


def fingerprint(public: str) -> str:
    """Return SHA256:... as `ssh-keygen -l` shows it."""
    _load_public(public)
    blob = base64.b64decode(public.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def public_pem(public: str) -> bytes:
    """Return a public key as PEM, the form in which Flower knows a node."""
    return _load_public(public).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(private: ec.EllipticCurvePrivateKey, content: bytes) -> bytes:
    """Return a signature of the content."""
    return private.sign(content, _SIGNING)


def verify(public: str, content: bytes, signature: bytes) -> bool:
    """Return whether the owner of `public` signed exactly this content."""
    try:
        _load_public(public).verify(signature, content, _SIGNING)
    except InvalidSignature:
        return False
    return True


def _load_public(public: str) -> ec.EllipticCurvePublicKey:
    """Read one OpenSSH line exactly as `public_text` writes it: one key has one text."""
    key: object = None
    if len(public) <= _LONGEST_TEXT and public.startswith(f"{_KIND} ") and public.count(" ") == 1:
        try:
            key = serialization.load_ssh_public_key(public.encode())
        except (ValueError, UnsupportedAlgorithm):
            key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or _text_of(key) != public:
        message = (
            f"{public[:80]!r} is no public key of a site, expected one line "
            f"'{_KIND} AAAA...' as in the site's file key.pub, without a comment."
        )
        raise TrustRefused(message)
    return key


def _text_of(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode("ascii")
