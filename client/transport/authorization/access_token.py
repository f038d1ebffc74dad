"""Access tokens by OAuth 2.0 client credentials (RFC 6749 4.4), got anew before they end.

Guarantee: secret, assertion and token stand in no message and no file, and the secret goes to the
token endpoint that the site's admin wrote and nowhere else.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote_plus, urlsplit

import httpx

from client.site.oauth_section import OAuthClient
from client.site.plain_text import shown
from client.site.private_file import read_secret
from client.transport.authorization.client_assertion import client_assertion
from client.transport.proxy import is_loopback
from common.platform.errors import ConfigurationError, TrustRefused, Unreachable, WardroundError

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_LARGEST_ANSWER = 1 << 16  # bytes
#: A token is not used in the last part of its time: a request takes some, and clocks differ.
_MARGIN_SECONDS = 30.0
#: Of a server that does not say how long a token is good (RFC 6749 5.1 recommends that it does).
_USUAL_SECONDS = 300.0
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True)
class _Token:
    text: str
    until: float  # by the clock of `now`


class AccessTokens:
    """The access tokens of one client; safe to share between threads."""

    def __init__(self, client: OAuthClient, now: Callable[[], float] = time.time) -> None:
        parts = urlsplit(client.token_url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            message = (
                f"oauth.token_url {client.token_url} would send the client's secret in the clear. "
                "Write https:."
            )
            raise ConfigurationError(message)
        self._client, self._now = client, now
        self._lock = threading.Lock()
        self._held: _Token | None = None

    def token(self) -> str:
        """Return a token that is good; TrustRefused and Unreachable say why there is none."""
        with self._lock:
            if self._held is None or self._now() >= self._held.until:
                self._held = self._fetched()
            return self._held.text

    def instead_of(self, refused: str) -> str:
        """Return another token than one that was refused, though its time was not over."""
        with self._lock:
            if self._held is not None and self._held.text == refused:
                self._held = None
        return self.token()

    def _fetched(self) -> _Token:
        form, headers = self._proof()
        form["grant_type"] = "client_credentials"
        if self._client.scope is not None:
            form["scope"] = self._client.scope
        asked = self._now()
        try:
            with (
                httpx.Client(
                    timeout=_TIMEOUT,
                    follow_redirects=False,
                    verify=self._trust(),
                    trust_env=not is_loopback(urlsplit(self._client.token_url).hostname or ""),
                ) as client,
                client.stream(
                    "POST", self._client.token_url, data=form, headers=headers
                ) as response,
            ):
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > _LARGEST_ANSWER:
                        raise self._no_token("sends more than a token")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            message = (
                f"The authorization server {self._client.token_url} does not answer "
                f"({type(error).__name__}). Look whether it runs and can be reached from here."
            )
            raise Unreachable(message) from error
        return self._read(response.status_code, bytes(content), asked)

    def _proof(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the form's and the header's part that says who asks."""
        client, headers = self._client, {"Accept": "application/json"}
        if client.secret_file is None:
            assertion = client_assertion(client, self._now())
            return {"client_assertion_type": _ASSERTION, "client_assertion": assertion}, headers
        secret = read_secret(client.secret_file, "the client's secret")
        # RFC 6749 2.3.1: each is encoded as a form before it becomes Basic.
        pair = f"{quote_plus(client.client_id)}:{quote_plus(secret)}".encode()
        return {}, {**headers, "Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    def _trust(self) -> ssl.SSLContext:
        try:
            authority = self._client.authority
            return ssl.create_default_context(cafile=str(authority) if authority else None)
        except (OSError, ssl.SSLError) as error:
            message = f"Cannot read oauth.authority {self._client.authority}: {error}."
            raise ConfigurationError(message) from error

    def _read(self, status: int, content: bytes, asked: float) -> _Token:
        try:
            said: object = json.loads(content)
        except (ValueError, RecursionError):
            said = None
        answer = said if isinstance(said, dict) else {}
        if status >= 500 or status == httpx.codes.TOO_MANY_REQUESTS:
            message = (
                f"The authorization server {self._client.token_url} says HTTP {status}. "
                "Try again later."
            )
            raise Unreachable(message)
        if status != httpx.codes.OK:
            code = shown(str(answer.get("error") or "no reason"))[:60]
            what = f"gives no token (HTTP {status}, {code})"
            raise self._no_token(what)
        text, kind = answer.get("access_token"), str(answer.get("token_type", "")).lower()
        if not isinstance(text, str) or not text or not text.isascii() or not text.isprintable():
            raise self._no_token("answers without an access_token")
        if kind != "bearer":
            what = f"gives a token of the kind {shown(kind)[:20]!r}, not a Bearer"
            raise self._no_token(what)
        lasts = answer.get("expires_in", _USUAL_SECONDS)
        try:
            seconds = float(lasts)
        except (TypeError, ValueError):
            seconds = _USUAL_SECONDS
        return _Token(text=text, until=asked + max(seconds - _MARGIN_SECONDS, seconds / 2))

    def _no_token(self, what: str) -> WardroundError:
        client = self._client
        proof = client.secret_file or client.key_file
        return TrustRefused(
            f"The authorization server {client.token_url} {what}. Compare oauth.client_id "
            f"{client.client_id}, the content of {proof} and oauth.scope with what is registered "
            "there."
        )
