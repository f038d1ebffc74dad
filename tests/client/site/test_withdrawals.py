from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from numpy.typing import NDArray

from client.cohort.decode import read_objects
from client.cohort.left_out import LeftOut
from client.cohort.loading import load_cohort
from client.cohort.scan import dicom_files
from client.cohort.select import Grouping
from client.dicom.headers.instance import Instance
from client.dicom.index.index import Index
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reasons import Reason
from client.pacs.image_source import RemoteSeries
from client.pacs.pull_queue import Queue
from client.site.cache import Cache, pixels_key
from client.site.home import Home
from client.site.site_config import SiteConfig, load_site_config, write_site_config
from client.site.withdrawals import Withdrawals, listed, withdrawn, writing
from client.withdrawal.purge import kept_of
from common.platform.errors import StateDamaged
from common.tasks import task_of
from tests.client.dicom_files import config_of, image, noise, save, write_labels
from tests.client.terminals import ROOT, Site, environment, started, wait_for

CONFIG = config_of(cohort="{images: {size: [16, 16]}, smallest_cohort: 1}")
GONE = "0021-Canary"
#: A row of pixels that stands nowhere else, as the bytes of any file that holds it.
CANARY: NDArray[np.uint16] = np.random.default_rng(7).integers(300, 4000, 24).astype("<u2")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = Site(tmp_path)
    found.set_up()
    patients = ["P1", "P2", GONE, "P4", "P5"]
    for number, patient in enumerate(patients):
        for image_number in range(2):
            values = noise(24, 24, seed=10 * number + image_number)
            if patient == GONE:
                values[5:20] = CANARY
            dataset = image(values, patient, f"S{number}", number=image_number)
            save(found.data / f"{number}-{image_number}.dcm", dataset)
    write_labels(found.data, [{"PatientID": p, "ill": n % 2} for n, p in enumerate(patients)])
    return found


def load(site: Site) -> set[str]:
    """Return whose images a run gets, after everything was prepared for it."""
    cache = Cache(site.home.cache)
    left_out = LeftOut(withdrawn=withdrawn(site.home))
    with cache.in_use():
        cohort = load_cohort(
            site.data, CONFIG, task_of(CONFIG.task), cache, site.data / "labels.csv", left_out
        )
    reasons = {p.what for p in cohort.unusable if p.reason is Reason.WITHDRAWN}
    assert reasons == {f"patient {name}" for name in withdrawn(site.home)}
    return set(cohort.items.pseudonyms)


def found_in(folder: Path, *needles: bytes) -> list[str]:
    """Return the files that hold any of these bytes."""
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]


def update(site: Site) -> None:
    with Index(site.home.index) as index:
        index.update(site.data)


def test_a_withdrawn_patient_is_gone_from_every_byte_of_cache_and_index(site: Site) -> None:
    everybody = load(site)
    update(site)
    with Queue(site.home.pulls) as queue:
        queue.offer(
            [
                RemoteSeries(
                    patient=GONE,
                    accession="A1",
                    study="1.2",
                    series="1.2.3",
                    modality="CT",
                    instances=3,
                )
            ]
        )
    (study,) = {i.study for i in indexed(site) if i.patient == GONE}
    needles = (CANARY.tobytes(), GONE.encode(), study.encode())
    assert {"index.db", "pulls.db", "cache/pixels/index.sqlite"} <= set(
        found_in(site.home.folder, *needles)
    )
    assert any(name.endswith(".shard") for name in found_in(site.home.cache, CANARY.tobytes()))
    ended = site.types("withdraw", GONE, "--yes")
    assert ended.status == 0, ended.text
    assert "2 images, 1 rows of the table" in ended.out
    assert "pixels of 2" in ended.out
    assert found_in(site.home.folder, *needles) == ["withdrawals.jsonl"]
    # What is read after it brings nothing back, and the others are as they were.
    assert load(site) == everybody - {GONE}
    site.types("index")
    update(site)
    assert {i.patient for i in indexed(site)} == everybody - {GONE}
    assert found_in(site.home.folder, *needles) == ["withdrawals.jsonl"]


def indexed(site: Site) -> list[Instance]:
    with Index(site.home.index) as index:
        return list(index.instances())


def test_the_pixels_of_others_need_not_be_decoded_again(site: Site) -> None:
    load(site)
    site.types("withdraw", GONE, "--yes")
    with PixelStore(site.home.cache / "pixels") as store:
        files = [(path, f"P{int(path.name[0]) + 1}") for path in site.data.glob("*.dcm")]
        kept = {path.name for path, patient in files if store.find(pixels_key(path, patient))}
    assert kept == {f"{number}-{n}.dcm" for number in (0, 1, 3, 4) for n in range(2)}


def test_the_prepared_images_of_others_stay_as_they_are_and_are_used_again(site: Site) -> None:
    load(site)
    before = items_of(site)
    assert len(before) == 10
    site.types("withdraw", GONE, "--yes")
    after = items_of(site)
    assert set(after.items()) < set(before.items())
    assert len(after) == 8
    load(site)
    assert items_of(site) == after


