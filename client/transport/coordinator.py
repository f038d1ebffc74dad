"""The coordinator that a site joined: address, name and certificate authority."""

from __future__ import annotations

import hashlib
import json
import ssl
from dataclasses import asdict, dataclass

from client.site.home import Home
from common.platform.durable_files import replace_durably
from common.platform.errors import ConfigurationError, TrustRefused


@dataclass(frozen=True, kw_only=True)
class Coordinator:
    """What coordinator.json says; its authority's certificate lies beside it."""

    address: str  # HOST:PORT
    name: str  # its own
    site: str  # what this site is called there
    fingerprint: str  # SHA-256 of the authority's certificate (DER), in hex

    def save(self, home: Home, authority: str) -> None:
        """Write both files; the authority's certificate first, as the other one names it."""
        replace_durably(home.coordinator_pem, authority.encode())
        text = json.dumps(asdict(self), indent=2) + "\n"
        replace_durably(home.coordinator_json, text.encode())


def load_coordinator(home: Home) -> Coordinator:
    """Read which coordinator was joined; ConfigurationError before a site has joined one."""
    path = home.coordinator_json
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Coordinator(**{name: str(value) for name, value in content.items()})
    except FileNotFoundError as error:
        message = (
            "This site has not joined a coordinator. Ask them for an invite, then type "
            "`wardround-site join INVITE --data FOLDER`."
        )
        raise ConfigurationError(message) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        message = f"{path} cannot be read: {error}. Join again with a new invite."
        raise ConfigurationError(message) from error


def load_authority(home: Home, coordinator: Coordinator) -> str:
    """Return the authority's certificate; TrustRefused unless it is the one that was joined."""
    path = home.coordinator_pem
    try:
        text = path.read_text(encoding="ascii")
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text.strip())).hexdigest()
    except (OSError, ValueError) as error:
        found = str(error)
        text = ""
    if found != coordinator.fingerprint:
        message = (
            f"{path} is not the certificate with which {coordinator.site} joined: its SHA-256 is "
            f"{found}, expected {coordinator.fingerprint}. Put it back, or join again with a new "
            "invite."
        )
        raise TrustRefused(message)
    return text
