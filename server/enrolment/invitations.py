"""Invitations for several sites."""

from __future__ import annotations

from collections.abc import Sequence

from server.enrolment.certificates import authority_hash
from server.enrolment.registry import Enrolment
from server.files.coordinator_yaml import Settings
from server.files.folder import Folder

#: A site's admin may be away for a weekend.
DEFAULT_HOURS = 72.0


def invitations(
    folder: Folder, settings: Settings, enrolment: Enrolment, sites: Sequence[str], hours: float
) -> dict[str, str]:
    """Return a new invitation for each site."""
    authority = authority_hash(folder.ca.read_bytes())
    return {
        site: enrolment.invite(
            site, address=settings.address, ca_sha256=authority, hours=hours
        ).text()
        for site in sites
    }
