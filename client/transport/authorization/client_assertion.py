"""A client's proof by its private key (RFC 7523, as SMART Backend Services has it)."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from client.site.oauth_section import OAuthClient
from client.site.private_file import refuse_readable
from common.platform.errors import ConfigurationError

#: SMART takes no assertion that is good for longer than five minutes.
_SECONDS = 240
_P384_BYTES = 48


def client_assertion(client: OAuthClient, now: float) -> str:
    """Return a signed statement who asks, good once and for four minutes."""
    assert client.key_file is not None  # noqa: S101  # OAuthClient has a key where it has no secret
    key = _key(client.key_file)
    header: dict[str, str | int] = {
        "alg": "RS384" if isinstance(key, rsa.RSAPrivateKey) else "ES384",
        "typ": "JWT",
    }
    if client.key_id is not None:
        header["kid"] = client.key_id
    claims: dict[str, str | int] = {
        "iss": client.client_id,
        "sub": client.client_id,
        "aud": client.token_url,
        "iat": int(now),
        "exp": int(now) + _SECONDS,
        "jti": secrets.token_urlsafe(24),
    }
    signed = f"{_encoded(header)}.{_encoded(claims)}"
    return f"{signed}.{_base64(_signature(key, signed.encode()))}"


def _key(path: Path) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        refuse_readable(path, "the client's private key")
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        message = f"Cannot read oauth.key_file {path}: {error.strerror}."
        raise ConfigurationError(message) from error
    except (ValueError, TypeError) as error:  # no PEM, or one with a password
        message = f"oauth.key_file {path} holds no private key in PEM without a password."
        raise ConfigurationError(message) from error
    if isinstance(key, rsa.RSAPrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    message = f"oauth.key_file {path} holds another kind of key; expected RSA or P-384."
    raise ConfigurationError(message)


def _signature(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    """Return the signature as RFC 7518 3.3 and 3.4 have it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signed, padding.PKCS1v15(), SHA384())
    parts = decode_dss_signature(key.sign(signed, ec.ECDSA(SHA384())))
    return b"".join(part.to_bytes(_P384_BYTES, "big") for part in parts)


def _encoded(content: dict[str, str | int]) -> str:
    return _base64(json.dumps(content, separators=(",", ":")).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
