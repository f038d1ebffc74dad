"""Search on a FHIR R4 server: pages, refusals, overload and wrong answers.

Guarantee: the token goes to the host, port and scheme that the site's admin wrote and nowhere
else; a redirect or a next page elsewhere is refused before anything is sent there.

    429, 502, 503, 504, 500, a broken connection   tried again after growing pauses, or Retry-After
    401, 403                                       at once: the token is wrong or does not allow it
    (401 with oauth: once more with a new token)
    the same page twice, pages without end         refused
    an answer that is no Bundle, or a huge one     refused
"""

from __future__ import annotations

import email.utils
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

import httpx

from client.site.fhir_section import FhirAddress
from client.site.plain_text import shown
from client.site.private_file import read_secret
from client.transport.authorization.access_token import AccessTokens
from client.transport.authorization.bearer import HttpxBearer
from client.transport.proxy import is_loopback
from common.platform.errors import (
    CohortError,
    ConfigurationError,
    TrustRefused,
    Unreachable,
    WardroundError,
)

_TRIES = 5
_FIRST_PAUSE = 1.0
#: A server that asks for more patience is as good as not there.
_LONGEST_PAUSE = 120.0
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_AGAIN = frozenset({429, 500, 502, 503, 504})
_LARGEST_PAGE = 64 << 20  # bytes
_MOST_PAGES = 100_000

Resource = Mapping[str, object]


