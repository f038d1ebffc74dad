"""Bearer tokens on requests: of requests (DICOMweb) and of httpx (FHIR).

A request that is refused with 401 is sent once more with a new token: a server may take one back
before its time is over.
"""

from __future__ import annotations

from collections.abc import Generator
from urllib.parse import urlsplit

import httpx
import requests
from requests.auth import AuthBase

from client.transport.authorization.access_token import AccessTokens

_Timeout = float | tuple[float | None, float | None] | None


class RequestsBearer(AuthBase):
    """For a session of requests."""

    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the token on a request."""
        token, whose = self._tokens.token(), _origin(request.url)
        request.headers["Authorization"] = f"Bearer {token}"

        def again(
            response: requests.Response,
            *,
            stream: bool = False,
            timeout: _Timeout = None,
            verify: bool | str = True,
            cert: str | tuple[str, str] | None = None,
            proxies: dict[str, str] | None = None,
        ) -> requests.Response:
            # After a redirect another server may be asking; it gets no token.
            if response.status_code != requests.codes.unauthorized or (
                _origin(response.url) != whose
            ):
                return response
            response.content  # noqa: B018  # read, so that the connection can be used again
            response.close()
            repeated = response.request.copy()
            repeated.hooks = {"response": []}
            repeated.headers["Authorization"] = f"Bearer {self._tokens.instead_of(token)}"
            answer: requests.Response = response.connection.send(
                repeated, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
            )
            answer.history.append(response)
            answer.request = repeated
            return answer

        request.register_hook("response", again)
        return request


def _origin(url: str | None) -> tuple[str, str]:
    parts = urlsplit(url or "")
    return parts.scheme, parts.netloc


class HttpxBearer(httpx.Auth):
    """For a client of httpx."""

    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put the token on a request, and another one where it is refused."""
        token = self._tokens.token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            request.headers["Authorization"] = f"Bearer {self._tokens.instead_of(token)}"
            yield request
