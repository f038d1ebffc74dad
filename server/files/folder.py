"""The coordinator's folder: every path by its name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from common.platform.errors import ConfigurationError


def default_folder() -> Path:
    """Return $WARDROUND_COORDINATOR, or the place it has when nobody says otherwise."""
    given = os.environ.get("WARDROUND_COORDINATOR")
    return Path(given) if given else Path.home() / ".wardround" / "coordinator"


@dataclass(frozen=True)
class RunFolder:
    """One run's files."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration as it runs."""
        return self.path / "config.yaml"

    @property
    def state(self) -> Path:
        """Weights and numbers after each round."""
        return self.path / "state"

    @property
    def journal(self) -> Path:
        """What happened, as a chain of hashes."""
        return self.path / "journal.jsonl"

    @property
    def status(self) -> Path:
        """What is happening now; the run's own process writes it."""
        return self.path / "status.json"

    @property
    def run(self) -> Path:
        """Whether the run waits, runs or ended; the service writes it."""
        return self.path / "run.json"

    @property
    def results(self) -> Path:
        """What the run found."""
        return self.path / "results.json"

    @property
    def cohort(self) -> Path:
        """What sites said of their cohorts before the first round, and its sum."""
        return self.path / "cohort.json"

    @property
    def report(self) -> Path:
        """The same on a page."""
        return self.path / "report.html"

    @property
    def bundle(self) -> Path:
        """The exported model."""
        return self.path / "bundle"

    @property
    def lock(self) -> Path:
        """Held by the process that works in the folder."""
        return self.path / "lock"

    def last_round(self) -> int:
        """Return the last round that is saved, 0 before the first."""
        return max(saved_rounds(self.state), default=0)


def saved_rounds(state: Path) -> list[int]:
    """Return the rounds that are saved in a run's folder state/, in their order."""
    return sorted(number_of(path) for path in state.glob("round-*.json"))


def number_of(saved: Path) -> int:
    """Return the round that a file of it is named after."""
    return int(saved.stem.removeprefix("round-"))


@dataclass(frozen=True)
class Folder:
    """The coordinator's files."""

    path: Path

    @property
    def weights(self) -> Path:
        """Files of public weights that runs begin from, named by their SHA-256."""
        return self.path / "weights"

    @property
    def settings(self) -> Path:
        """Name, addresses and ports."""
        return self.path / "coordinator.yaml"

    @property
    def ca(self) -> Path:
        """The certificate that sites trust."""
        return self.path / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """The key that signs server certificates."""
        return self.path / "ca.key"

    @property
    def notice(self) -> Path:
        """What sites are told of a move or a renewed authority, and the addresses of before."""
        return self.path / "notice.json"

    @property
    def server(self) -> Path:
        """The certificate that the listeners show."""
        return self.path / "server.pem"

    @property
    def server_key(self) -> Path:
        """The listeners' key."""
        return self.path / "server.key"

    @property
    def token(self) -> Path:
        """What the operator's commands show to the service."""
        return self.path / "operator.token"

    @property
    def enrolment(self) -> Path:
        """Invitations and sites."""
        return self.path / "enrolment.db"

    @property
    def receipts(self) -> Path:
        """Where sites' records stood, kept for them over runs."""
        return self.path / "receipts.db"

    @property
    def database(self) -> Path:
        """Flower's state."""
        return self.path / "superlink.db"

    @property
    def lock(self) -> Path:
        """Held by the service while it runs."""
        return self.path / "lock"

    @property
    def log(self) -> Path:
        """The folder of logs."""
        return self.path / "log"

    @property
    def runs(self) -> Path:
        """The folder of runs."""
        return self.path / "runs"

    def run(self, name: str) -> RunFolder:
        """Return the folder of one run, which need not be there."""
        if Path(name).name != name or name in {"", ".", ".."}:
            message = f"{name!r} is no name of a run. `wardround-coordinator status` lists them."
            raise ConfigurationError(message)
        return RunFolder(self.runs / name)

    def run_names(self) -> tuple[str, ...]:
        """Return the runs there are, oldest name first."""
        if not self.runs.is_dir():
            return ()
        return tuple(sorted(p.name for p in self.runs.iterdir() if RunFolder(p).run.is_file()))

    def require(self) -> None:
        """Raise ConfigurationError unless `init` has been here."""
        if not self.settings.is_file():
            message = (
                f"There is no coordinator in {self.path}. Make one with: "
                "wardround-coordinator init --address HOST:PORT"
            )
            raise ConfigurationError(message)
