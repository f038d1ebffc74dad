"""What a site's people decided, a durable line a change: policy, pause, approvals and refusals.

Guarantee: where any witness of the site's records (client/governance/records_check.py) knows of a
decision that this home does not, nothing is released until somebody here has said what holds.

    a refused run, in a home from before the refusal   an old log: RecordsLost, nothing is released
    paused, then put back from before the pause        likewise; `declare_lost` leaves it paused
    approvals.db alone from before a decision          it lacks what the log's last line counts
    `paused` removed by hand                           RecordsLost until `wardround-site resume`
    killed between a decision and its line             the next message that leaves has the line
    a log cut or changed                               StateDamaged

Not noticed: a site.yaml put back alone, which is what an admin's change of it is, too; a decision
that no message followed, in a home that is old as a whole: nobody was told of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from client.governance.approvals import Approvals, ApprovalsHead
from client.site.home import Home
from client.site.site_config import load_site_config
from common.platform.errors import ConfigurationError, StateDamaged
from common.platform.file_lock import FileLock
from common.platform.hash_chain import GENESIS, ChainedLog, Fact, hashes, newest_first


@dataclass(frozen=True, kw_only=True)
class DecisionsHead:
    """Where the log stands."""

    lines: int
    hash: str  # of the last line


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What held when a line was written."""

    policy: str = ""  # SHA-256 of site.yaml's rules; empty: there was none that could be read
    paused: bool = False
    approvals: Mapping[str, ApprovalsHead] = field(default_factory=dict)  # by file


def head_of(path: Path) -> DecisionsHead:
    """Return where a log stands; StateDamaged when it cannot be trusted."""
    found = list(hashes(path))
    return DecisionsHead(lines=len(found), hash=found[-1] if found else GENESIS)


def stood_at(path: Path, told: DecisionsHead) -> bool:
    """Return whether a log once stood there."""
    known = [GENESIS, *hashes(path)]
    return told.lines < len(known) and known[told.lines] == told.hash


def fault_of(home: Home) -> str | None:
    """Return what the home lacks of the decisions that its own log names, or None."""
    last = _last(home.decided)
    if last is None:
        return None
    for name, told in last.approvals.items():
        path = home.own / name
        if not _knows(path, told):
            found = _approvals_head(path)
            return (
                f"{path} has {found.decisions} decisions, and {home.decided.name} knows of "
                f"{told.decisions}, with another hash"
            )
    if last.paused and not home.paused.exists():
        return (
            f"{home.paused} is gone, and the site was paused. If it is to go on: "
            "wardround-site resume"
        )
    return None


def note(home: Home, *, resumed: bool = False) -> None:
    """Write a line where something was decided since the last; what the home lacks stays noted.

    A pause ends by `resumed` alone, never by its file's absence.
    """
    with _writing(home.decided) as log:
        last = _last(home.decided) or Decided()
        paused = home.paused.exists() or (last.paused and not resumed)
        now = Decided(
            policy=_policy(home) or last.policy,
            paused=paused and not resumed,
            approvals={**last.approvals, **_grown(home, last)},
        )
        if now != last:
            log.append(_facts(now))


def declare_lost(home: Home) -> None:
    """Begin anew where the newest decisions are lost: paused, and with nothing approved.

    Refusals that are known stay.
    """
    make_paused(home)
    for path in _approval_files(home):
        Approvals(path).void()
    heads = {_name(home, path): _approvals_head(path) for path in _approval_files(home)}
    with _writing(home.decided) as log:
        log.append(_facts(Decided(policy=_policy(home), paused=True, approvals=heads)))


def make_paused(home: Home) -> None:
    """Pause the site, over a power failure too."""
    home.paused.touch(mode=0o600)
    make_folder_durable(home)


def make_folder_durable(home: Home) -> None:
    """Keep what came into the home, or left it, over a power failure."""
    folder = os.open(home.folder, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _grown(home: Home, last: Decided) -> dict[str, ApprovalsHead]:
    """Return where approvals stand now, of files that lack nothing."""
    return {
        _name(home, path): _approvals_head(path)
        for path in _approval_files(home)
        if _knows(path, last.approvals.get(_name(home, path)))
    }


def _approval_files(home: Home) -> tuple[Path, ...]:
    return (home.approvals,) if home.approvals.exists() else ()


def _name(home: Home, path: Path) -> str:
    return path.relative_to(home.own).as_posix()


def _approvals_head(path: Path) -> ApprovalsHead:
    return Approvals(path).head() if path.exists() else ApprovalsHead()


def _knows(path: Path, told: ApprovalsHead | None) -> bool:
    return told is None or (Approvals(path).knows(told) if path.exists() else not told.decisions)


def _policy(home: Home) -> str:
    """Return the hash of what the admin allows, empty where site.yaml cannot be read."""
    try:
        config = load_site_config(home.site_yaml)
    except ConfigurationError:
        return ""
    rules = config.model_dump(mode="json", include={"policy", "hours", "extensions"})
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def _facts(decided: Decided) -> dict[str, Fact]:
    return {
        "policy": decided.policy,
        "paused": decided.paused,
        "approvals": {name: vars(head) for name, head in sorted(decided.approvals.items())},
    }


def _last(path: Path) -> Decided | None:
    line = next(newest_first(path), None)
    if line is None:
        return None
    try:
        approvals = line["approvals"]
        assert isinstance(approvals, dict)  # noqa: S101 - caught below
        return Decided(
            policy=str(line["policy"]),
            paused=bool(line["paused"]),
            approvals={str(name): ApprovalsHead(**head) for name, head in approvals.items()},
        )
    except (KeyError, TypeError, AssertionError) as error:
        message = f"{path} ends with a line that is no decision. Restore the file from a copy."
        raise StateDamaged(message) from error


@contextmanager
def _writing(path: Path) -> Iterator[ChainedLog]:
    """Open the log to write, alone; a second command waits here."""
    with FileLock(path, waits=True) as lock:
        os.fchmod(lock.fd, 0o600)
        yield ChainedLog(path)
