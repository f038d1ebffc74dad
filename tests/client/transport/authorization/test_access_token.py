"""Access tokens from a real authorization server (Authlib), and DICOMweb behind them (Orthanc)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import ValidationError

from client.pacs.connection.web_session import refusal, web_client, web_session
from client.pacs.sending.delivery import State, deliver
from client.results.writing import write_results
from client.site.oauth_section import OAuthClient
from client.site.pacs_section import PacsConfig
from client.transport.authorization.access_token import AccessTokens
from common.platform.errors import ConfigurationError, TrustRefused, Unreachable
from tests.client.pacs.orthanc import Pacs, orthanc
from tests.client.scores import outlined, volume
from tests.client.transport.authorization.authorization_server import (
    CLIENT,
    SECRET,
    Login,
    authorization_server,
)

pytestmark = pytest.mark.processes


@pytest.fixture
def login() -> Iterator[Login]:
    with authorization_server() as found:
        yield found


def secret_file(folder: Path, text: str = SECRET) -> Path:
    path = folder / "secret"
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def by_secret(login: Login, folder: Path, **changes: object) -> OAuthClient:
    content = {"token_url": login.url, "client_id": CLIENT, "secret_file": secret_file(folder)}
    return OAuthClient.model_validate(content | changes)


@contextmanager
def guarded(pacs: Pacs, login: Login) -> Iterator[str]:
    """Put a gateway before the PACS that takes access tokens alone; yield DICOMweb's root."""

    class Handler(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not login.takes(self.headers.get("Authorization")):
                self._answer(401, {"WWW-Authenticate": "Bearer"}, b"")
                return
            user, password = pacs.user, Path(pacs.password_file).read_text().strip()
            kept = {n: v for n, v in self.headers.items() if n in {"Accept", "Content-Type"}}
            got = requests.request(
                self.command,
                pacs.url.rsplit("/dicom-web", 1)[0] + self.path,
                data=body or None,
                headers=kept,
                auth=(user, password),
                timeout=30,
            )
            self._answer(
                got.status_code,
                {"Content-Type": got.headers.get("Content-Type", "text/plain")},
                got.content,
            )

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _pass  # noqa: N815 - http.server calls them so

        def log_message(self, *_arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/dicom-web"
        finally:
            server.shutdown()
            thread.join()


def test_a_token_is_kept_until_shortly_before_its_end(login: Login, tmp_path: Path) -> None:
    clock = [0.0]
    tokens = AccessTokens(by_secret(login, tmp_path, scope="a b"), now=lambda: clock[0])
    assert [tokens.token(), tokens.token()] == ["token-1", "token-1"]
    assert login.asked == [{"grant_type": "client_credentials", "scope": "a b"}]
    clock[0] = 3569.0
    assert tokens.token() == "token-1"
    clock[0] = 3571.0
    assert tokens.token() == "token-2"
    login.lifetime = None  # a server that does not say is asked again after five minutes
    clock[0] += 3600
    tokens.token()
    clock[0] += 269
    assert tokens.token() == "token-3"
    clock[0] += 2
    assert tokens.token() == "token-4"


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_private_key_takes_the_place_of_a_secret(login: Login, tmp_path: Path, kind: str) -> None:
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = (
        rsa.generate_private_key(65537, 2048)
        if kind == "rsa"
        else ec.generate_private_key(ec.SECP384R1())
    )
    login.key = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    client = OAuthClient(token_url=login.url, client_id=CLIENT, key_file=path, key_id="k1")
    with pytest.raises(ConfigurationError, match="chmod 600"):
        AccessTokens(client).token()
    path.chmod(0o600)
    tokens = AccessTokens(client)
    assert tokens.token() == "token-1"
    assert tokens.instead_of("token-1") == "token-2"
    assert len(login.used) == 2, "each statement has its own name"
    path.write_text("no key")
    with pytest.raises(ConfigurationError, match="no private key in PEM"):
        tokens.instead_of("token-2")
    other = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(TrustRefused, match="invalid_client"):
        tokens.instead_of("token-2")


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((400, b'{"error": "invalid_scope"}'), TrustRefused, r"HTTP 400, invalid_scope"),
        ((401, b"<html>"), TrustRefused, r"HTTP 401, no reason"),
        ((302, b""), TrustRefused, r"HTTP 302"),
        ((503, b""), Unreachable, r"HTTP 503. Try again later"),
        ((200, b"[]"), TrustRefused, "without an access_token"),
        ((200, b'{"access_token": "a\\nb", "token_type": "Bearer"}'), TrustRefused, "without an"),
        ((200, b'{"access_token": "x", "token_type": "mac"}'), TrustRefused, "not a Bearer"),
        ((200, b" " * 70_000), TrustRefused, "more than a token"),
    ],
)
def test_whatever_is_no_token_is_told(
    login: Login, tmp_path: Path, answer: tuple[int, bytes], error: type[Exception], said: str
) -> None:
    login.answer = answer
    with pytest.raises(error, match=said) as told:
        AccessTokens(by_secret(login, tmp_path)).token()
    assert SECRET not in str(told.value)


