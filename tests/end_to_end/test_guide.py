"""The README's guide for three machines, command by command as it is written there.

Each machine is a folder with homes of its own and real processes on loopback; only names of
machines, folders and fingerprints are replaced.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from client.governance.disclosures import verify
from client.privacy.ledger import Ledger
from client.site.home import Home
from tests.server.coordinator import free_ports

ROOT = Path(__file__).parents[2]
SITES = ("north", "south")
CONFIGURATION = """
name: breast-us-diagnosis
task: {kind: diagnosis, target: malignant}
cohort: {table: {numbers: [{column: age, center: 60.0, scale: 20.0}, {column: crp}]}}
model: {network: table}
training: {rounds: 3, batch_patients: all, optimizer: sgd, learning_rate: 0.5}
selection: {rule: last}
privacy: {unit: patient, epsilon: 3.0, default_patients: 20}
"""

pytestmark = pytest.mark.slow


def blocks() -> Iterator[tuple[str, list[str]]]:
    """Yield each block of commands of the guide, and whose machine it is for."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    guide = text.partition("## Between hospitals")[2].partition("\n## ")[0]
    block = r"\*\*(Coordinator|Each hospital)\*\*.*?```sh\n(.*?)```"
    for who, body in re.findall(block, guide, re.DOTALL):
        yield who, body.strip().splitlines()


@dataclass
class Machine:
    """One of the three: a folder, and what runs in the background."""

    folder: Path
    replaced: dict[str, str]
    background: list[subprocess.Popen[bytes]] = field(default_factory=list)
    said: str = ""

    def type(self, line: str) -> None:
        """Give a command as the guide has it."""
        for old, new in self.replaced.items():
            line = line.replace(old, new)
        words = shlex.split(line)
        environment = os.environ | {
            "HOME": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        if words[1] == "start":
            with (self.folder / "start.log").open("wb") as log:
                self.background.append(
                    subprocess.Popen(
                        words, cwd=self.folder, env=environment, stdout=log, stderr=log
                    )
                )
            self._wait()
            return
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        self.said += done.stdout + done.stderr

    def _wait(self) -> None:
        """Wait until what was started says that it is there."""
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            text = (self.folder / "start.log").read_text(encoding="utf-8")
            if "listens" in text or "started" in text:
                return
            time.sleep(0.1)
        pytest.fail(f"it did not start: {(self.folder / 'start.log').read_text()}")


def write_cohort(folder: Path, seed: int) -> None:
    """Write a hospital's table: patients whose outcome follows from their age."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["PatientID", "age", "crp", "malignant"])
        for number in range(60):
            age = draw.uniform(30, 90)
            rows.writerow(
                [
                    f"P{seed}{number:03}",
                    f"{age:.1f}",
                    f"{draw.expovariate(1):.2f}",
                    int(age + draw.gauss(0, 10) > 60),
                ]
            )


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[dict[str, Machine]]:
    site, operator = free_ports(2)
    del operator  # the next port, by default
    found = {}
    for name in ("coordinator", *SITES):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "breast-us.yaml").write_text(CONFIGURATION, encoding="utf-8")
        found[name] = Machine(folder, {"coordinator.example.org:8443": f"127.0.0.1:{site}"})
    for seed, name in enumerate(SITES):
        write_cohort(found[name].folder / "data", seed)
        found[name].replaced |= {"north": name, "/data/breast-us": str(found[name].folder / "data")}
    yield found
    for machine in found.values():
        for process in machine.background:
            process.send_signal(signal.SIGTERM)
    for machine in found.values():
        for process in machine.background:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_the_guide_is_followed_to_a_model(machines: dict[str, Machine]) -> None:
    coordinator = machines["coordinator"]
    commands = 0
    for who, lines in blocks():
        for line in lines:
            if who == "Coordinator":
                coordinator.type(line)
                commands += "export" not in line
        if who == "Each hospital":
            for name in SITES:
                invitation = coordinator.folder / "invites" / f"{name}.invite"
                (machines[name].folder / invitation.name).write_bytes(invitation.read_bytes())
                for line in lines:
                    machines[name].type(line)
                    commands += 1
                read = re.findall(r"SHA256:[A-Za-z0-9+/]{43}", machines[name].said)
                coordinator.replaced[f"{name}=SHA256:..."] = f"{name}={read[-1]}"
    assert commands <= 10  # from nothing to a run's end, all three people together
    run = coordinator.folder / ".wardround" / "coordinator" / "runs" / "breast-us-diagnosis"
    journal = [json.loads(x) for x in (run / "journal.jsonl").read_text().splitlines()]
    rounds = [x for x in journal if x["event"] == "round"]
    assert [sorted(x["updates"]) for x in rounds] == [["north", "south"]] * 3
    assert list(run.glob("bundle/card.json")) or list(coordinator.folder.rglob("card.json"))
    for name in SITES:
        home = Home(machines[name].folder / ".wardround" / "site")
        assert Ledger(home.ledger).head().charges == 3
        assert verify(home.disclosures).messages >= 4
