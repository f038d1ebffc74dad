"""`approve`: what a run does here is shown, and allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from client.cli.budget import charged
from client.cli.records import note_change
from client.cli.status import is_running
from client.governance.approvals import Approvals
from client.governance.extensions import judge_extensions
from client.governance.first_weights import judge_first_weights
from client.governance.plain_words import described
from client.governance.policy import Denied, judge, judge_metrics
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import as_text, ask, say
from client.transport.coordinator import load_coordinator
from common.config.privacy import COMMON_DELTA
from common.config.run_config import RunConfig, load_config
from common.extensions.pinning import pinned
from common.platform.errors import ConfigurationError

ANSWERS = {"approved": "approved", "declined": "refused", "waiting": "waits for you"}


def decide(home: Home, which: str, decision: Literal["approved", "declined"], *, yes: bool) -> None:
    """Show a configuration and what changed in it, and record the answer."""
    approvals = Approvals(home.approvals)
    config, seed = found_configuration(approvals, which)
    show_configuration(home, approvals, config, seed, which)
    word = "Approve" if decision == "approved" else "Refuse"
    if approvals.decision(config.in_force().fingerprint(), seed) == decision:
        say(f"It is {ANSWERS[decision]} already; nothing was changed.")
        return
    if not yes and not ask(f"{word} this configuration?"):
        say("Nothing was changed.")
        return
    fingerprint = approvals.decide_ahead(config, decision, seed)
    note_change(home, "The answer")
    if decision == "approved":
        which_seed = "the first seed that is used" if seed is None else f"seed {seed}"
        say(
            f"Approved {fingerprint[:16]} with {which_seed}. "
            "A change of any value in it will be asked for again."
        )
        if not is_running(home):
            say("Next: wardround-site start")
    else:
        say(f"Refused {fingerprint[:16]}: from now on nothing of it is answered.")


def found_configuration(approvals: Approvals, which: str) -> tuple[RunConfig, int | None]:
    """Return the configuration of a run, a file, or a hash's beginning, and the seed asked with."""
    seen = approvals.listed()
    # A run that changed its configuration asks again: the last one is meant.
    matching = [s for s in seen if s.run == which] or [
        s for s in seen if len(which) >= 8 and s.fingerprint.startswith(which.lower())
    ]
    if matching:
        found = matching[-1].config
        if found is None:
            message = (
                f"The configuration of {which} cannot be read: another release wrote it, or "
                f"approvals.db was changed. Ask the coordinator for its file, and give that."
            )
            raise ConfigurationError(message)
        return found, matching[-1].seed
    if which.endswith((".yaml", ".yml", ".json")) or Path(which).is_file():
        return pinned(load_config(Path(which)), at_site=True), None
    known = ", ".join(dict.fromkeys(as_text(s.run) for s in seen if s.run)) or "none yet"
    message = (
        f"No run {as_text(which)} was proposed here (known: {known}). Give a run that "
        "`wardround-site runs` lists, or a configuration's file."
    )
    raise ConfigurationError(message)


def show_configuration(
    home: Home, approvals: Approvals, config: RunConfig, seed: int | None, run: str = ""
) -> None:
    """Show what a configuration does and costs here; `run` is the one that is asked about."""
    lines = described(config)
    if seed is not None:
        lines.append(("seed", str(seed)))
    width = max(len(heading) for heading, _ in lines)
    for heading, text in lines:
        say(f"  {heading.ljust(width)}  {text}")
    for heading, text in _costs(home, config, run):
        say(f"  {heading.ljust(width)}  {text}")
    changes = approvals.difference(config)
    if changes:
        say("Changed since it was approved last:")
        for line in changes:
            say(f"  {as_text(line)}")
    for denied in _against_policy(home, config):
        say(f"Against this site's policy, whatever is answered here: {as_text(denied.detail)}")
        say(f"  The coordinator would be told: {denied.reason.value}.")


def _costs(home: Home, config: RunConfig, run: str) -> list[tuple[str, str]]:
    """Return what a private run costs each patient here, and what is left of the limit."""
    if config.privacy == "none":
        return []
    from client.cohort_statistics.description import Telling
    from client.cohort_statistics.run_costs import cost_of

    try:
        site = load_site_config(home.site_yaml)
        rules = site.policy
        noise = rules.statistics_noise if rules.statistics else 0.0
        telling = Telling(smallest_cell=rules.smallest_cell, noise=noise)
        force = config.in_force()
        before = charged(home.ledger, run, force.fingerprint())
        cost = cost_of(force, site.name, telling, before, rules.cohort_delta)
    except ConfigurationError:
        return []  # what does not fit is said beside the policy
    if cost is None:
        return []
    common = f", which is {cost.common_epsilon:.3g} at delta {COMMON_DELTA:g}"
    also = "" if cost.delta == COMMON_DELTA else common
    limit, delta = rules.largest_epsilon_per_cohort, rules.cohort_delta
    left, after = (max(limit - spent, 0.0) for spent in (cost.spent, cost.spent_after))
    end = (
        f"after this run {after:.3g}"
        if cost.spent_after <= limit
        else f"this run would bring it to {cost.spent_after:.3g}, so it is refused"
    )
    lines = [
        ("costs", f"epsilon {cost.epsilon:.3g} at delta {cost.delta:g}{also}: training patients")
    ]
    if cost.measuring is not None:
        measuring = f"epsilon {cost.measuring:.3g} at delta {COMMON_DELTA:g}"
        lines.append(("costs", f"{measuring}: test patients, none of whom trains"))
    return [
        *lines,
        (
            "budget",
            f"of epsilon {limit:g} at delta {delta:g} for all runs, {left:.3g} is left; {end}",
        ),
    ]


def _against_policy(home: Home, config: RunConfig) -> list[Denied]:
    """Return what a site would refuse of the run even if it is approved."""
    try:
        site, coordinator = load_site_config(home.site_yaml), load_coordinator(home)
    except ConfigurationError:
        return []
    rules = site.policy
    found = (
        judge(config, rules, coordinator.fingerprint, site.name),
        judge_extensions(config, site.extensions),
        judge_first_weights(config),
        judge_metrics(config, rules),
    )
    return [denied for denied in found if denied is not None]