def items_of(site: Site) -> dict[str, tuple[int, int]]:
    """Return each prepared item with its place on the disk and its time."""
    found = sorted((site.home.cache / "items").rglob("*"))
    return {
        path.relative_to(site.home.cache).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in found
        if path.is_file()
    }


def test_whatever_was_computed_from_images_is_forgotten_with_them(site: Site) -> None:
    load(site)
    cache = Cache(site.home.cache)
    cache.keep_array("features", np.tile(CANARY, 3))
    (site.home.cache / "more").mkdir()
    (site.home.cache / "more" / "of it").write_bytes(CANARY.tobytes())
    (site.home.cache / ".x.tmp").write_bytes(CANARY.tobytes())
    (site.home.cache / "pixels" / "y.tmp").write_bytes(CANARY.tobytes())
    site.types("withdraw", GONE, "--yes")
    assert sorted(path.name for path in site.home.cache.iterdir()) == ["items", "lock", "pixels"]
    assert not found_in(site.home.cache, CANARY.tobytes())


@pytest.mark.processes
def test_a_withdrawal_waits_for_whoever_reads_images_and_the_line_stands_before_it(
    site: Site,
) -> None:
    load(site)
    prepared = next((site.home.cache / "items").rglob("*.npy"))
    with Cache(site.home.cache).in_use():
        command = started(["withdraw", GONE, "--yes", "--home", str(site.home.folder)])
        assert command.stderr is not None
        assert "Waiting until nobody reads images." in command.stderr.readline()
        assert GONE in withdrawn(site.home)
        time.sleep(0.5)
        assert command.poll() is None
        assert prepared.exists()
        assert found_in(site.home.cache, CANARY.tobytes())
    out, err = command.communicate(timeout=60)
    assert command.returncode == 0, err
    assert "Withdrawn" in out
    assert not found_in(site.home.cache, CANARY.tobytes())


def test_a_store_that_was_open_when_the_patient_was_withdrawn_leaves_nothing(site: Site) -> None:
    load(site)
    with PixelStore(site.home.cache / "pixels") as store:
        worker = threading.Thread(target=lambda: site.types("withdraw", GONE, "--yes"))
        worker.start()
        wait_for(lambda: GONE in withdrawn(site.home))
        time.sleep(0.5)
        facts = json.dumps({"header": {"patient": GONE}})
        store.keep("late", facts, np.tile(CANARY, (1, 24, 1)))
    worker.join(60)
    assert not found_in(site.home.cache, CANARY.tobytes())


def test_whoever_reads_files_by_themselves_keeps_nothing_of_a_withdrawn_patient(site: Site) -> None:
    site.types("withdraw", GONE, "--yes")
    with PixelStore(site.home.cache / "pixels") as store:
        files = dicom_files(site.data, frozenset())
        found = read_objects(
            site.data, files, lambda _header: None, store, Grouping(by_series=False)
        )
    assert {one.header.patient for one in found.objects} == {"P1", "P2", "P4", "P5"}
    assert not found_in(site.home.cache, CANARY.tobytes(), GONE.encode())


@pytest.mark.processes
def test_withdrawing_again_after_a_kill_at_any_moment_finishes_it(
    site: Site, tmp_path: Path
) -> None:
    """And nothing is forgotten before the withdrawal is durable."""
    load(site)
    update(site)
    shutil.copytree(site.home.folder, tmp_path / "before")
    ended = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests/client/dying_withdrawal.py"),
            str(tmp_path),
            GONE,
            CANARY.tobytes().hex(),
            "31",
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    deaths = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [death["signal"] for death in deaths[:-1]] == [signal.SIGKILL] * (len(deaths) - 1)
    assert len(deaths) > 15
    assert {(death["written"], death["pixels"]) for death in deaths} >= {
        (False, True),
        (True, True),
        (True, False),
    }
    assert all(death["written"] or death["pixels"] for death in deaths)
    assert not any(death["pixels_at_last"] for death in deaths)
    assert all(death["ended"] for death in deaths)


def test_a_withdrawal_cannot_be_taken_out_of_the_log(site: Site) -> None:
    for patient in ("P1", "P2"):
        site.types("withdraw", patient, "--yes")
    path = site.home.withdrawals
    assert withdrawn(site.home) == {"P1", "P2"}
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[2:]))
    with pytest.raises(StateDamaged, match="line 1 does not fit"):
        withdrawn(site.home)
    with pytest.raises(StateDamaged):
        load(site)
    assert site.types("withdraw", "--list").status == 5


