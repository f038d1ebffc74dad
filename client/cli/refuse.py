"""`refuse`: a run that this site takes no part in."""

from __future__ import annotations

from client.cli.approve import decide
from client.site.home import Home


def refuse(home: Home, which: str, *, yes: bool) -> None:
    """Show a configuration, and record that it is refused."""
    decide(home, which, "declined", yes=yes)
