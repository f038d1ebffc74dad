"""Result type of the doctor's checks, and what they look at."""

from __future__ import annotations

from dataclasses import dataclass

from client.site.home import Home
from client.site.site_config import SiteConfig
from client.transport.coordinator import Coordinator
from common.platform.doctor_finding import Finding, State
from common.platform.errors import WardroundError

__all__ = ["Finding", "State", "Subject", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A site; None for what cannot be read, which is a finding of its own."""

    home: Home
    config: SiteConfig | None
    coordinator: Coordinator | None


def wrong(check: str, error: WardroundError) -> Finding:
    """Return an error of ours as a finding: what follows its first sentence says what to do."""
    problem, _, fix = str(error).partition(". ")
    return Finding(check=check, state="wrong", detail=problem, fix=fix or "see there")
