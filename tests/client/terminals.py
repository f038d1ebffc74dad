"""A site's admin at a terminal: commands typed in this process, or as processes of their own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from client.cli.app import app
from client.governance.approvals import Approvals
from client.site.home import Home
from client.site.site_config import SiteConfig, write_site_config
from common.config.run_config import RunConfig

ROOT = Path(__file__).parents[2]
COMMAND = "import sys; from client.cli.app import main; main()"
RUNNER = CliRunner()


@dataclass(frozen=True)
class Ended:
    """What a person sees of one command."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def same_split(home: Home) -> None:
    """Put a key in a home, so that the same patients train, validate and test in each run of it."""
    home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.identity_key.write_bytes(hashlib.sha256(b"a home of the tests").digest())
    home.identity_key.chmod(0o600)


class Site:
    """A site's folders, and what its admin types there."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "site")
        self.data = folder / "images"
        self.data.mkdir()

    def types(self, *words: object, answer: str | None = None) -> Ended:
        """Run a command in this process."""
        result = RUNNER.invoke(
            app, [*map(str, words), "--home", str(self.home.folder)], input=answer
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        return Ended(result.exit_code, result.stdout, result.stderr)

    def set_up(self, **changed: object) -> SiteConfig:
        """Write site.yaml."""
        content: dict[str, object] = {"name": "north", "data": self.data, **changed}
        config = SiteConfig.model_validate(content)
        write_site_config(self.home.site_yaml, config)
        same_split(self.home)
        return config

    def asked(self, run: str, config: RunConfig) -> None:
        """Let a run propose a configuration, as the daemon notes it."""
        Approvals(self.home.approvals).note(run, config)

    def decision(self, config: RunConfig) -> str:
        """Return what was said of a configuration."""
        return Approvals(self.home.approvals).decision(config.in_force().fingerprint())


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def started(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        env=environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
