"""`doctor`: one finding for each check, and for each fault what to do about it.

Everything is looked at here and told here. The coordinator is asked for its certificate and for
the state of the enrolment, and hears the site's name and public key, which it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from client.readiness import (
    check_installation,
    check_link,
    check_machine,
    check_pacs,
    check_records,
)
from client.readiness.check_finding import Finding, Subject, wrong
from client.site.home import Home
from client.site.site_config import SiteConfig, load_site_config
from client.transport.coordinator import Coordinator, load_coordinator
from common.platform.errors import WardroundError

__all__ = ["Finding", "examine"]

#: In this order, so that a cause is told before what follows from it.
_CHECKS: tuple[tuple[str, Callable[[Subject], Iterator[Finding]]], ...] = (
    ("packages", check_installation.packages),
    ("key", check_installation.key),
    ("network", check_link.reached),
    ("enrolment", check_link.enrolment),
    ("disk", check_machine.disk),
    ("memory", check_machine.memory),
    ("GPU", check_machine.gpu),
    ("cohort", check_records.cohort),
    ("ledger", check_records.ledger),
    ("disclosures", check_records.disclosures),
    ("withdrawals", check_records.withdrawals),
    ("records", check_records.newest),
    ("approvals", check_records.approvals),
    ("set aside", check_records.quarantine),
)


def examine(home: Home, part: Literal["site", "pacs"] = "site") -> Iterator[Finding]:
    """Yield a finding for each check; a check that fails stops none of the others."""
    if part == "pacs":
        yield from check_pacs.examine_pacs(load_site_config(home.site_yaml))
        return
    config: SiteConfig | None = None
    coordinator: Coordinator | None = None
    try:
        config = load_site_config(home.site_yaml)
        yield Finding(check="site.yaml", state="ok", detail=f"site {config.name}")
    except WardroundError as error:
        yield wrong("site.yaml", error)
    try:
        coordinator = load_coordinator(home)
        detail = f"{coordinator.name} at {coordinator.address}"
        yield Finding(check="joined", state="ok", detail=detail)
    except WardroundError as error:
        yield wrong("joined", error)
    subject = Subject(home=home, config=config, coordinator=coordinator)
    for name, check in _CHECKS:
        try:
            yield from check(subject)
        except WardroundError as error:
            yield wrong(name, error)
