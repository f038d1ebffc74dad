"""A coordinator and hospitals on this machine, by the commands that people type."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.governance.disclosures import Disclosed, listed
from client.privacy.ledger import Ledger
from client.site.home import Home
from client.site.site_config import load_site_config, write_site_config
from server.files.coordinator_yaml import load_settings, write_settings
from server.files.folder import Folder, RunFolder
from server.rounds.run_state import RunState, RunStore
from tests.client.terminals import same_split
from tests.end_to_end.processes import (
    BIN,
    PATIENCE_SECONDS,
    Program,
    child_of,
    free_port,
    typed,
    until,
)

#: What most tests' sites allow; everything else is as `join` writes it.
OPEN: Mapping[str, object] = {
    "private_only": False,
    "approval": "automatic",
    "largest_epsilon_per_cohort": 1000.0,
    "metrics": "any",
    "smallest_cell": 1,
}


@dataclass
class RunAt:
    """One run, as its files tell."""

    place: RunFolder
    service: Callable[[], int]  # number of the service's process

    @property
    def state(self) -> str:
        """What run.json says."""
        return str(read_json(self.place.run).get("state", ""))

    @property
    def board(self) -> dict[str, Any]:
        """What status.json says; empty before it is there."""
        return read_json(self.place.status)

    @property
    def message(self) -> str:
        """How it ended."""
        return str(read_json(self.place.run).get("message", ""))

    @property
    def pid(self) -> int | None:
        """The run's own process."""
        return child_of(self.service(), self.place.path.name)

    def reach(self, phase: str, number: int = 0, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a phase of a round, or of a later one."""

        def there() -> bool:
            board = self.board
            assert self.state not in {"done", "failed"}, f"over before {phase}: {self.message}"
            return board.get("phase") == phase and int(board["round"]) >= number

        until(there, f"{phase} of round {number}", seconds, pause=0.002)

    def saved(self, number: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until a round is saved."""
        until(lambda: self.rounds() >= number, f"round {number} saved", seconds, pause=0.005)

    def rounds(self) -> int:
        """Return the last round that is saved."""
        names = [p.stem for p in self.place.state.glob("round-*.json")]
        return max((int(name.removeprefix("round-")) for name in names), default=0)

    def end(self, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait for its end and return how it ended."""
        until(lambda: self.state not in {"", "waiting", "running"}, "the run's end", seconds)
        return self.state

    def result(self) -> RunState:
        """Return what it saved last."""
        found = RunStore(self.place.state).load()
        assert found is not None
        return found


@dataclass
class Coordinator:
    """wardround-coordinator: its folder and its service."""

    folder: Folder
    program: Program
    before: Sequence[str] = ()  # a command that its programs run under

    @classmethod
    def made(cls, path: Path, host: str = "127.0.0.1", before: Sequence[str] = ()) -> Coordinator:
        """Make keys and settings."""
        folder = Folder(path)
        command = [*before, str(BIN / "wardround-coordinator"), "start", "--folder", str(path)]
        made = cls(folder, Program(command, path / "start.log"), before)
        made.type("init", "--address", f"{host}:{free_port()}", "--name", "study")
        settings = load_settings(folder.settings)
        operator = f"127.0.0.1:{free_port()}"
        write_settings(folder.settings, settings.model_copy(update={"operator": operator}))
        return made

    @property
    def address(self) -> str:
        """Where sites find it."""
        return load_settings(self.folder.settings).address

    def type(self, *words: str, status: int = 0, seconds: float = PATIENCE_SECONDS) -> str:
        """Type a command; returns what it printed."""
        command = (*self.before, str(BIN / "wardround-coordinator"))
        done = typed(*command, *words, "--folder", str(self.folder.path), seconds=seconds)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def start(self) -> None:
        """Start the service and wait until it listens."""
        before = self.program.text().count("listens for sites")
        self.program.start()

        def listens() -> bool:
            assert self.program.runs, self.program.text()[-2000:]
            return self.program.text().count("listens for sites") > before

        until(listens, "the coordinator listens")

    def invite(self, names: Sequence[str]) -> dict[str, str]:
        """Return an invitation for each site."""
        lines = self.type("invite", *names).splitlines()
        words = [line.split() for line in lines if "wardround-invite-" in line]
        found = [(w[-2] if len(w) > 1 else names[0], w[-1]) for w in words]
        return {name.rstrip(":"): line for name, line in found if name in names}

    def run(self, config: Path, *options: str) -> RunAt:
        """Start a run and leave it to itself."""
        said = self.type("run", str(config), "--detach", *options)
        name = said.partition("Run ")[2].partition(" ")[0]
        return self.at(name)

    def resume(self, run: RunAt) -> None:
        """Let a run go on."""
        self.type("resume", run.place.path.name, "--detach")

    def at(self, name: str) -> RunAt:
        """Return a run by its name."""
        return RunAt(self.folder.run(name), lambda: self.program.pid)


@dataclass
class SiteAt:
    """wardround-site: a hospital's home, data and daemon."""

    name: str
    home: Home
    data: Path
    before: Sequence[str] = ()  # a command that its programs run under
    more: dict[str, str] = field(default_factory=dict)  # environment of the daemon

    def __post_init__(self) -> None:
        command = [*self.before, str(BIN / "wardround-site"), "start"]
        argv = [*command, "--home", str(self.home.folder)]
        self.program = Program(argv, self.home.folder.with_suffix(".log"), self.more)

    def type(self, *words: str, status: int = 0) -> str:
        """Type a command; returns what it printed."""
        command = [*self.before, str(BIN / "wardround-site"), *words]
        done = typed(*command, "--home", str(self.home.folder))
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def join(self, invite: str) -> str:
        """Join and return the fingerprint that is read to the coordinator."""
        said = self.type("join", invite, "--data", str(self.data))
        return said.partition(" sites accept ")[2].split()[0].partition("=")[2]

    def allow(self, **rules: object) -> None:
        """Change the policy in site.yaml."""
        config = load_site_config(self.home.site_yaml)
        policy = config.policy.model_copy(update=rules)
        write_site_config(self.home.site_yaml, config.model_copy(update={"policy": policy}))

    def call_at(self, address: str) -> None:
        """Let the daemon call the coordinator at another address, from its next start on."""
        path = self.home.coordinator_json
        facts = json.loads(path.read_text())
        path.write_text(json.dumps({**facts, "address": address}))

    def start(self) -> None:
        """Start the daemon."""
        self.program.start()

    @property
    def status(self) -> dict[str, Any]:
        """What status.json says."""
        return read_json(self.home.status)

    @property
    def worker(self) -> int | None:
        """The number of its worker process."""
        return child_of(self.program.pid, "client.node.worker") if self.program.runs else None

    @property
    def charges(self) -> int:
        """How often its ledger was charged."""
        return Ledger(self.home.ledger).head().charges if self.home.ledger.exists() else 0

    def sent(self, kind: str = "update") -> list[Disclosed]:
        """Return the lines of what has left."""
        lines = listed(self.home.disclosures) if self.home.disclosures.exists() else ()
        return [line for line in lines if line.disclosure.kind == kind]

    def daemon_log(self) -> str:
        """Return what the daemon told."""
        return "".join(p.read_text() for p in sorted(self.home.log.glob("site*")))


@dataclass
class Federation:
    """A coordinator and its sites, accepted; nothing runs yet."""

    coordinator: Coordinator
    sites: dict[str, SiteAt]

    def enrol(
        self,
        path: Path,
        data: Mapping[str, Path],
        *,
        before: Mapping[str, Sequence[str]] | None = None,
        rules: Mapping[str, object] = OPEN,
    ) -> None:
        """Let sites join the coordinator, which runs; each below a folder of its name."""
        runs_under = before or {}
        homes = {n: Home(path / n / "home") for n in data}
        sites = {n: SiteAt(n, homes[n], d, runs_under.get(n, ())) for n, d in data.items()}
        invites = self.coordinator.invite(list(data))
        for home in homes.values():
            same_split(home)
        with ThreadPoolExecutor() as pool:
            shown = list(pool.map(lambda n: f"{n}={sites[n].join(invites[n])}", data))
        self.coordinator.type("sites", "accept", *shown)
        for site in sites.values():
            site.allow(**rules)
        self.sites.update(sites)

    def start(self) -> None:
        """Start every daemon that does not run and wait until all are connected."""
        for site in self.sites.values():
            if not site.program.runs:
                site.start()
        for site in self.sites.values():
            until(lambda s=site: s.status.get("state") in {"waiting", "working"}, site.name)  # type: ignore[misc]

    def stop(self) -> None:
        """End everything."""
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda s: s.program.stop(), self.sites.values()))
        finally:
            self.coordinator.program.stop()


@contextmanager
def federation(path: Path, data: Mapping[str, Path], **options: Any) -> Iterator[Federation]:
    """Yield a federation that runs."""
    made = Federation(Coordinator.made(path / "coordinator"), {})
    try:
        made.coordinator.start()
        made.enrol(path, data, **options)
        made.start()
        yield made
    finally:
        made.stop()


def read_json(path: Path) -> dict[str, Any]:
    """Return a file that may be missing."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found
