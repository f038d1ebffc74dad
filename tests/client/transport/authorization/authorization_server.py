"""An OAuth 2.0 authorization server on loopback, made of Authlib's own grants.

It takes client credentials by a secret (client_secret_basic) or by a signed statement (RFC 7523, as
SMART Backend Services has it), each statement once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    ClientMixin,
    InvalidClientError,
    OAuth2Request,
)
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from joserfc import jwk, jwt
from joserfc.errors import JoseError

CLIENT, SECRET = "wardround-west", "s3cret-of.the_site~"


@dataclass
class Login:
    """What the server gave and was asked."""

    port: int = 0
    lifetime: int | None = 3600  # seconds; None: it does not say
    key: bytes = b""  # PEM of the client's public key
    given: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    taken_back: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)  # statements' names
    answer: tuple[int, bytes] | None = None  # in place of its own

    @property
    def url(self) -> str:
        """Its token endpoint."""
        return f"http://127.0.0.1:{self.port}/token"

    def takes(self, authorization: str | None) -> bool:
        """Return whether an Authorization header has a token that is good."""
        kind, _, token = (authorization or "").partition(" ")
        return kind == "Bearer" and token in self.given and token not in self.taken_back


class _Client(ClientMixin):
    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return endpoint == "token" and method in {"client_secret_basic", "client_assertion_jwt"}

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"

    def get_allowed_scope(self, scope: str) -> str:
        return scope


class _Request(OAuth2Request):
    def __init__(self, form: dict[str, str], headers: dict[str, str]) -> None:
        super().__init__("POST", "https://login.example/token", headers=headers)
        self.payload = BasicOAuth2Payload(form)

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data


class _Grant(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_assertion_jwt")


def _statement(login: Login) -> JWTBearerClientAssertion:
    class Statement(JWTBearerClientAssertion):
        def get_audiences(self) -> list[str]:
            return [login.url]

        def process_assertion_claims(self, assertion: str, resolve_key: jwk.Key) -> object:
            # The two that SMART Backend Services names; Authlib takes RS256 and ES256 by itself.
            try:
                token = jwt.decode(assertion, resolve_key, algorithms=["RS384", "ES384"])
            except JoseError as error:
                raise InvalidClientError(description=error.description) from error
            self.verify_claims(token.claims)
            return token.claims

        def validate_jti(self, _claims: dict[str, str], jti: str) -> bool:
            known = jti in login.used
            login.used.add(jti)
            return not known

        def resolve_client_public_key(self, _client: object) -> jwk.Key:
            return jwk.import_key(login.key, "RSA" if b"MII" in login.key else "EC")

    return Statement()


def _server(login: Login) -> AuthorizationServer:
    class Server(AuthorizationServer):
        def query_client(self, client_id: str) -> _Client | None:
            return _Client() if client_id == CLIENT else None

        def save_token(self, token: dict[str, str], _request: OAuth2Request) -> None:
            login.given.append(token["access_token"])

        def create_oauth2_request(self, request: _Request) -> _Request:
            return request

        def handle_response(
            self, status: int, body: object, _headers: object
        ) -> tuple[int, object]:
            return status, body

        def send_signal(self, _name: str, *_args: object, **_given: object) -> None:
            return

    def generate(**_asked: object) -> dict[str, object]:
        token = {"token_type": "Bearer", "access_token": f"token-{len(login.given) + 1}"}
        return token if login.lifetime is None else {**token, "expires_in": login.lifetime}

    server = Server()
    server.register_token_generator("default", generate)
    server.register_client_auth_method("client_assertion_jwt", _statement(login))
    server.register_grant(_Grant)
    return server


@contextmanager
def authorization_server() -> Iterator[Login]:
    """Run the server until left."""
    login = Login()
    grants = _server(login)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = dict(parse_qsl(body))
            login.asked.append(form)
            if login.answer is not None:
                status, content = login.answer
            else:
                request = _Request(form, dict(self.headers))
                status, said = grants.create_token_response(request)
                content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        login.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield login
        finally:
            server.shutdown()
            thread.join()
