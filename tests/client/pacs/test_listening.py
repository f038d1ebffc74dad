"""Studies are sent to the listener by dcmtk, and their results come into a real PACS, once."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.site.home import Home
from client.site.pacs_section import Listening, PacsConfig
from client.site.site_config import SiteConfig, write_site_config
from client.site.withdrawals import writing
from tests.client.pacs.listener import (
    COMMAND,
    Listener,
    home_of,
    in_pacs,
    series,
    storescu,
    study_of,
    volumes,
)
from tests.client.pacs.orthanc import Pacs, free_port
from tests.client.small_models import bundled, stirred

pytestmark = pytest.mark.processes

#: What a scored study of eight slices looks like: a report and a picture came to it.
WHOLE = ["CT"] * 8 + ["OT", "SR"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = volumes()
    return bundled(tmp_path_factory.mktemp("model") / "bundle", config, stirred(config))


@pytest.fixture(scope="module")
def listener(
    tmp_path_factory: pytest.TempPathFactory, bundle: Path, pacs: Pacs
) -> Iterator[Listener]:
    port = free_port()
    home = home_of(tmp_path_factory.mktemp("site") / "home", pacs, port)
    running = Listener(home, bundle, "--send")
    running.port = port
    yield running
    assert running.end() == 0


def test_a_study_that_is_sent_has_its_results_in_the_pacs(
    tmp_path: Path, pacs: Pacs, listener: Listener
) -> None:
    files = series(tmp_path / "a", "PATIENT-A")
    study = study_of(files)
    pacs.store(files)
    status, said = storescu(listener.port, files)
    assert status == 0, said
    listener.until(lambda: listener.state(study) == "done", "scored and sent")
    assert in_pacs(pacs, study) == WHOLE
    # The same again, as some modalities do: nothing is scored or stored twice.
    assert storescu(listener.port, files)[0] == 0
    time.sleep(1.5)
    assert sum(line.get("event") == "scored" for line in listener.logged()) == 1
    assert in_pacs(pacs, study) == WHOLE


def test_a_study_waits_for_what_the_pacs_has_more_of_and_not_for_a_silence(
    tmp_path: Path, pacs: Pacs, listener: Listener
) -> None:
    files = series(tmp_path / "b", "PATIENT-BB")
    study = study_of(files)
    pacs.store(files)
    storescu(listener.port, files[:5])
    time.sleep(4)  # eight times as long as it takes to settle
    found = listener.listed(study)
    assert found is not None
    assert (found.state, found.told) == ("arriving", "5 images came, the PACS has 8, in 1 series")
    assert in_pacs(pacs, study) == ["CT"] * 8
    storescu(listener.port, files[5:])
    listener.until(lambda: listener.state(study) == "done", "scored once it was whole")
    assert in_pacs(pacs, study) == WHOLE


def test_a_study_that_the_pacs_does_not_know_yet_waits(
    tmp_path: Path, pacs: Pacs, listener: Listener
) -> None:
    files = series(tmp_path / "c", "PATIENT-CCC")
    study = study_of(files)
    storescu(listener.port, files)
    listener.until(
        lambda: "does not list the study yet" in getattr(listener.listed(study), "told", ""), "told"
    )
    assert listener.state(study) == "arriving"
    pacs.store(files)
    listener.until(lambda: listener.state(study) == "done", "scored")
    assert in_pacs(pacs, study) == WHOLE


def test_one_bad_study_is_listed_with_its_reason_and_stops_nobody(
    tmp_path: Path, pacs: Pacs, listener: Listener
) -> None:
    bad = series(tmp_path / "bad", "PATIENT-DDDD", blank=True)
    good = series(tmp_path / "good", "PATIENT-EEEEE")
    pacs.store([*bad, *good])
    storescu(listener.port, [*bad, *good])
    listener.until(lambda: listener.state(study_of(good)) == "done", "the good one is done")
    listener.until(lambda: listener.state(study_of(bad)) == "failed", "the bad one is listed")
    shown = subprocess.run(
        [COMMAND, "listen", "--list", "--home", str(listener.home.folder)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in shown.splitlines() if study_of(bad) in line]
    assert "FAILED" in line
    assert "BLANK" in line
    assert " 1 of them failed" in shown


def test_more_images_of_a_scored_study_have_it_scored_anew(
    tmp_path: Path, pacs: Pacs, listener: Listener
) -> None:
    files = series(tmp_path / "f", "PATIENT-FFFFFF")
    study = study_of(files)
    pacs.store(files[:7])
    storescu(listener.port, files[:7])
    listener.until(lambda: listener.state(study) == "done", "scored")
    pacs.store(files[7:])
    storescu(listener.port, files[7:])
    listener.until(lambda: len(in_pacs(pacs, study)) == 12, "scored anew")
    listener.until(lambda: listener.state(study) == "done", "sent")
    assert in_pacs(pacs, study) == ["CT"] * 8 + ["OT", "OT", "SR", "SR"]


def test_only_named_titles_may_store(tmp_path: Path, listener: Listener) -> None:
    files = series(tmp_path / "g", "PATIENT-GGGGGGG")
    status, said = storescu(listener.port, files[:1], title="STRANGER")
    assert status != 0
    assert "0x124" in said, said
    assert listener.state(study_of(files)) == "unknown"
    assert not (listener.home.arrived / study_of(files)).exists()


def test_no_line_of_the_log_names_a_patient_or_a_study(listener: Listener) -> None:
    text = json.dumps(listener.logged())
    assert "scored" in text
    assert "PATIENT-" not in text
    for one in listener.home.arrived.iterdir():
        assert one.name not in text


def test_what_was_received_is_scored_once_after_a_kill(
    tmp_path: Path, pacs: Pacs, bundle: Path
) -> None:
    port = free_port()
    home = home_of(tmp_path / "home", pacs, port, settle_seconds=3.0)
    files = series(tmp_path / "h", "PATIENT-HHHHHHHH")
    study = study_of(files)
    pacs.store(files)
    killed = Listener(home, bundle, "--send")
    assert storescu(port, files)[0] == 0
    killed.kill()
    assert killed.state(study) == "arriving"
    assert in_pacs(pacs, study) == ["CT"] * 8
    again = Listener(home, bundle, "--send")
    again.until(lambda: again.state(study) == "done", "scored after the kill")
    assert again.end() == 0
    assert in_pacs(pacs, study) == WHOLE
    assert sum(line.get("event") == "scored" for line in again.logged()) == 1


def test_a_withdrawn_patients_study_is_removed_unscored(
    tmp_path: Path, pacs: Pacs, listener: Listener
) -> None:
    files = series(tmp_path / "i", "PATIENT-WITHDRAWN")
    study = study_of(files)
    with writing(listener.home.withdrawals) as log:
        log.withdraw("PATIENT-WITHDRAWN")
    pacs.store(files)
    storescu(listener.port, files)
    listener.until(
        lambda: any("withdrawn" in str(line.get("event")) for line in listener.logged()), "removed"
    )
    assert listener.state(study) == "unknown"
    assert not (listener.home.arrived / study).exists()
    assert in_pacs(pacs, study) == ["CT"] * 8


def test_studies_in_a_watched_folder_are_scored_where_they_lie(
    tmp_path: Path, bundle: Path
) -> None:
    home, folder = Home(tmp_path / "home"), tmp_path / "inbox"
    folder.mkdir()
    home.folder.mkdir()
    pacs = PacsConfig(route="folder", folder=folder, listen=Listening(settle_seconds=0.5))
    write_site_config(home.site_yaml, SiteConfig(name="alpha", data=folder, pacs=pacs))
    running = Listener(home, bundle, "--folder", str(folder))
    files = series(tmp_path / "j", "PATIENT-JJJJJJJJJ")
    study = study_of(files)
    (folder / "half.dcm").write_bytes(files[0].read_bytes()[900:])
    growing = folder / files[0].name
    with growing.open("wb") as file:
        for start in range(0, files[0].stat().st_size, 512):  # slower than it takes to settle
            file.write(files[0].read_bytes()[start : start + 512])
            file.flush()
            time.sleep(0.2)
            assert running.state(study) == "unknown"
        for path in files[1:]:
            shutil.copyfile(path, folder / path.name)
    running.until(lambda: running.state(study) == "done", "scored")
    running.until(lambda: "half.dcm" in running.said(), "the broken file is told")
    assert running.end() == 0
    found = running.listed(study)
    assert found is not None
    assert (found.images, found.told) == (8, "written; nothing is sent without --send")
    (results,) = home.results.iterdir()
    assert {path.name.split("-")[0] for path in results.iterdir()} == {
        "report",
        "capture",
        "diagnostic",
    }
    assert sorted(path.name for path in folder.glob("*.dcm")) == sorted(
        ["half.dcm", *(path.name for path in files)]
    )