class FhirServer:
    """A FHIR server's search; use it as a context."""

    def __init__(
        self, source: FhirAddress, page: int = 100, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._source, self._page, self._pause = source, page, pause
        #: Resource and parameter of searches that the server says it did not search by.
        self.passed_over: dict[tuple[str, str], None] = {}
        headers = {"Accept": "application/fhir+json"}
        parts = urlsplit(source.url)
        known = source.token_file is not None or source.oauth is not None
        if known and parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            message = f"fhir.url {source.url} would send the token in the clear. Write https:."
            raise ConfigurationError(message)
        if source.token_file is not None:
            headers["Authorization"] = f"Bearer {read_secret(source.token_file, 'the token')}"
        self._client = _client(source, headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def check_version(self) -> None:
        """Refuse a server that is not R4; CohortError says what it is."""
        found = self._get(f"{self._source.url}/metadata")
        version = found.get("fhirVersion")
        if not isinstance(version, str) or not version.startswith("4."):
            said = shown(str(version))[:20] if version else "no version"
            message = f"{self._source.url} says {said}, expected FHIR 4 (R4 or R4B)."
            raise CohortError(message)

    def search(self, kind: str, parameters: Sequence[tuple[str, str]]) -> Iterator[Resource]:
        """Yield every resource that matches, page by page.

        A server may pass a parameter over and send more; `passed_over` names those that its answer
        (the link `self`, FHIR R4 3.1.1.1.3) does not show as asked.
        """
        asked = [*parameters, ("_count", str(self._page))]
        url = str(httpx.URL(f"{self._source.url}/{kind}", params=asked))
        seen: set[str] = set()
        while url:
            if url in seen or len(seen) >= _MOST_PAGES:
                message = f"{self._source.url} sends its pages of {kind} round in a circle."
                raise CohortError(message)
            seen.add(url)
            bundle = self._get(url)
            if len(seen) == 1:
                unused = (name for name in _unused(bundle, parameters))
                self.passed_over |= dict.fromkeys((kind, name) for name in unused)
            yield from _matches(bundle, kind, self._source.url)
            url = self._next(bundle, url)

    def transact(self, bundle: Resource) -> Resource:
        """Post a transaction, once, and return the answer.

        Unreachable says that whether it came through is not known.
        """
        return self._answered("POST", self._source.url, json.dumps(bundle).encode(), tries=1)

    def _next(self, bundle: Resource, url: str) -> str:
        links = bundle.get("link")
        for link in links if isinstance(links, list) else ():
            if isinstance(link, dict) and link.get("relation") == "next":
                following = _joined(url, str(link.get("url", "")))
                self._check_origin(following)
                return following
        return ""

    def _check_origin(self, url: str) -> None:
        """Refuse to go anywhere else; a server behind a proxy may not know its own name."""
        if _origin(url) != _origin(self._source.url):
            message = (
                f"{self._source.url} sends us on to {shown(url)[:100]}, which is another server; "
                "nothing was sent there. Ask its admin to correct the address that it gives itself."
            )
            raise TrustRefused(message)

    def _get(self, url: str) -> Resource:
        return self._answered("GET", url, None, _TRIES)

    def _answered(self, method: str, url: str, body: bytes | None, tries: int) -> Resource:
        why = ""
        for attempt in range(tries):
            wait = _FIRST_PAUSE * 2**attempt
            try:
                status, headers, content = self._read(method, url, body)
            except httpx.RequestError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if status not in _AGAIN:
                    return self._content(status, headers, content)
                why = f"HTTP {status}"
                wait = max(wait, _retry_after(headers.get("Retry-After", "")))
            if attempt + 1 < tries:
                self._pause(min(wait, _LONGEST_PAUSE))
        message = (
            f"{self._source.url} does not answer: {why[:200]}, {tries} times. Look whether it "
            "runs and can be reached from here, and type the command again."
        )
        raise Unreachable(message)

    def _read(self, method: str, url: str, body: bytes | None) -> tuple[int, httpx.Headers, bytes]:
        kind = {} if body is None else {"Content-Type": "application/fhir+json"}
        with self._client.stream(method, url, content=body, headers=kind) as response:
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > _LARGEST_PAGE:
                    message = (
                        f"{self._source.url} sends more than {_LARGEST_PAGE >> 20} MiB a page."
                    )
                    raise CohortError(message)
            return response.status_code, response.headers, bytes(content)

    def _content(self, status: int, headers: httpx.Headers, content: bytes) -> Resource:
        if not 200 <= status < 300:
            raise self._refusal(status, headers, content)
        found = _json(content)
        if found is None:
            message = f"{self._source.url} answers with no FHIR JSON. Is it the server's root?"
            raise CohortError(message)
        return found

    def _refusal(self, status: int, headers: httpx.Headers, content: bytes) -> WardroundError:
        where, said = self._source.url, _outcome_of(content)
        if status in {401, 403}:
            file, oauth = self._source.token_file, self._source.oauth
            fix = f"Put a valid one into {file}" if file else "Give it one with fhir.token_file"
            if oauth is not None:
                fix = f"Ask which scope {oauth.client_id} needs there (fhir.oauth.scope)"
            return TrustRefused(f"{where} refuses our token (HTTP {status}).{said} {fix}.")
        if 300 <= status < 400:
            to = shown(headers.get("Location", "elsewhere"))[:100]
            return TrustRefused(
                f"{where} sends us on to {to}; nothing was sent there. If that is right, write it "
                "as fhir.url."
            )
        if status == 404:
            return ConfigurationError(
                f"{where} is no FHIR root (HTTP 404).{said} Correct fhir.url."
            )
        return CohortError(f"{where} refuses the request (HTTP {status}).{said}")


def _unused(bundle: Resource, asked: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield the parameters by which a server did not search, as its link `self` says.

    A server writes values its own way (Patient/1 for 1, other signs escaped), so each part that was
    asked for has to stand in it somewhere. One that sends no such link does not say.
    """
    links = bundle.get("link")
    own = [
        str(link.get("url", ""))
        for link in (links if isinstance(links, list) else ())
        if isinstance(link, dict) and link.get("relation") == "self"
    ]
    if not own:
        return
    used: dict[str, str] = {}
    for name, value in parse_qsl(urlsplit(own[0]).query, keep_blank_values=True):
        used[name] = f"{used.get(name, '')},{value}"
    for name, value in asked:
        bare = name.partition(":")[0]
        held = next((v for key, v in used.items() if key.partition(":")[0] == bare), None)
        if held is None or any(part not in held for part in value.split(",")):
            yield name


def _trust(source: FhirAddress) -> ssl.SSLContext:
    """Return whom to believe: the hospital's authority alone, where one is given."""
    if urlsplit(source.url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # for nobody
    try:
        return ssl.create_default_context(
            cafile=str(source.authority) if source.authority is not None else None
        )
    except (OSError, ssl.SSLError) as error:
        message = f"Cannot read fhir.authority {source.authority}: {error}."
        raise ConfigurationError(message) from error


def _client(source: FhirAddress, headers: dict[str, str]) -> httpx.Client:
    trusted = _trust(source)
    try:
        return httpx.Client(
            headers=headers,
            auth=None if source.oauth is None else HttpxBearer(AccessTokens(source.oauth)),
            timeout=_TIMEOUT,
            follow_redirects=False,
            verify=trusted,
            # This machine's own server is never asked for through a proxy.
            trust_env=not is_loopback(urlsplit(source.url).hostname or ""),
        )
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        message = (
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names no proxy of the kind http://HOST:PORT "
            f"({type(error).__name__}). Correct it, or name the FHIR server's host in NO_PROXY."
        )
        raise ConfigurationError(message) from error


def _joined(url: str, link: str) -> str:
    try:
        return str(httpx.URL(url).join(link))
    except (httpx.InvalidURL, ValueError):
        return link  # no address at all, so none of ours


def _origin(url: str) -> tuple[str, str, int | None, bytes]:
    """Return scheme, host, port and user, as the client that would go there reads them."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return "", "", None, b""
    return parsed.scheme, parsed.host, parsed.port, parsed.userinfo


def _matches(bundle: Resource, kind: str, where: str) -> Iterator[Resource]:
    """Yield a page's matches; what was included beside them, and notes of the server, are none."""
    entries = bundle.get("entry", [])
    if (
        bundle.get("resourceType") != "Bundle"
        or bundle.get("type") != "searchset"
        or (not isinstance(entries, list))
    ):
        message = f"{where} answers a search of {kind} with no searchset Bundle."
        raise CohortError(message)
    for entry in entries:
        resource = entry.get("resource") if isinstance(entry, dict) else None
        search = entry.get("search") if isinstance(entry, dict) else None
        mode = search.get("mode", "match") if isinstance(search, dict) else "match"
        if isinstance(resource, dict) and mode == "match" and resource.get("resourceType") == kind:
            yield resource


def _json(content: bytes) -> Resource | None:
    try:
        found: object = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _outcome_of(content: bytes) -> str:
    """Return what an OperationOutcome says, as a terminal may show it."""
    issues = (_json(content) or {}).get("issue")
    first = issues[0] if isinstance(issues, list) and issues else None
    said = first.get("diagnostics") if isinstance(first, dict) else None
    return f" It says: {shown(str(said))[:200]}." if said else ""


def _retry_after(text: str) -> float:
    """Return the seconds of a Retry-After (RFC 9110 10.2.3): a number, or a moment."""
    if text.strip().isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
