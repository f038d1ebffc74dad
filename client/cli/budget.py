"""`budget` and `disclosures`: what was spent, and what has left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from client.cli.terminal import as_text, say, table
from client.governance.disclosures import listed, verify
from client.site.home import Home
from client.site.plain_text import counted, size
from client.site.site_config import load_site_config
from common.config.privacy import COMMON_DELTA

if TYPE_CHECKING:
    from client.privacy.stored_charge import Charge

_LAST = 20
#: Kinds of messages, in words for who answers for data protection.
_HOLDS = {
    "standing": "what a run would cost here: number of patients, epsilon, seconds",
    "cohort": "the cohort in counts, none of fewer patients than policy.smallest_cell",
    "update": "what training changed in the network, of all patients together; noised with EPSILON",
    "report": "how the model did on test patients, in counts",
    "refusal": "that this site takes no part, and by which of its rules",
}


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


def show_disclosures(home: Home, *, everything: bool, as_json: bool) -> None:
    """List what has left, the last of it at the end."""
    found = listed(home.disclosures)
    if as_json:
        for line in found:
            told = line.disclosure
            say(
                json.dumps(
                    {
                        "at": line.at,
                        "kind": told.kind,
                        "to": told.to,
                        "run": told.run,
                        "round": told.round,
                        "bytes": told.bytes,
                        "sha256": told.sha256,
                        "epsilon": told.epsilon,
                        "again": line.again,
                        "hash": line.hash,
                        "times": line.times,
                    }
                )
            )
        return
    if not found:
        say("Nothing has left this site yet.")
        return
    kept = found if everything else found[-_LAST:]
    if len(kept) < len(found):
        shown = f"The last {len(kept)} of {len(found)}"
        say(f"{shown}; `wardround-site disclosures list --all` shows every one.")
    rows = [("AT (UTC)", "WHAT", "TO", "RUN", "ROUND", "SIZE", "EPSILON", "")]
    rows += [
        (
            line.at[:19].replace("T", " "),
            as_text(line.disclosure.kind),
            as_text(line.disclosure.to),
            as_text(line.disclosure.run),
            str(line.disclosure.round),
            size(line.disclosure.bytes),
            "-" if line.disclosure.epsilon is None else f"{line.disclosure.epsilon:.3g}",
            " ".join((["again"] if line.again else []) + ([f"x {line.times}"] * (line.times > 1))),
        )
        for line in kept
    ]
    table(rows)
    _say_what_they_are(home, {line.disclosure.kind for line in kept})


def _say_what_they_are(home: Home, kinds: set[str]) -> None:
    """Say in words what the messages of these kinds tell of patients."""
    say("What they hold (never an image, a name, an identifier or a date of a patient):")
    table([(f"  {kind}", text) for kind, text in _HOLDS.items() if kind in kinds])
    if "update" in kinds:
        delta = load_site_config(home.site_yaml).policy.cohort_delta
        say(f"EPSILON: all that was spent on these patients by then, at delta {delta:g}.")


def verify_disclosures(home: Home, head: str, file: Path | None) -> None:
    """Check the chain of hashes; StateDamaged names the first line that does not fit."""
    path = file or home.disclosures
    listed(path)
    found = verify(path, head)
    say(f"{path}: {counted(found.messages, 'message')}, the chain holds.")
    if not head and found.head:
        say(f"Its last hash is {found.head}")
        say("Write that down elsewhere; later, `wardround-site disclosures verify HASH` also shows")
        say("whether lines are missing at the end.")


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
