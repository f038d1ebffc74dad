"""Routes by which a site reaches the PACS of a test."""

from __future__ import annotations

from client.site.pacs_section import PacsConfig
from tests.client.pacs.orthanc import Pacs


def reaching(pacs: Pacs, route: str = "dicomweb", **changes: object) -> PacsConfig:
    """Return site.yaml's section for a running PACS, with what the test changes."""
    content: dict[str, object] = {
        "route": route,
        "url": pacs.url,
        "user": pacs.user,
        "password_file": pacs.password_file,
        "host": "127.0.0.1",
        "port": pacs.dicom_port,
        "called_title": pacs.called_title,
        "own_address": "127.0.0.1",
    }
    return PacsConfig.model_validate(content | changes)
