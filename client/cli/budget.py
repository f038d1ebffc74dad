"""`budget`: what was spent on the patients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import as_text, say, table
from common.config.privacy import COMMON_DELTA

if TYPE_CHECKING:
    from client.privacy.charge_text import Charge


def show_budget(home: Home, *, as_json: bool) -> None:
    """Say what each cohort's patients have spent, by run, and what is left."""
    rules = load_site_config(home.site_yaml).policy
    limit, delta = rules.largest_epsilon_per_cohort, rules.cohort_delta
    spent, common = _spent(home.ledger, delta), _spent(home.ledger, COMMON_DELTA)
    if as_json:
        say(
            json.dumps(
                {
                    "limit": limit,
                    "delta": delta,
                    "cohorts": {
                        cohort: {
                            "spent": whole,
                            "left": max(limit - whole, 0),
                            "runs": runs,
                            "spent_at_delta_1e-5": common[cohort][0],
                        }
                        for cohort, (whole, runs) in spent.items()
                    },
                },
                indent=2,
            )
        )
        return
    if not spent:
        say(f"Nothing was spent yet; the limit is epsilon {limit:g} at delta {delta:g}.")
        return
    rows = [("COHORT", "SPENT", "LIMIT", "LEFT")]
    rows += [
        (as_text(cohort), f"{whole:.3g}", f"{limit:g}", f"{max(limit - whole, 0):.3g}")
        for cohort, (whole, _) in spent.items()
    ]
    table(rows)
    say(f"Epsilon at delta {delta:g}; limits are in {home.site_yaml}.")
    if delta != COMMON_DELTA:
        told = (f"{as_text(name)} {whole:.3g}" for name, (whole, _) in common.items())
        say(f"Spent at delta {COMMON_DELTA:.0e}: {', '.join(told)}.")
    for cohort, (_, runs) in spent.items():
        say(f"Spent on {as_text(cohort)}, each part of each run by itself:")
        table(_parts(runs))
        say("Nobody is in two parts of one run (one name, configuration and seed), so it counts by")
        say("its largest part, with what described the cohort. Runs together come to less than")
        say("their sum.")


#: Parts of a run, for whoever reads what was spent.
_PARTS = {
    "train": "training patients",
    "validation": "validation patients: measuring the model",
    "test": "test patients: measuring the model",
    "statistics": "all: describing the cohort",
}


def _parts(runs: Mapping[str, float]) -> list[tuple[str, ...]]:
    from client.privacy.composition import part_of

    rows: list[tuple[str, ...]] = [("  RUN", "EPSILON", "OF")]
    for name, epsilon in runs.items():
        run, part = part_of(name)
        rows.append((f"  {as_text(run)}", f"{epsilon:.3g}", _PARTS[part]))
    return rows


def charged(path: Path, run: str, configuration: str) -> list[Charge]:
    """Return all that was charged but for this run; makes no ledger where there is none."""
    if not path.exists():
        return []
    from client.privacy.composition import part_of
    from client.privacy.ledger import COHORT, Ledger

    def is_other(charge: Charge) -> bool:
        bound = charge.bound
        own = bound is not None and bound.configuration == configuration
        return not (own and part_of(charge.run)[0] == run)

    return [charge for charge in Ledger(path).charges(COHORT) if is_other(charge)]


def _spent(path: Path, delta: float) -> dict[str, tuple[float, dict[str, float]]]:
    """Return each cohort's epsilon, and that of each run alone."""
    if not path.exists():
        return {}
    from client.privacy.composition import binding
    from client.privacy.ledger import Ledger
    from common.privacy.accounting import epsilon_of

    ledger = Ledger(path)
    found: dict[str, tuple[float, dict[str, float]]] = {}
    for cohort, runs in ledger.accounts().items():
        # Nobody trains and is tested in one run, so the whole may be less than all its parts.
        whole = epsilon_of(binding(ledger.charges(cohort)), delta)
        found[cohort] = whole, {name: epsilon_of(run, delta) for name, run in runs.items()}
    return found
