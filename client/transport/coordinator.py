"""The coordinator that a site joined: address, name and certificate authority."""

from __future__ import annotations

import hashlib
import json
import ssl
from dataclasses import asdict, dataclass
from datetime import datetime

from cryptography import x509

from client.site.home import FIRST, Home
from client.site.site_config import SiteConfig, load_site_config
from common.messages.notice import is_of_same_key
from common.platform.durable_files import replace_durably
from common.platform.errors import ConfigurationError, TrustRefused

#: From so many days before its end on, a certificate's end is told.
SOON_DAYS = 30


@dataclass(frozen=True, kw_only=True)
class Coordinator:
    """What coordinator.json says; its authority's certificate lies beside it."""

    address: str  # HOST:PORT
    name: str  # its own
    site: str  # what this site is called there
    fingerprint: str  # SHA-256 of the authority's certificate (DER) that was joined, in hex
    number: int = 0  # of the last notice that was followed
    renewed: str = ""  # the authority's later certificate for the same key (PEM)

    def save(self, home: Home, authority: str) -> None:
        """Write both files; the authority's certificate first, as the other one names it."""
        replace_durably(home.coordinator_pem, authority.encode())
        self.note(home)

    def note(self, home: Home) -> None:
        """Write coordinator.json alone, whole or not at all."""
        facts = {name: value for name, value in asdict(self).items() if value}
        replace_durably(home.coordinator_json, (json.dumps(facts, indent=2) + "\n").encode())


def load_coordinator(home: Home) -> Coordinator:
    """Read which coordinator was joined; ConfigurationError before a site has joined one."""
    path = home.coordinator_json
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        number = int(content.pop("number", 0))
        return Coordinator(number=number, **{name: str(value) for name, value in content.items()})
    except FileNotFoundError as error:
        message = (
            "This site has not joined a coordinator. Ask them for an invite, then type "
            "`wardround-site join INVITE --data FOLDER`."
        )
        raise ConfigurationError(message) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        message = f"{path} cannot be read: {error}. Join again with a new invite."
        raise ConfigurationError(message) from error


def known_as(home: Home) -> SiteConfig:
    """Return site.yaml with the name by which the federation knows this site."""
    config = load_site_config(home.site_yaml)
    if home.federation == FIRST:
        return config
    return config.model_copy(update={"name": load_coordinator(home).site})


def load_authority(home: Home, coordinator: Coordinator) -> str:
    """Return the authority's certificate; TrustRefused unless it is the one that was joined.

    Where it was renewed since, that of the same key is returned.
    """
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
    if coordinator.renewed and not is_of_same_key(text, coordinator.renewed):
        message = (
            f"{home.coordinator_json} names a renewed certificate of another key than the "
            "coordinator's that was joined. Put it back from a backup, or join again."
        )
        raise TrustRefused(message)
    return coordinator.renewed or text


def end_of(certificate: str) -> datetime:
    """Return until when a certificate (PEM) is valid."""
    return x509.load_pem_x509_certificate(certificate.encode("ascii")).not_valid_after_utc
