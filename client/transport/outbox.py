"""Outbox: answers that were given, kept so that the same request gets the same bytes again.

Guarantee: an update that was charged and kept here is sent again bit for bit, signature and all,
when the coordinator asks the same question anew, after whatever crash; nothing more is charged
for it. Questions are the same when all their bytes are: run, round, configuration, weights. So a
coordinator that was put back from a backup asks again what it has forgotten, and hears the same.
Of runs that were answered longest ago nothing is kept, and of rounds as many as `_MOST_BYTES`
hold, the last two always: what is asked again of others is charged again.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from common.messages.signed_envelope import Envelope, facts_of, read_envelope, write_envelope
from common.platform.errors import StateDamaged

#: Rounds of a run whose answers are always kept: the last, and the one before, which a coordinator
#: that lost its last saved round asks for again.
_KEPT = 2
#: Answers of earlier rounds, of all runs together, in bytes.
_MOST_BYTES = 2 << 30
#: Runs that are kept, the last that were answered: an update may be as large as the network.
_MOST_RUNS = 50
_SUFFIX = ".answer"


class Outbox:
    """A folder of answers, named by the SHA-256 of the questions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, question: str, answer: Envelope) -> None:
        """Keep an answer durably, and forget the oldest of earlier rounds where they are many."""
        run, number = _place(answer)
        folder = self._folder / hashlib.sha256(run.encode()).hexdigest()[:16]
        write_envelope(folder / f"{number:05d}-{question}{_SUFFIX}", answer)
        self._forget_runs()
        self._forget_rounds()

    def _forget_rounds(self) -> None:
        """Remove the oldest answers that no last round needs, until the others fit."""
        earlier = []
        for run in self._folder.iterdir():
            answers = {path: _round_of(path) for path in run.glob(f"*{_SUFFIX}")}
            last = max(answers.values(), default=0)
            earlier += [path for path, number in answers.items() if number <= last - _KEPT]
        sizes = {path: path.stat() for path in earlier}
        held = sum(found.st_size for found in sizes.values())
        for path, found in sorted(sizes.items(), key=lambda item: item[1].st_mtime):
            if held <= _MOST_BYTES:
                return
            path.unlink(missing_ok=True)
            held -= found.st_size

    def _forget_runs(self) -> None:
        runs = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for gone in runs[_MOST_RUNS:]:
            shutil.rmtree(gone, ignore_errors=True)

    def find(self, question: str) -> Envelope | None:
        """Return the answer to a question, or None; a damaged one counts as none."""
        for path in self._paths(question):
            try:
                return read_envelope(path)
            except StateDamaged:
                path.unlink(missing_ok=True)
        return None

    def has(self, question: str) -> bool:
        """Return whether an answer lies here; only `find` reads whether it is whole."""
        return bool(self._paths(question))

    def forget(self, question: str) -> None:
        """Forget an answer that may be another one the next time."""
        for path in self._paths(question):
            path.unlink(missing_ok=True)

    def _paths(self, question: str) -> list[Path]:
        return list(self._folder.glob(f"*/*-{question}{_SUFFIX}"))


def _round_of(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _place(answer: Envelope) -> tuple[str, int]:
    facts = facts_of(answer.header)
    number = facts["round"]
    return str(facts["run"]), number if isinstance(number, int) else 0
