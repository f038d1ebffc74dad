"""`runs`: the runs that were proposed, and what was answered."""

from __future__ import annotations

from client.cli.approve import ANSWERS, found_configuration, show_configuration
from client.cli.status import is_automatic
from client.governance.approvals import Approvals, KnownConfiguration
from client.site.home import Home
from client.site.plain_text import ago
from client.site.terminal import as_text, say, table

_STEPS = {
    "waiting": "wardround-site approve {0}   (or refuse)",
    "approved": "wardround-site refuse {0}   takes it back",
    "declined": "wardround-site approve {0}   takes it back",
}


def show_runs(home: Home, which: str | None) -> None:
    """List what was proposed or decided on, or show one of them in full."""
    approvals = Approvals(home.approvals)
    seen = approvals.listed()
    if which is not None:
        found, seed = found_configuration(approvals, which)
        show_configuration(home, approvals, found, seed, which)
        say("The whole configuration:")
        for line in found.to_yaml().splitlines():
            say(f"  {as_text(line)}")
        return
    if not seen:
        say("No run was proposed yet. wardround-site status shows whether the site is connected.")
        return
    rows = [("RUN", "CONFIGURATION", "ANSWER", "SINCE", "NEXT")]
    rows += [_row(item, automatic=is_automatic(home)) for item in seen]
    table(rows)


def _row(seen: KnownConfiguration, *, automatic: bool) -> tuple[str, str, str, str, str]:
    run = as_text(seen.run or "-")
    name = as_text(seen.name)
    which = as_text(seen.run) if seen.run else seen.fingerprint[:16]
    step, word = _STEPS[seen.decision].format(which), ANSWERS[seen.decision]
    if automatic and seen.decision == "waiting":
        step, word = f"wardround-site refuse {which}   says no", "automatic"
    if seen.config is None:
        step = "cannot be read: another release wrote it, or the file was changed"
    return run, f"{name} {seen.fingerprint[:8]}", word, ago(seen.since), step
