"""Withdrawn patients: one durable line each.

Guarantee: once a withdrawal's line is durable, no cohort is loaded with the patient and no answer
that was computed with them is put into the outbox (client/node/request_handler.py). Index and pixel
store of a home look here by themselves, so that no caller can forget to.

    killed after the line, before everything is forgotten   withdrawing again finishes it
    a line changed or cut out          StateDamaged; nothing is trained until it is mended
    two commands at once               one after the other
    the same patient twice             one line; what is still there is forgotten again
    an old copy put back               it never stood where it was told to have: `stood_at`, which
                                       each request goes through
                                       (client/governance/records_check.py)

Not undone, because it cannot be: models that were trained before keep what they learnt, the
ledger keeps what was spent, and what has left has left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.site.home import Home
from common.platform.errors import StateDamaged
from common.platform.file_lock import FileLock
from common.platform.hash_chain import GENESIS, ChainedLog, hashes, lines, verify

_WITHDRAWN = "withdrawn"
_FORGOTTEN = "forgotten"
#: The newest copy was lost, and the patients were withdrawn again.
_LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """One patient who was withdrawn."""

    patient: str  # PatientID, as it stands in the images
    at: str  # UTC, ISO 8601
    forgotten_at: str | None  # when nothing was left; None: withdraw them once more


@dataclass(frozen=True, kw_only=True)
class WithdrawalsHead:
    """Where the log stands; it never leaves but sealed (client/governance/records_statement.py)."""

    lines: int
    hash: str  # of the last line
    patients: int  # who were withdrawn


def withdrawn(home: Home) -> frozenset[str]:
    """Return the PatientIDs that must not be used; StateDamaged when the log cannot be trusted."""
    return withdrawn_in(home.withdrawals)


def withdrawn_near(path: Path) -> frozenset[str]:
    """Return the PatientIDs of the home that a file or folder lies in, or in the cache of."""
    return frozenset[str]().union(*(withdrawn(Home(home)) for home in path.parents[:2]))


def withdrawn_in(path: Path) -> frozenset[str]:
    """Return the PatientIDs of a log of withdrawals; none where there is no such file."""
    return frozenset(found.patient for found in listed(path))


def listed(path: Path) -> tuple[Withdrawal, ...]:
    """Return every withdrawal, oldest first; StateDamaged when the log cannot be trusted."""
    verify(path)
    found: dict[str, Withdrawal] = {}
    for number, line in enumerate(lines(path), 1):
        patient, event, at = line.get("patient"), line.get("event"), line.get("at")
        if event == _LOST:
            continue
        if not (isinstance(patient, str) and isinstance(at, str)) or (
            event != _WITHDRAWN and not (event == _FORGOTTEN and patient in found)
        ):
            message = f"{path}, line {number} is no withdrawal. Restore the file from a copy."
            raise StateDamaged(message)
        first = at if event == _WITHDRAWN else found[patient].at
        found[patient] = Withdrawal(
            patient=patient, at=first, forgotten_at=at if event == _FORGOTTEN else None
        )
    return tuple(found.values())


def head_of(path: Path) -> WithdrawalsHead:
    """Return where a log stands; StateDamaged when it cannot be trusted."""
    found = list(hashes(path))
    return WithdrawalsHead(
        lines=len(found), hash=found[-1] if found else GENESIS, patients=len(listed(path))
    )


def stood_at(path: Path, told: WithdrawalsHead) -> bool:
    """Return whether a log once stood there, or a loss of that many lines was declared since."""
    known = [GENESIS, *hashes(path)]
    if told.lines < len(known) and known[told.lines] == told.hash:
        return True
    lost = [line.get("lines") for line in lines(path) if line.get("event") == _LOST]
    return any(isinstance(number, int) and number >= told.lines for number in lost)


class Withdrawals:
    """The log, for the one command that writes it; its file is for its user alone."""

    def __init__(self, path: Path) -> None:
        self._log = ChainedLog(path)
        self._known = withdrawn_in(path)

    def withdraw(self, patient: str) -> bool:
        """Write the patient's line durably; False when it was there already."""
        if patient in self._known:
            return False
        self._log.append({"event": _WITHDRAWN, "patient": patient})
        self._known |= {patient}
        return True

    def forgotten(self, patient: str) -> None:
        """Note that nothing of the patient is left."""
        self._log.append({"event": _FORGOTTEN, "patient": patient})

    def declare_lost(self, told: WithdrawalsHead) -> None:
        """Note that the newest copy was lost; StateDamaged where patients of it are missing."""
        if len(self._known) < told.patients:
            message = (
                f"{self._log.path} names {len(self._known)} patients, and {told.patients} had "
                "been withdrawn. Withdraw the others again first, as the hospital's records of "
                "consent name them: wardround-site withdraw PATIENT"
            )
            raise StateDamaged(message)
        self._log.append({"event": _LOST, "lines": told.lines, "lost": told.hash})


@contextmanager
def writing(path: Path) -> Iterator[Withdrawals]:
    """Open the log to write, alone; a second command waits here."""
    with FileLock(path, waits=True) as lock:
        os.fchmod(lock.fd, 0o600)
        yield Withdrawals(path)
