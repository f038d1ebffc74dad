"""Answers that a site gave by counts: each is given once, charged once and repeated byte for byte.

Guarantee: of a run, each split of each round is measured for one request alone, and its cohort is
described once. Whoever asks the same again gets the same answer, noise and all, and nothing more
is charged; another request for it (other weights, another seed or configuration) is refused.
A run's name stands for one configuration and one seed for ever; of what was charged the ledger
says so, too (client/privacy/ledger.py), so nothing of the guarantee of privacy rests on this file.

    killed between charge and answer   nothing left: asked again, it is charged and drawn anew
    answer kept, not sent              the same answer is sent
    a patient withdrawn since          it is answered once more without them, and charged again
    so many that it fills the disk     the oldest are forgotten (`_MOST_TOLD`), as if lost
    the file is lost, or an old copy   what is asked again is drawn anew and charged again
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from common.config.run_config import RunConfig
from common.data.weights import on_processor
from common.messages.message_header import message_of, parts_of
from common.messages.wire import EvaluationRequest, SiteReport, SiteStatistics, StatisticsRequest
from common.platform.errors import AnswerNotAdmitted, StateDamaged
from common.platform.sqlite_file import opened

Asked = EvaluationRequest | StatisticsRequest
Told = SiteReport | SiteStatistics

#: Answers and names that are kept, the last; a run has some hundred at most.
_MOST_TOLD, _MOST_RUNS = 5_000, 20_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  run TEXT PRIMARY KEY, configuration TEXT NOT NULL, seed TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS answers (
  run TEXT NOT NULL, place TEXT NOT NULL, request TEXT NOT NULL, without TEXT NOT NULL,
  answer TEXT NOT NULL, PRIMARY KEY (run, place)
) STRICT;
"""
_FORGET = "DELETE FROM {0} WHERE rowid <= (SELECT max(rowid) FROM {0}) - ?"


class AnotherRequest(AnswerNotAdmitted):
    """Something else was asked for and answered in this place."""


class Answers(Protocol):
    """Where a site keeps what it told."""

    def begin(self, run: str, config: RunConfig, seed: int) -> bool:
        """Return whether a run of this name has this configuration and seed; the first binds it.

        A name with a slash is that of a run's part in the ledger, and no run's.
        """
        ...

    def find(self, asked: Asked) -> Told | None:
        """Return what was told before; AnotherRequest where that was for something else."""
        ...

    def keep(self, asked: Asked, told: Told) -> None:
        """Keep an answer durably, before it leaves."""
        ...


class AnswersInProcess:
    """Kept while the process lives."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[str, int]] = {}
        self._told: dict[tuple[str, str], tuple[str, str]] = {}

    def begin(self, run: str, config: RunConfig, seed: int) -> bool:
        """Return whether the name stands for this."""
        key = (config.fingerprint(), seed)
        return "/" not in run and self._runs.setdefault(run, key) == key

    def find(self, asked: Asked) -> Told | None:
        """Return what was told before."""
        known = self._told.get((asked.run, place_of(asked)))
        return None if known is None else _repeated(asked, *known)

    def keep(self, asked: Asked, told: Told) -> None:
        """Keep an answer."""
        self._told[asked.run, place_of(asked)] = digest_of(asked), parts_of(told)[0]


class AnswersInFile:
    """An SQLite file of the site; every method opens and closes it."""

    def __init__(self, path: Path, withdrawn: frozenset[str] = frozenset()) -> None:
        """Answers are without those who were withdrawn; what was told with them is made anew."""
        self._path = path
        self._without = hashlib.sha256("\n".join(sorted(withdrawn)).encode()).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            connection.executescript(_SCHEMA)

    def begin(self, run: str, config: RunConfig, seed: int) -> bool:
        """Return whether the name stands for this."""
        key = (config.fingerprint(), str(seed))
        if "/" in run:
            return False
        with self._open() as connection, connection:
            bind = "INSERT OR IGNORE INTO runs (run, configuration, seed) VALUES (?, ?, ?)"
            # As text: a seed of the wire may be larger than SQLite's whole numbers.
            connection.execute(bind, (run, *key))
            _forget(connection, "runs", _MOST_RUNS)
            known = "SELECT configuration, seed FROM runs WHERE run = ?"
            return tuple(connection.execute(known, (run,)).fetchone()) == key

    def find(self, asked: Asked) -> Told | None:
        """Return what was told before, of the patients that are there now."""
        known = "SELECT request, answer, without FROM answers WHERE run = ? AND place = ?"
        with self._open() as connection:
            row = connection.execute(known, (asked.run, place_of(asked))).fetchone()
        if row is None:
            return None
        told = _repeated(asked, row[0], row[1])
        return told if row[2] == self._without else None

    def keep(self, asked: Asked, told: Told) -> None:
        """Keep an answer durably; one that a withdrawal has overtaken is replaced."""
        keep = (
            "INSERT OR REPLACE INTO answers (run, place, request, without, answer) "
            "VALUES (?, ?, ?, ?, ?)"
        )
        row = (asked.run, place_of(asked), digest_of(asked), self._without, parts_of(told)[0])
        with self._open() as connection, connection:
            connection.execute(keep, row)
            _forget(connection, "answers", _MOST_TOLD)

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return opened(self._path, self._explain)

    def _explain(self, error: sqlite3.DatabaseError) -> StateDamaged:
        return StateDamaged(
            f"The answers in {self._path} cannot be used: {error}. See that there is room on the "
            "disk, or put the newest copy back. Without it nothing of the budget is lost: what is "
            "asked again is charged again."
        )


def _forget(connection: sqlite3.Connection, table: str, most: int) -> None:
    connection.execute(_FORGET.format(table), (most,))


def place_of(asked: Asked) -> str:
    """Return what is told once of a run: a split after a round, or the cohort."""
    match asked:
        case EvaluationRequest():
            return f"{asked.round}/{asked.split}"
        case StatisticsRequest():
            return "statistics"


def digest_of(asked: Asked) -> str:
    """Return the SHA-256 of all that was asked: run, round, seed, configuration and weights."""
    header, tensors = parts_of(asked)
    digest = hashlib.sha256(header.encode())
    for part, weights in sorted(tensors.items()):
        for name, value in sorted(on_processor(weights).items()):
            digest.update(f"\n{part}/{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _repeated(asked: Asked, request: str, answer: str) -> Told:
    if digest_of(asked) != request:
        message = (
            f"Run {asked.run}, {place_of(asked)} was answered here for another request; each is "
            "answered once."
        )
        raise AnotherRequest(message)
    told = message_of(answer, {})
    if not isinstance(told, SiteReport | SiteStatistics):
        message = f"An answer of run {asked.run} is no report. Move answers.db away."
        raise StateDamaged(message)
    return told
