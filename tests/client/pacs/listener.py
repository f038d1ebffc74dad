"""`wardround-site listen` as a process of its own, and dcmtk's storescu that sends to it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread

from client.inference.arrivals.queue import ArrivalQueue, Listed
from client.site.home import Home
from client.site.site_config import SiteConfig, write_site_config
from common.config.run_config import RunConfig, parse_config
from simulations.synthetic.dicom_writer import InventedStudy, Machine, write_ct
from tests.client.pacs.orthanc import Pacs
from tests.client.pacs.reaching import reaching
from tests.peers import program

COMMAND = Path(sys.executable).with_name("wardround-site")
SECONDS = 60.0


def volumes() -> RunConfig:
    """Return the configuration of a small model of CT series."""
    return parse_config("""
name: small
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [8, 16, 16], modalities: [CT]}}
model: {network: small_cnn, width: 4}
training: {rounds: 1}
privacy: none
""")


def series(folder: Path, patient: str, *, number: int = 0, blank: bool = False) -> list[Path]:
    """Write a study of one CT series of eight slices."""
    machine = Machine(
        hospital="n",
        manufacturer="Maker",
        transfer_syntax="explicit",
        inverted=False,
        signed=False,
        slice_mm=2.0,
    )
    values = np.random.default_rng(len(patient) + number).uniform(-900, 900, (8, 32, 32))
    values = np.zeros_like(values) if blank else values
    study = InventedStudy(patient=patient, number=number, age=60, sex="f")
    write_ct(folder, values.astype(np.float32), study, machine)
    return sorted(folder.iterdir())


def study_of(files: Sequence[Path]) -> str:
    """Return the StudyInstanceUID of files."""
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def home_of(folder: Path, pacs: Pacs, port: int, **listen: object) -> Home:
    """Write a home that listens on a port, for SENDER, with half a second of settling."""
    folder.mkdir(parents=True)
    config = reaching(
        pacs, own_port=port, listen={"titles": ("SENDER",), "settle_seconds": 0.5, **listen}
    )
    write_site_config(folder / "site.yaml", SiteConfig(name="alpha", data=folder, pacs=config))
    return Home(folder)


class Listener:
    """A running `wardround-site listen`."""

    def __init__(self, home: Home, bundle: Path, *more: str) -> None:
        self.home = home
        self.port = 0
        command = [COMMAND, "listen", "--home", str(home.folder), "--bundle", str(bundle), *more]
        self._log = (home.folder / "said.txt").open("ab")
        already = self.said().count(" listening")
        self.process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL
        )
        self.until(lambda: self.said().count(" listening") > already, "it listens")

    def said(self) -> str:
        """Return all that listeners of this home wrote to their terminals."""
        return (self.home.folder / "said.txt").read_text(encoding="utf-8")

    def logged(self) -> list[dict[str, object]]:
        """Return the lines of its log."""
        text = (self.home.log / "listener.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.kill()
        self.process.wait()
        self._log.close()

    def end(self) -> int:
        """End it as Ctrl-C does, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        status = self.process.wait(timeout=30)
        self._log.close()
        return status

    def listed(self, study: str) -> Listed | None:
        """Return what the queue says of a study."""
        with ArrivalQueue(self.home.arrivals) as arrivals:
            return next((one for one in arrivals.listed() if one.study == study), None)

    def state(self, study: str) -> str:
        """Return how far a study is."""
        found = self.listed(study)
        return found.state if found is not None else "unknown"

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until it holds; the process must live."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert self.process.poll() is None, f"it ended: {self.said()[-2000:]}"
            assert time.monotonic() < deadline, f"{what}: {self.said()[-2000:]}"
            time.sleep(0.05)


def storescu(port: int, files: Sequence[Path], title: str = "SENDER") -> tuple[int, str]:
    """Send files with dcmtk; returns its exit status and what it said."""
    titles = ("-aet", title, "-aec", "WARDROUND")
    done = subprocess.run(
        [program("storescu"), "-v", *titles, "127.0.0.1", str(port), *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"TCP_NODELAY": "1"},
    )
    return done.returncode, done.stdout + done.stderr


def in_pacs(pacs: Pacs, study: str) -> list[str]:
    """Return the modality of every object that the PACS holds of a study, sorted."""
    found = pacs.rest("/dicom-web/studies/" + study + "/instances")
    assert isinstance(found, list)
    return sorted(entry["00080060"]["Value"][0] for entry in found)
