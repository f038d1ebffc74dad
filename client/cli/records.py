"""`records`: whether the records are the newest there were, and what to do if not."""

from __future__ import annotations

from client.governance.disclosures import verify
from client.governance.records_check import SiteRecords
from client.governance.records_loss import declare_lost
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import as_text, ask, say
from common.platform.errors import RecordsLost, WardroundError


def check(home: Home) -> None:
    """Say that the records are the newest, as far as this home knows; RecordsLost where not.

    StateDamaged where a line of the disclosures does not fit.
    """
    load_site_config(home.site_yaml)  # else there is no home, and none is made
    records = SiteRecords(home)
    for one in home.federations():
        SiteRecords(one).check()
        verify(one.disclosures)
    stands = records.statement()
    say(f"{home.ledger}: {stands.ledger.charges} charges, the newest that this home knows of.")
    say(
        f"{home.withdrawals}: {stands.withdrawals.patients} patients, the newest that this home "
        "knows of."
    )
    say(
        f"{home.decided.name} and {home.disclosures.name}: nothing that was decided or has left is "
        "missing, as far as this home knows."
    )
    say("What the coordinator knows is compared with each of its requests.")


def note_change(home: Home, what: str) -> None:
    """Note what was decided where an old copy of this home would be held against it."""
    for one in home.federations():
        try:
            SiteRecords(one).note_change()
        except WardroundError as error:
            say(f"{what} is in force. Beside it: {error}")


def declare(home: Home, epsilon: float | None, *, yes: bool) -> None:
    """Charge back what was lost and go on with that."""
    delta = load_site_config(home.site_yaml).policy.cohort_delta
    for one in home.federations():
        if len(home.federations()) > 1:
            say(f"Federation {one.federation}:")
        _declare_in(one, epsilon, delta, yes=yes)


def _declare_in(home: Home, epsilon: float | None, delta: float, *, yes: bool) -> None:
    records = SiteRecords(home)
    try:
        records.check()
        fault = None
    except RecordsLost as error:
        fault = str(error)
    if fault is None and not records.is_asked():
        say("Nothing is lost: the records are the newest that this home knows of.")
        return
    say(fault or "The coordinator keeps a statement that this home did not write.")
    say("Only where no newer copy is left anywhere: what it had spent is charged again, for good.")
    if not yes and not ask("Declare it lost?"):
        say("Nothing was changed.")
        return
    declared = declare_lost(records, epsilon, delta)
    for cohort, spent in declared.charged.items():
        say(f"Charged back to {as_text(cohort)}: {sum(m.steps for m in spent)} steps.")
    if declared.withdrawals:
        say("The lost withdrawals are accounted for: as many patients are withdrawn here as were.")
    if declared.decisions:
        say("What was decided last is lost: no run is approved any more, and the site is paused.")
        say(f"Look at policy in {home.site_yaml}; then: wardround-site runs, wardround-site resume")
    if declared.epsilon is not None:
        say(f"All that was spent on the patients now: epsilon {declared.epsilon:.4g}.")
    if not declared.decisions:
        say("Requests are answered again.")
