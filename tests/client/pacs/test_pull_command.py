"""`wardround-site pull` as its admin types it."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from client.cli.app import app
from client.pacs.image_source import Halt
from client.pacs.rate_limit import Pace, pause_seconds
from client.site.home import Home
from client.site.pacs_section import PacsConfig, PullSelection
from client.site.site_config import SiteConfig, load_site_config, write_site_config
from tests.client.dicom_files import write_labels
from tests.client.pacs.cohorts import fill
from tests.client.pacs.orthanc import Pacs, free_port
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes


def pull(home: Home, *options: str) -> Result:
    return CliRunner().invoke(app, ["pull", "--home", str(home.folder), *options])


def reaching_nobody() -> PacsConfig:
    return PacsConfig(route="dicomweb", url=f"http://127.0.0.1:{free_port()}/dicom-web")


def site(folder: Path, pacs: PacsConfig | None, *patients: str) -> Home:
    home = Home(folder / "home")
    config = SiteConfig(name="north", data=folder / "data", pacs=pacs)
    write_site_config(home.site_yaml, config)
    assert load_site_config(home.site_yaml) == config  # what it writes, it reads
    write_labels(folder / "data", [{"PatientID": p, "ill": 1} for p in patients or ("C0",)])
    return home


def test_a_pull_says_what_came_and_what_the_pacs_has_not(pacs: Pacs, tmp_path: Path) -> None:
    fill(pacs, tmp_path / "made", ["C0", "C1"])
    home = site(tmp_path, reaching(pacs), "C0", "C1", "C2")
    ended = pull(home)
    assert ended.exit_code == 0
    assert "Here: 2 of 2 series, 16 of 16 images" in ended.output
    assert "nothing that fits 1 entries of the selection:\n  PatientID C2" in ended.output
    assert "Complete. Next: wardround-site index" in ended.output
    told = json.loads(pull(home, "--json").stdout.splitlines()[-1])
    assert told["nothing_found"] == [{"key": "PatientID", "value": "C2", "not_asked": None}]
    assert (told["images"], told["images_stated_by_pacs"], told["waiting"]) == (16, 16, 0)


def test_a_site_without_a_pacs_is_told_what_to_do(tmp_path: Path) -> None:
    ended = pull(site(tmp_path, None))
    assert ended.exit_code == 2
    assert "has no pacs, so there is nothing to pull from" in ended.output


def test_a_data_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    home = site(tmp_path, reaching_nobody())
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    ended = pull(home)
    assert ended.exit_code == 3
    assert f"There is no folder {tmp_path / 'data'}. Mount it" in ended.output
    assert not (tmp_path / "data").exists()


def test_a_second_pull_says_that_another_is_at_work_and_no_more(pacs: Pacs, tmp_path: Path) -> None:
    home = site(tmp_path, reaching(pacs))
    with (tmp_path / "data" / ".pull.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = pull(home)
    assert ended.exit_code == 1
    assert "Another pull into" in ended.output
    assert "goes on from here" not in ended.output


def test_a_pacs_that_is_not_there_ends_the_pull_with_its_own_status(
    pacs: Pacs, tmp_path: Path
) -> None:
    config = reaching(pacs, "c-get", port=free_port())
    ended = pull(site(tmp_path, config))
    assert ended.exit_code == 7
    assert "Asking again in 2 s" in ended.output


def test_the_rate_is_kept_by_all_threads_together(pacs: Pacs) -> None:
    pace = Pace(reaching(pacs, images_per_second=100.0))
    begin = time.monotonic()

    def take() -> None:
        for _ in range(20):
            pace.wait()

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begin >= 59 / 100


def test_outside_its_hours_the_pacs_is_left_alone(pacs: Pacs) -> None:
    now = datetime.now(UTC).astimezone()
    closed = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    pace = Pace(reaching(pacs, hours=closed))
    assert not pace.open
    with pytest.raises(Halt):
        pace.wait()
    opened = f"{now - timedelta(hours=2):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    assert Pace(reaching(pacs, hours=opened)).open


def test_nothing_is_taken_once_it_is_to_end(pacs: Pacs) -> None:
    pace = Pace(reaching(pacs))
    pace.wait()
    pace.stop()
    with pytest.raises(Halt):
        pace.wait()


def test_pauses_grow_up_to_a_minute() -> None:
    assert [pause_seconds(n) for n in (1, 2, 3, 6, 7, 50)] == [1, 2, 4, 32, 60, 60]


def test_the_whole_archive_is_never_asked_for() -> None:
    with pytest.raises(ValueError, match="the whole archive is not fetched"):
        PullSelection(named_by_labels=False)
    with pytest.raises(ValueError, match=r"first_day .* is after last_day"):
        PullSelection(first_day=date(2024, 2, 1), last_day=date(2024, 1, 1))


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"route": "dicomweb", "url": None}, "route dicomweb needs url"),
        ({"route": "c-get", "host": None}, "route c-get needs host"),
        ({"route": "c-move"}, "route c-move needs own_port"),
        ({"route": "folder"}, "route folder needs folder"),
        ({"hours": "25:00-26:00"}, "expected two times of day"),
        ({"called_title": "A TITLE THAT IS TOO LONG"}, "at most 16 characters"),
    ],
)
def test_what_a_route_lacks_is_named(pacs: Pacs, changes: dict[str, object], missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        reaching(pacs, **changes)  # type: ignore[arg-type]