def test_a_secret_goes_nowhere_in_the_clear(login: Login, tmp_path: Path) -> None:
    client = by_secret(login, tmp_path, token_url="http://login.example/token")  # noqa: S106 - no secret
    with pytest.raises(ConfigurationError, match="in the clear"):
        AccessTokens(client)
    client = by_secret(login, tmp_path)
    assert client.secret_file is not None
    client.secret_file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        AccessTokens(client).token()
    assert login.asked == []


@pytest.mark.parametrize(
    "content",
    [
        {"secret_file": "/s", "key_file": "/k"},
        {},
        {"secret_file": "/s", "key_id": "k"},
        {"secret_file": "s"},
        {"secret_file": "/s", "token_url": "https://user:pw@login.example/token"},
        {"secret_file": "/s", "token_url": "ftp://login.example/token"},
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(content: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        OAuthClient.model_validate(
            {"token_url": "https://login.example/token", "client_id": "a"} | content
        )


def test_dicomweb_is_asked_and_given_results_with_tokens(login: Login, tmp_path: Path) -> None:
    with orthanc(tmp_path / "pacs") as pacs, guarded(pacs, login) as url:
        config = PacsConfig(route="dicomweb", url=url, oauth=by_secret(login, tmp_path))
        client = web_client(config)
        assert client.search_for_studies() == []
        assert login.given == ["token-1"]
        login.taken_back.add("token-1")  # before its time was over
        assert client.search_for_studies() == []
        assert login.given == ["token-1", "token-2"]
        results = write_results(outlined(volume(tmp_path / "source")), tmp_path / "out")
        sent = deliver(results, config)
        assert {one.state for one in sent} == {State.STORED}
        login.taken_back.update(f"token-{n}" for n in range(100))
        with web_session(config) as session:
            answer = session.get(f"{url}/studies", timeout=10)
            assert answer.status_code == 401
            with pytest.raises(requests.HTTPError) as raised:
                answer.raise_for_status()
        told = refusal(config, raised.value)
        assert isinstance(told, TrustRefused)
        assert "does not take the access token" in str(told)


def test_a_token_follows_no_redirect_to_another_server(login: Login, tmp_path: Path) -> None:
    seen: list[str | None] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            return

    class First(Other):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{other.server_port}/x")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Other) as other,
        ThreadingHTTPServer(("127.0.0.1", 0), First) as first,
    ):
        for server in (other, first):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{first.server_port}"
        config = PacsConfig(route="dicomweb", url=url, oauth=by_secret(login, tmp_path))
        with web_session(config) as session:
            assert session.get(url, timeout=10).status_code == 401
        for server in (other, first):
            server.shutdown()
    assert seen == [None]
