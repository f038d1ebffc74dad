"""`leave`: the site's key is destroyed, and the coordinator told."""

from __future__ import annotations

from client.site.home import Home
from client.site.terminal import as_text, ask, say
from client.transport.coordinator import load_coordinator
from client.transport.membership import leave
from common.platform.errors import TrustRefused, Unreachable


def leave_federation(home: Home, *, yes: bool, without_them: bool) -> None:
    """Leave, after a word on what stays."""
    coordinator = load_coordinator(home)
    name = as_text(coordinator.name)
    say(f"This site, {coordinator.site}, leaves {name} at {coordinator.address} for good:")
    say("its key is destroyed, nothing more is answered, and runs go on without it.")
    say("What was trained before keeps what it learnt. Ledger, withdrawals, approvals and")
    say("disclosures stay here.")
    if not yes and not ask(f"Leave {name}?"):
        say("Nothing was changed.")
        return
    try:
        leave(home, without_them=without_them)
    except (Unreachable, TrustRefused) as error:
        message = (
            f"{error} Nothing was changed. To destroy the key all the same: "
            "wardround-site leave --without-them"
        )
        raise type(error)(message) from error
    if without_them:
        say(f"Left. If {name} could not be told, its admin types:")
        say(f"  wardround-coordinator sites revoke {coordinator.site}")
    else:
        say(f"Left: {name} was told, and the key is destroyed.")
