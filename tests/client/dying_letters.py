"""A site's daemon killed with SIGKILL at every touch of its disk and every call, then started anew.

    python tests/client/dying_letters.py FOLDER STRIDE

Each life is a process of its own, forked so that libraries load once. An audit hook counts what
the interpreter reports (open, rename, remove in the site's home, SQLite, calls of the
coordinator) and kills the process before the n-th. Prints one JSON line.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from client.governance.disclosures import listed, verify
from client.privacy.ledger import Ledger
from common.messages.signed_envelope import unseal
from common.messages.wire import SiteUpdate
from tests.client.answering import Letters, question
from tests.client.letters import FolderFleet

EVENTS = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "sqlite3.connect",
    "sqlite3.connect/handle",
    "wardround.call",
}
TURNS = 8


class AuditedFleet(FolderFleet):
    """Tells of its calls, so that a process can be killed at them."""

    def _may_fail(self, call: str) -> None:
        sys.audit("wardround.call", call)
        super()._may_fail(call)


def main(folder: Path, stride: int) -> None:
    """Kill a life before each event (or each `stride`-th), let another follow, look what left."""
    torch.set_num_threads(1)
    _live(folder / "warm")  # loads what is needed, once for all children
    killed, wrong = 0, []
    for event in itertools.count(0, stride):
        place = folder / f"killed-{event}"
        AuditedFleet(place / "fleet").ask(question())
        if _in_child(place, event):
            break  # it has fewer events than that: it ended
        killed += 1
        _in_child(place, None)
        fault = _fault(place)
        if fault:
            wrong.append(f"event {event}: {fault}")
        shutil.rmtree(place)
    print(json.dumps({"killed": killed, "wrong": wrong[:5]}))  # noqa: T201


def _live(place: Path) -> None:
    fleet = AuditedFleet(place / "fleet")
    if not list((place / "fleet" / "questions").iterdir()):
        fleet.ask(question())
    letters = Letters(place / "home").open()
    for _ in range(TURNS):
        letters.turn(fleet, 0.1)


def _in_child(place: Path, die_at: int | None) -> bool:
    """Live once in a process of its own; returns whether it ended by itself."""
    child = os.fork()
    if child == 0:
        try:
            if die_at is not None:
                _die_before(place / "home", die_at)
            _live(place)
        except BaseException as error:  # noqa: BLE001 - a child must never return into the parent
            (place / "error").write_text(repr(error))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return not os.WIFSIGNALED(status)


def _die_before(home: Path, number: int) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in EVENTS:
            return
        ours = str(arguments[0]).startswith(f"{home}/") if arguments else False
        if ours or event.startswith(("wardround.", "sqlite3.connect/")):
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(hook)


def _fault(place: Path) -> str:
    """Return what a data-protection officer would object to, or nothing."""
    if (place / "error").exists():
        return (place / "error").read_text()
    answers = AuditedFleet(place / "fleet").answers()
    updates = [u for a in answers if isinstance(u := unseal(a.header, a.frames), SiteUpdate)]
    charged = Ledger(place / "home" / "ledger.db").head().charges
    log = place / "home" / "disclosures.jsonl"
    verify(log)
    told = {line.disclosure.sha256 for line in listed(log)}
    faults = {
        "it did not answer with an update": not updates or len(updates) < len(answers),
        "two different answers to one question": len(set(answers)) > 1,
        "released what was not charged": any(
            u.spend is None or u.spend.ledger.charges > charged for u in updates
        ),
        "released without a line": any(a.digest.hex() not in told for a in answers),
        "the question is still there": any((place / "home" / "inbox").iterdir()),
    }
    return "; ".join(name for name, true in faults.items() if true)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
