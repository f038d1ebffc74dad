"""`disclosures`: what has left the site."""

from __future__ import annotations

import json
from pathlib import Path

from client.governance.disclosures import listed, verify
from client.site.home import Home
from client.site.plain_text import counted, size
from client.site.site_config import load_site_config
from client.site.terminal import as_text, say, table

_LAST = 20


#: Kinds of messages, in words for who answers for data protection.
_HOLDS = {
    "standing": "what a run would cost here: number of patients, epsilon, seconds",
    "cohort": "the cohort in counts, none of fewer patients than policy.smallest_cell",
    "update": "what training changed in the network, of all patients together; noised with EPSILON",
    "report": "how the model did on test patients, in counts",
    "refusal": "that this site takes no part, and by which of its rules",
}


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
