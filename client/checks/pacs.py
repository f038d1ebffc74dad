"""Whether the hospital's PACS answers, and what it means when it answers nothing."""

from __future__ import annotations

from collections.abc import Iterator

from client.checks.finding import Finding
from client.site_config import SiteConfig


def examine_pacs(config: SiteConfig) -> Iterator[Finding]:
    """Yield a finding for each thing that the PACS must do for this site."""
    if config.pacs is None:
        yield Finding(
            check="pacs", state="note", detail="site.yaml has no pacs; a folder alone is read"
        )
