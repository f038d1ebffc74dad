"""Status file of the daemon, written anew at every change."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path


class Status:
    """The file status.json of a home; derived, and of no use once the daemon is gone."""

    def __init__(self, path: Path, coordinator: str) -> None:
        self._path = path
        self._facts: dict[str, object] = {"coordinator": coordinator, "state": "starting"}
        self._since = _now()
        self._written = ""
        self.state = "starting"
        self.message = ""

    def offline(self, why: str) -> None:
        """Note that the coordinator is away; the next `write` says so."""
        self.message = why
        self.write(state="offline", sentence=why)

    def write(self, **facts: object) -> None:
        """Write what changed; the time is that of the last change of what the site does."""
        before = (self._facts.get("state"), self._facts.get("sentence"))
        if "state" in facts:
            for name in ("run", "round", "phase"):
                self._facts.pop(name, None)
            self.state = str(facts["state"])
        self._facts.update(facts)
        if (self._facts.get("state"), self._facts.get("sentence")) != before:
            self._since = _now()
        text = json.dumps({**self._facts, "since": self._since})
        if text != self._written:
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._path)
            self._written = text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
