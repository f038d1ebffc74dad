"""`records`: whether the records are the newest there were, and what to do if not."""

from __future__ import annotations

from client.governance.records_check import SiteRecords
from client.governance.records_loss import declare_lost
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import as_text, ask, say
from common.platform.errors import RecordsLost


def check(home: Home) -> None:
    """Say that the records are the newest, as far as this home knows; RecordsLost where not."""
    load_site_config(home.site_yaml)  # else there is no home, and none is made
    records = SiteRecords(home)
    records.check()
    stands = records.statement()
    say(f"{home.ledger}: {stands.ledger.charges} charges, the newest that this home knows of.")
    say(
        f"{home.withdrawals}: {stands.withdrawals.patients} patients, the newest that this home "
        "knows of."
    )
    say("What the coordinator knows is compared with each of its requests.")


def declare(home: Home, epsilon: float | None, *, yes: bool) -> None:
    """Charge back what was lost and go on with that."""
    delta = load_site_config(home.site_yaml).policy.cohort_delta
    records = SiteRecords(home)
    try:
        records.check()
        fault = None
    except RecordsLost as error:
        fault = str(error)
    if fault is None and not records.is_asked():
        say("Nothing is lost: ledger and withdrawals are the newest that this home knows of.")
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
    if declared.epsilon is not None:
        say(f"All that was spent on the patients now: epsilon {declared.epsilon:.4g}.")
    say("Requests are answered again.")
