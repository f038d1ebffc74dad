"""HTTP session with the PACS's DICOMweb (PS3.18): password, authority, timeouts."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.poolmanager import PoolManager

from client.pacs.connection.handshake import CONNECT_SECONDS, reach, speaks_tls, tls_context
from client.site.pacs_section import PacsConfig
from client.site.private_file import refuse_readable
from client.transport.authorization.access_token import AccessTokens
from client.transport.authorization.bearer import RequestsBearer
from client.transport.proxy import is_loopback
from common.platform.errors import ConfigurationError, TrustRefused, Unreachable, WardroundError

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient

#: Seconds for the connection, and of silence while an answer is read.
TIMEOUT = (CONNECT_SECONDS, 120.0)


class _Trusting(HTTPAdapter):
    """Connections that believe one authority, whatever REQUESTS_CA_BUNDLE says."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(
        self,
        connections: int,
        maxsize: int,
        block: bool = False,  # noqa: FBT001, FBT002 - requests calls it so
        **_given: object,
    ) -> None:
        """Make the pool; urllib3 sets TCP_NODELAY by itself."""
        self.poolmanager = PoolManager(
            num_pools=connections, maxsize=maxsize, block=block, ssl_context=self._context
        )


def web_session(pacs: PacsConfig) -> requests.Session:
    """Return a session; ConfigurationError names what it cannot read. Close it after use."""
    url = _root(pacs)
    secured = urlsplit(url).scheme == "https"
    secret = "the password" if pacs.user else "access tokens" if pacs.oauth else ""
    if secret and not secured and not is_loopback(urlsplit(url).hostname or ""):
        message = (
            f"pacs.url {url} would send {secret} in the clear. Write https:, and the "
            "hospital's authority as pacs.authority."
        )
        raise ConfigurationError(message)
    session = requests.Session()
    # Of the environment, the proxies alone: .netrc and REQUESTS_CA_BUNDLE decide nothing here.
    if not is_loopback(urlsplit(url).hostname or ""):  # this machine's own is never behind a proxy
        session.proxies.update(requests.utils.get_environ_proxies(url))
    session.trust_env = False
    session.mount("https://", _Trusting(tls_context(pacs) if secured else None))
    if pacs.user is not None:
        session.auth = (pacs.user, _password(pacs))
    if pacs.oauth is not None:
        session.auth = RequestsBearer(AccessTokens(pacs.oauth))
    return session


def web_client(pacs: PacsConfig) -> DICOMwebClient:
    """Return dicomweb-client on such a session."""
    from dicomweb_client import DICOMwebClient

    return DICOMwebClient(_root(pacs), session=web_session(pacs), timeout=TIMEOUT)


def refusal(pacs: PacsConfig, error: requests.RequestException) -> WardroundError:
    """Return what a failed request means, and who mends it."""
    url = _root(pacs)
    if error.response is not None:
        return _answered(url, pacs, error.response.status_code)
    parts = urlsplit(url)
    secured = parts.scheme == "https"
    port = parts.port or (443 if secured else 80)
    if isinstance(error, requests.exceptions.ProxyError):
        message = (
            f"The proxy of HTTPS_PROXY or HTTP_PROXY does not lead to {url}. Add the PACS's host "
            "to NO_PROXY, or ask whoever runs the proxy."
        )
        return Unreachable(message)
    fault = reach(parts.hostname or "", port, tls_context(pacs) if secured else None)
    if fault is not None:
        return fault
    if not secured and speaks_tls(parts.hostname or "", port):
        return TrustRefused(f"The PACS at {url} speaks TLS there. Write https: in pacs.url.")
    what = "did not answer in time" if isinstance(error, requests.Timeout) else "broke off"
    return Unreachable(f"The PACS at {url} {what}. Ask the PACS team whether it runs.")


def _answered(url: str, pacs: PacsConfig, status: int) -> WardroundError:
    who = pacs.oauth.client_id if pacs.oauth is not None else pacs.user or "nobody"
    if status == requests.codes.unauthorized and pacs.oauth is not None:
        message = (
            f"The PACS at {url} does not take the access token that {pacs.oauth.token_url} gave "
            f"to {who}. Ask the PACS team which scope and audience it expects (pacs.oauth.scope)."
        )
        return TrustRefused(message)
    if status == requests.codes.unauthorized:
        message = (
            f"The PACS at {url} does not take the password of {who}. Compare "
            "pacs.user and the content of pacs.password_file with the PACS team's."
        )
        return TrustRefused(message)
    if status == requests.codes.forbidden:
        message = (
            f"The PACS at {url} lets {who} not do this. Ask the PACS team to "
            "allow QIDO-RS and WADO-RS (and STOW-RS, if results are sent)."
        )
        return TrustRefused(message)
    if status == requests.codes.not_found:
        message = (
            f"There is no DICOMweb at {url} (404). Ask the PACS team for its root, which often "
            "ends in /dicom-web or /rs."
        )
        return ConfigurationError(message)
    if status == requests.codes.bad_request:
        message = (
            f"The PACS at {url} does not understand the request (400). If its port speaks TLS, "
            "write https:; otherwise ask the PACS team for its DICOMweb conformance."
        )
        return ConfigurationError(message)
    message = f"The PACS at {url} answers with status {status}. Ask the PACS team why."
    return Unreachable(message)


def _root(pacs: PacsConfig) -> str:
    if pacs.url is None:
        message = "pacs has no url, DICOMweb's root. Ask the PACS team and write it in site.yaml."
        raise ConfigurationError(message)
    return pacs.url.rstrip("/")


def _password(pacs: PacsConfig) -> str:
    if pacs.password_file is None:
        message = (
            f"pacs.user is {pacs.user}, but there is no pacs.password_file. Write the password in "
            "a file that only this user can read, and its path in site.yaml."
        )
        raise ConfigurationError(message)
    try:
        refuse_readable(pacs.password_file, f"the PACS's password of {pacs.user}")
        return pacs.password_file.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"Cannot read pacs.password_file {pacs.password_file}: {error}."
        raise ConfigurationError(message) from error
