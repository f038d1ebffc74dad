"""`init`: keys, certificates, a token and settings."""

from __future__ import annotations

import secrets

from common.platform.durable_files import replace_durably
from common.platform.errors import ConfigurationError
from server.enrolment.certificates import Authority, now
from server.files.coordinator_yaml import Settings, host_and_port, write_settings
from server.files.folder import Folder


def set_up(folder: Folder, settings: Settings) -> None:
    """Make a coordinator in a folder; ConfigurationError when there is one already."""
    if folder.settings.exists() or folder.ca_key.exists():
        message = (
            f"There is a coordinator in {folder.path} already; its sites trust its key. "
            "Start it with: wardround-coordinator start. For another one, give another --folder."
        )
        raise ConfigurationError(message)
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    host, _ = host_and_port(settings.address)
    authority = Authority.create(settings.name, now())
    authority.save(folder)
    authority.issue(folder, [host], now())
    replace_durably(folder.token, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600)
    # Last: with it, the coordinator is complete.
    write_settings(folder.settings, settings)
