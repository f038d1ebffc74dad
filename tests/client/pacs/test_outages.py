"""A PACS that dies, and a site that dies: the pull ends complete, and nothing comes twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from client.pacs import cget, cmove, dicomweb
from client.pacs.pull import Pulled
from client.pacs.received_file import Expected, Landed, place
from client.site.home import Home
from client.site.site_config import SiteConfig, write_site_config
from tests.client.dicom_files import write_labels
from tests.client.pacs.cohorts import Site, Stored, fill
from tests.client.pacs.orthanc import Pacs, free_port, orthanc
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes

PATIENTS = tuple(f"P{number}" for number in range(6))
INSTANCES = 600
COMMAND = Path(sys.executable).with_name("wardround-site")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[tuple[Pacs, Stored]]:
    folder = tmp_path_factory.mktemp("pacs")
    with orthanc(folder, peers={"WARDROUND": ("127.0.0.1", port)}) as pacs:
        yield (
            pacs,
            fill(pacs, folder / "made", PATIENTS, slices=100, size=384, syntaxes=["explicit"]),
        )


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what arrives whole, by SOP Instance UID."""
    counted: Counter[str] = Counter()

    def counting(
        data: Path, content: Iterable[bytes | memoryview], expected: Expected | None = None
    ) -> Landed:
        landed = place(data, content, expected)
        counted[landed.instance] += 1
        return landed

    for module in (dicomweb, cget, cmove):
        monkeypatch.setattr(module, "place", counting)
    return counted


def when(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def killed_at(pacs: Pacs, reached: Callable[[], bool], away_seconds: float = 0.4) -> None:
    when(reached)
    pacs.kill()
    time.sleep(away_seconds)
    pacs.start_again()


@pytest.mark.slow
@pytest.mark.parametrize("route", ["dicomweb", "c-get", "c-move"])
def test_six_hundred_instances_with_the_pacs_killed_twice_come_once_each(
    stored: tuple[Pacs, Stored], port: int, arrivals: Counter[str], tmp_path: Path, route: str
) -> None:
    pacs, given = stored
    assert len(given.files) == INSTANCES
    site = Site(tmp_path, PATIENTS)
    config = reaching(pacs, route, own_port=port, images_per_second=250.0)
    done: list[Pulled] = []
    log_before = pacs.log.stat().st_size
    pulling = threading.Thread(target=lambda: done.append(site.pull(config)))
    pulling.start()
    killed_at(pacs, lambda: arrivals.total() >= 60)
    at_first = arrivals.total()
    killed_at(pacs, lambda: arrivals.total() >= at_first + 200)
    assert arrivals.total() < INSTANCES, "the second kill came too late to be one"
    pulling.join(120)
    (ended,) = done
    counted = ended.counted
    assert (counted.complete, counted.instances, counted.stated) == (6, INSTANCES, INSTANCES)
    assert counted.incomplete == ()
    assert set(site.files()) == set(given.files)
    assert set(arrivals.values()) == {1}  # nothing twice
    assert sum("Going on in" in line for line in site.said) >= 2
    if route == "dicomweb":
        # Orthanc's own log: single instances were asked for only after a cut, and again only
        # those whose answer was on its way when Orthanc died.
        log = pacs.log.read_bytes()[log_before:].decode(errors="replace")
        asked = Counter(re.findall(r"GET /dicom-web/studies/\S+/instances/([\d.]+)", log))
        assert 0 < len(asked) < INSTANCES
        assert asked.total() <= len(asked) + 2 * config.associations


@pytest.mark.slow
def test_a_site_that_is_killed_goes_on_where_it_was(
    stored: tuple[Pacs, Stored], tmp_path: Path
) -> None:
    pacs, given = stored
    home, data = Home(tmp_path / "home"), tmp_path / "data"
    config = reaching(pacs, images_per_second=200.0)
    write_site_config(home.site_yaml, SiteConfig(name="north", data=data, pacs=config))
    write_labels(data, [{"PatientID": patient, "ill": 1} for patient in PATIENTS])

    def files() -> dict[str, int]:
        return {path.stem: path.stat().st_ino for path in data.rglob("*.dcm")}

    command = [COMMAND, "pull", "--home", home.folder, "--json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        when(lambda: len(files()) > 150)
        first.kill()
    before = files()
    assert len(before) < INSTANCES
    (data / f".{first.pid}-1-1.part").write_bytes(b"half an image")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as second:
        when(lambda: len(files()) > len(before) + 100)
        second.send_signal(signal.SIGINT)
        assert second.wait(20) == 130
    between = files()
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["images"], told["images_stated_by_pacs"]) == (INSTANCES, INSTANCES)
    assert (told["complete"], told["waiting"], told["incomplete"]) == (6, 0, [])
    after = files()
    assert set(after) == set(given.files)
    # A file that had come was neither fetched nor written again.
    assert {uid: after[uid] for uid in before} == before
    assert {uid: after[uid] for uid in between} == between
    assert list(data.glob(".*.part")) == []
