"""A federation on this machine: the coordinator's and the sites' commands, as processes.

Everything lies below one folder and listens on 127.0.0.1 alone; processes end with `close`.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from client.site.home import Home
from client.transport.joining import join
from common.messages.signing_key import fingerprint, load_private, public_text

BIN = Path(sys.executable).parent
#: One thread each, and Flower reports to nobody.
ENVIRONMENT: Mapping[str, str] = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",  # Flower starts its own programs
}
_PATIENTS = 40
_POLL_SECONDS = 0.002
T = TypeVar("T")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


def waited(what: str, look: Callable[[], T | None], seconds: float = 60.0) -> T:
    """Return what `look` returns once it is not None."""
    ends = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > ends:
            sys.exit(f"{what} did not come about in {seconds:.0f} s.")
        time.sleep(_POLL_SECONDS)
    return found


@dataclass
class Processes:
    """Child processes whose output goes to a file each; all end with `close`, last one first."""

    folder: Path
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def start(
        self, name: str, command: Sequence[object], more: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program of ours for as long as the block."""
        output = self._stack.enter_context((self.folder / f"{name}.out").open("wb"))
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**ENVIRONMENT, **(more or {})},
            cwd=self.folder,
        )
        self._stack.callback(_end, process)
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Federation:
    """A coordinator that answers, and sites that were accepted."""

    def __init__(self, processes: Processes, sites: Sequence[str], columns: int) -> None:
        self._processes = processes
        self.sites = tuple(sites)
        self.folder = processes.folder / "coordinator"
        self._columns = columns
        self._coordinator("init", "--address", f"127.0.0.1:{free_port()}", "--name", "bench")
        _move_operator(self.folder / "coordinator.yaml")
        self.service = processes.start(
            "service", [BIN / "wardround-coordinator", "start", "--folder", self.folder]
        )
        self._wait_for_service()
        invites = processes.folder / "invites"
        self._coordinator("invite", *sites, "--out", str(invites))
        for site in sites:
            self._join(site, next(path for path in invites.iterdir() if site in path.name))

    def home(self, site: str) -> Path:
        """Return a site's own folder."""
        return self._processes.folder / site

    def start_site(self, site: str) -> subprocess.Popen[bytes]:
        """Start a site's daemon."""
        command = [BIN / "wardround-site", "start", "--home", self.home(site)]
        return self._processes.start(site, command)

    def join_light(self, names: Sequence[str]) -> None:
        """Let many more sites join at once, with the first one's site.yaml and no data."""
        invites = self._processes.folder / "light"
        self._coordinator("invite", *names, "--out", str(invites))
        settings = (self.home(self.sites[0]) / "site.yaml").read_text()
        accepted = []
        for name in names:
            home = Home(self.home(name))
            home.folder.mkdir()
            home.site_yaml.write_text(settings.replace(self.sites[0], name))
            invite = next(path for path in invites.iterdir() if name in path.name)
            join(home, invite.read_text())
            accepted.append(f"{name}={fingerprint(public_text(load_private(home.key)))}")
        self._coordinator("sites", "accept", *accepted)
        self.sites += tuple(names)

    def online(self) -> int:
        """Return how many sites the coordinator sees."""
        said = self._run("wardround-coordinator", "sites", "--json", "--folder", str(self.folder))
        return said.stdout.count('"online": true')

    def start_run(self, config: str) -> Path:
        """Start a run and return its folder."""
        path = self._processes.folder / f"{time.time_ns()}.yaml"
        path.write_text(config)
        before = set(self._runs())
        self._coordinator("run", str(path), "--detach")
        (new,) = set(self._runs()) - before
        return new

    def _runs(self) -> list[Path]:
        folder = self.folder / "runs"
        return list(folder.iterdir()) if folder.is_dir() else []

    def _wait_for_service(self) -> None:
        def answers() -> bool | None:
            ended = self._run("wardround-coordinator", "status", "--folder", str(self.folder))
            return True if ended.returncode == 0 else None

        waited("The coordinator's service", answers)

    def _join(self, site: str, invite: Path) -> None:
        data, home = self._processes.folder / "data" / site, self.home(site)
        _write_patients(data, self._columns, seed=self.sites.index(site))
        command = ("join", str(invite), "--data", str(data), "--home", str(home))
        said = _checked(self._run("wardround-site", *command))
        found = re.search(rf" accept ({site}=\S+)", said)
        if found is None:
            sys.exit(f"No fingerprint: {said}")
        self._coordinator("sites", "accept", found[1])
        settings = home / "site.yaml"
        text = settings.read_text().replace("approval: manual", "approval: automatic")
        text = text.replace("private_only: true", "private_only: false")
        settings.write_text(text.replace("metrics: noised", "metrics: any"))

    def _coordinator(self, *arguments: str) -> str:
        command = (*arguments, "--folder", str(self.folder))
        return _checked(self._run("wardround-coordinator", *command))

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / program, *arguments],
            env={**ENVIRONMENT, "COLUMNS": "400"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )


def round_times(run: Path, rounds: int, seconds: float = 300.0) -> list[float]:
    """Return when each round was written to the journal, watching it as it grows."""
    times: list[float] = []

    def look() -> bool | None:
        journal = run / "journal.jsonl"
        if journal.exists():
            events = [json.loads(line)["event"] for line in whole_lines(journal)]
            times.extend([time.perf_counter()] * (events.count("round") - len(times)))
        state = str(json.loads((run / "run.json").read_bytes())["state"])
        if state == "failed":
            sys.exit(f"The run failed: {(run / 'run.json').read_text()}")
        return True if len(times) >= rounds else None

    waited("The rounds", look, seconds)
    return times


def whole_lines(path: Path) -> list[bytes]:
    """Return a file's lines but the last one that is still being written."""
    return path.read_bytes().split(b"\n")[:-1]


def _checked(ended: subprocess.CompletedProcess[str]) -> str:
    if ended.returncode != 0:
        sys.exit(f"{ended.args} ended with {ended.returncode}: {ended.stdout}")
    return ended.stdout


def _move_operator(settings: Path) -> None:
    """Let the operator's listener have a port that is free, not the one beside the sites'."""
    text = settings.read_text()
    own = f'operator: "127.0.0.1:{free_port()}"'
    settings.write_text(re.sub(r'^operator: ".*"$', own, text, flags=re.MULTILINE))


def _write_patients(folder: Path, columns: int, seed: int) -> None:
    """Write a site without images: random numbers, and an outcome at random."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    lines = [",".join(["PatientID", *(f"c{n}" for n in range(columns)), "ill"])]
    for number in range(_PATIENTS):
        values = [f"{draw.gauss(0, 1):.3f}" for _ in range(columns)]
        lines.append(",".join([f"p{number}", *values, str(number % 2)]))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
