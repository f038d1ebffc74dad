"""Quarantine of requests that ended the worker twice.

    HOME/quarantine/NAME.json       tries of a request so far, or why it is set aside
    HOME/quarantine/NAME.request    the request, once it is set aside; the newest few are kept

NAME is the SHA-256 of the request, so that the same request asked anew is not tried again either.

    the worker died, or stood still       counted; set aside the second time
    the whole daemon was killed in a try  the try stays begun; set aside after five such
    the daemon was told to stop           the try is not counted
    the request was answered              forgotten
    somebody removes NAME.json            it is tried again when it is asked again
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from common.platform.durable_files import replace_durably
from common.platform.hash_chain import now

#: Once a request has ended the worker so often, it is set aside.
MOST_DEATHS = 2
#: A machine may be switched off in a try; it is hardly so in five of them.
MOST_INTERRUPTIONS = 5
#: Requests that are kept to be looked at.
_MOST_KEPT = 5
#: Requests that are counted, the last; an older one is tried again when it is asked again.
_MOST_COUNTED = 500


@dataclass(frozen=True, kw_only=True)
class Tries:
    """What became of one request so far."""

    begun: int = 0  # without an end that anybody saw
    died: int = 0
    why: str = ""  # of the last death
    at: str = ""  # UTC, ISO 8601
    what: str = ""  # kind, run and round

    @property
    def is_over(self) -> bool:
        """Return whether it is set aside."""
        return self.died >= MOST_DEATHS or self.begun >= MOST_INTERRUPTIONS

    @property
    def sentence(self) -> str:
        """Return what is wrong with it."""
        ended = f"ended the worker {self.died} times ({self.why})"
        stopped = f"was at work each time when the daemon was killed, {self.begun} times"
        return f"{self.what}: {ended if self.died >= MOST_DEATHS else stopped}"


class Quarantine:
    """The folder; each change is durable before what it is about."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, name: str, what: str) -> None:
        """Count a try, before it is made."""
        tries = self.tries(name)
        self._write(name, tries, begun=tries.begun + 1, what=what)

    def undo(self, name: str) -> None:
        """Take back a try that was not made, or that a stopping daemon ended."""
        tries = self.tries(name)
        if (tries.begun, tries.died) == (1, 0):
            self.end(name)
        elif tries.begun:
            self._write(name, tries, begun=tries.begun - 1)

    def died(self, name: str, why: str) -> int:
        """Count that the worker died in the try that was begun; return how often it has."""
        tries = self.tries(name)
        self._write(name, tries, begun=max(tries.begun - 1, 0), died=tries.died + 1, why=why)
        return tries.died + 1

    def end(self, name: str) -> None:
        """Forget a request that was answered."""
        self._path(name).unlink(missing_ok=True)

    def keep(self, name: str, request: Path) -> None:
        """Keep a request that is set aside, for whoever looks into it."""
        kept = sorted(self._folder.glob("*.request"), key=lambda path: path.stat().st_mtime)
        for path in kept[: max(len(kept) - _MOST_KEPT + 1, 0)]:
            path.unlink(missing_ok=True)
        counts = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in counts[:-_MOST_COUNTED]:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # on a full disk, or when it is gone
            shutil.copyfile(request, self._folder / f"{name}.request")

    def tries(self, name: str) -> Tries:
        """Return what is known of a request."""
        try:
            return Tries(**json.loads(self._path(name).read_bytes()))
        except FileNotFoundError:
            return Tries()
        except (OSError, ValueError, TypeError):
            return Tries(died=1, why="its count could not be read")

    def set_aside(self) -> dict[Path, Tries]:
        """Return what is set aside, by its file."""
        found = {path: self.tries(path.stem) for path in sorted(self._folder.glob("*.json"))}
        return {path: tries for path, tries in found.items() if tries.is_over}

    def _write(self, name: str, tries: Tries, **changed: int | str) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        content = {**asdict(tries), "at": now(), **changed}
        replace_durably(self._path(name), json.dumps(content).encode(), mode=0o600)

    def _path(self, name: str) -> Path:
        return self._folder / f"{os.path.basename(name)}.json"  # noqa: PTH119 - a plain name