def test_the_log_is_for_its_user_alone_and_each_patient_is_in_it_once(site: Site) -> None:
    umask = os.umask(0)
    try:
        for _ in range(2):
            site.types("withdraw", f" {GONE} ", "--yes")
    finally:
        os.umask(umask)
    assert site.home.withdrawals.stat().st_mode & 0o777 == 0o600
    (one,) = listed(site.home.withdrawals)
    assert one.patient == GONE
    assert site.home.withdrawals.read_text().count('"withdrawn"') == 1


def test_the_doctor_names_a_withdrawal_that_did_not_come_to_its_end(site: Site) -> None:
    def said() -> str:
        return "".join(line for line in site.types("doctor").out.splitlines() if "withdraw" in line)

    assert said() == ""
    with writing(site.home.withdrawals) as log:
        log.withdraw("it's P1")
    assert "WRONG  withdrawals" in said()
    assert "wardround-site withdraw 'it'\"'\"'s P1'" in said()
    site.types("withdraw", "it's P1", "--yes")
    assert "1 patient, the chain holds" in said()
    site.home.withdrawals.write_text(site.home.withdrawals.read_text().replace("P1", "P2"))
    assert "does not fit its hash" in said()


def test_two_withdrawals_at_once_stand_one_after_the_other(site: Site) -> None:
    patients = [f"P{number}" for number in range(8)]

    def one(patient: str) -> None:
        with writing(site.home.withdrawals) as log:
            log.withdraw(patient)

    threads = [threading.Thread(target=one, args=(patient,)) for patient in patients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert withdrawn(site.home) == set(patients)
    Withdrawals(site.home.withdrawals)


def test_withdraw_says_what_it_does_and_what_nobody_can_undo(site: Site) -> None:
    ended = site.types("withdraw", "21-canary", answer="n\n")
    assert ended.status == 0
    assert "Nobody here has that PatientID." in ended.out
    assert f"Near it: {GONE}" in ended.out
    assert "Nothing was changed." in ended.out
    assert not withdrawn(site.home)
    ended = site.types("withdraw", GONE, answer="y\n")
    assert "models that were trained before" in ended.out
    assert "2 files in" in ended.out
    listed_ = site.types("withdraw", "--list").out
    assert GONE in listed_
    assert "not yet" not in listed_


def test_rows_of_the_sheet_that_the_schema_names_are_counted(site: Site) -> None:
    book = openpyxl.Workbook()
    book.worksheets[0].append(("a note",))
    sheet = book.create_sheet("Outcomes")
    for row in (("PatientID", "ill"), (GONE, 1), (GONE, 1)):
        sheet.append(row)
    book.save(site.data / "outcomes.xlsx")
    (site.data / "outcomes.schema.yaml").write_text("sheet: Outcomes\n")
    config = load_site_config(site.home.site_yaml)
    changed = config.model_copy(update={"labels": site.data / "outcomes.xlsx"})
    write_site_config(site.home.site_yaml, changed)
    assert "2 rows of the table here" in site.types("withdraw", GONE, answer="n\n").out


@pytest.mark.parametrize("words", [(), (" ",)])
def test_withdraw_without_a_patient_says_what_to_type(site: Site, words: tuple[str, ...]) -> None:
    ended = site.types("withdraw", *words)
    assert ended.status == 2
    assert "Name the patient" in ended.text
    assert site.types("withdraw", "--list").out == "Nobody was withdrawn here.\n"


def test_what_was_pulled_is_deleted_only_where_that_is_asked(site: Site) -> None:
    site.set_up(pacs={"route": "dicomweb", "url": "http://127.0.0.1:1/dicom-web"})
    pulled = [
        save(
            site.data / "1.2.3" / "1.2.3.4" / f"1.2.3.4.{n}.dcm",
            image(noise(24, 24, seed=n + 50), GONE, "pulled", number=n),
        )
        for n in range(2)
    ]
    site.types("withdraw", GONE, "--yes")
    assert all(path.exists() for path in pulled)
    ended = site.types("withdraw", GONE, "--yes", "--delete-pulled")
    assert "Deleted 2 files that `pull` had fetched." in ended.out, ended.text
    assert not (site.data / "1.2.3").exists()
    assert (site.data / "2-0.dcm").exists()
    assert "2 files in" in ended.out


def test_a_lock_that_a_dead_process_held_holds_nobody_up(site: Site) -> None:
    load(site)
    with (site.home.cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    assert site.types("withdraw", GONE, "--yes").status == 0


def test_rows_of_a_table_that_a_private_run_reads_are_found_for_a_withdrawal(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    table = tmp_path / "data" / "labels.csv"
    table.write_bytes(b"PatientID,ill\nM\xfcller,1\nP1,1\nP1,0\nP2,1\n")
    site = SiteConfig(name="north", data=tmp_path / "data")
    assert kept_of(Home(tmp_path / "home"), site, "P1").rows == 2
    table.write_text('PatientID,ill,note\nP1,1,"two\nlines"\nP2,0,x\n', encoding="utf-8")
    assert kept_of(Home(tmp_path / "home"), site, "P1").rows == 1
