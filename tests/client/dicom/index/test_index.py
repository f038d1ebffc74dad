from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from client.dicom.headers.header import parse_header
from client.dicom.headers.instance import Instance
from client.dicom.index.index import Index
from client.dicom.reasons import Reason, Unusable
from client.dicom.remarks import Remark
from common.platform.errors import CohortError
from tests.client.dicom_files import image, noise, placed, save, slices, uid


def write_site(site: Path, patients: int = 3) -> Path:
    """Write a series of four slices for each patient."""
    for number in range(patients):
        for place, dataset in enumerate(slices(noise(4, 6, 5, seed=number), f"P{number}")):
            dataset.StudyDate, dataset.PatientAge = "20240102", "045Y"
            save(site / f"P{number}" / f"{place}.dcm", dataset)
    return site


def rows_of(path: Path) -> list[tuple[object, ...]]:
    """Return every row of every table but the numbers that tie them together."""
    with sqlite3.connect(path) as database:
        return [
            row
            for table in ("patient", "study", "series", "instance", "quarantine")
            for row in database.execute(f"SELECT * FROM {table} ORDER BY 1")  # noqa: S608
        ]


def test_an_index_tells_what_a_folder_holds(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site")
    (site / "empty").write_bytes(b"")
    (site / "notes.txt").write_text("not even looked at")
    with Index(tmp_path / "i.db") as index:
        change = index.update(site)
        assert (change.files, change.read, change.gone) == (13, 13, 0)
        counts = index.counts()
        assert (counts.patients, counts.studies, counts.series) == (3, 3, 3)
        assert (counts.instances, counts.quarantined) == (12, 1)
        first = next(index.instances())
        assert (first.patient, first.modality, first.rows, first.columns) == ("P0", "CT", 6, 5)
        assert (first.study_date, first.patient_age) == ("20240102", "045Y")
        assert first.spacing == (0.5, 0.7)
        assert first.header.positions == ((0.0, 0.0, 0.0),)
        assert [(s.patient, s.instances, s.frames) for s in index.series()] == [
            ("P0", 4, 4),
            ("P1", 4, 4),
            ("P2", 4, 4),
        ]
        study = uid("P1", "study of P1")
        assert index.find_study(study) == tuple(sorted((site / "P1").iterdir()))
        assert index.look_up(first.path) == first
        assert index.look_up(site / "empty") == index.quarantined()[0]
        assert index.look_up(site / "notes.txt") is None
        assert [(q.reason, q.what) for q in index.quarantined()] == [
            (Reason.EMPTY_FILE, str(site / "empty"))
        ]


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site")
    with Index(tmp_path / "i.db") as index:
        index.update(site)
        assert index.update(site).read == 0
        save(site / "P0" / "0.dcm", placed(image(noise(9, 9), "P9"), (0, 0, 0)))
        shutil.rmtree(site / "P2")
        change = index.update(site)
        assert (change.files, change.read, change.gone) == (8, 1, 4)
        assert {image.patient for image in index.instances()} == {"P0", "P1", "P9"}
        assert {one.patient for one in index.series()} == {"P0", "P1", "P9"}
        assert index.counts().patients == 3


def test_folders_of_one_index_do_not_touch_each_other(tmp_path: Path) -> None:
    first, second = write_site(tmp_path / "a", 1), write_site(tmp_path / "a b", 2)
    with Index(tmp_path / "i.db") as index:
        index.update(first)
        index.update(second)
        assert len(list(index.instances(first))) == 4
        assert len(list(index.instances(second))) == 8
        shutil.rmtree(second / "P1")
        assert index.update(first).gone == 0
        assert index.update(second).gone == 4


def test_a_patient_is_forgotten_in_every_table_and_in_the_file(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site")
    broken = image(noise(4, 4), "P1", "another")
    broken.Rows = 999
    save(site / "broken", broken)
    with Index(tmp_path / "i.db") as index:
        index.update(site)
        assert index.forget_patient("P1") == 5
        assert {image.patient for image in index.instances()} == {"P0", "P2"}
        assert index.quarantined() == ()
        named = uid("P1", "study of P1").encode()
        for path in tmp_path.glob("i.db*"):
            assert named not in path.read_bytes()


def test_a_file_that_is_still_growing_is_no_broken_file(tmp_path: Path) -> None:
    site = tmp_path / "site"
    path = save(site / "x", image(noise(64, 64)))
    whole = path.read_bytes()
    path.write_bytes(whole[:2000])

    def grow() -> None:
        time.sleep(0.1)
        path.write_bytes(whole[:3000])

    writer = threading.Thread(target=grow)
    writer.start()
    with Index(tmp_path / "i.db") as index:
        index.update(site)
        writer.join()
        assert [q.reason for q in index.quarantined()] == [Reason.PARTIAL_WRITE]
        index.update(site)
        assert [q.reason for q in index.quarantined()] == [Reason.TRUNCATED_PIXELS]
        path.write_bytes(whole)
        index.update(site)
        assert index.quarantined() == ()
        assert index.counts().instances == 1


def test_pixels_that_cannot_be_used_move_an_image_into_quarantine(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", 1)
    with Index(tmp_path / "i.db") as index:
        index.update(site)
        broken = next(index.instances())
        index.quarantine(broken, Unusable(reason=Reason.DECODE_ERROR, what="x", detail="why"))
        assert index.counts().instances == 3
        (one,) = index.quarantined()
        assert (one.reason, one.detail, one.patient) == (Reason.DECODE_ERROR, "why", "P0")
        assert index.update(site).read == 0
        os.utime(broken.path)
        assert index.update(site).read == 1
        assert index.counts().instances == 4


def test_what_an_index_says_is_what_pydicom_says(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site")
    special = image(noise(5, 5), "Jürgen ", "S")
    special.SpecificCharacterSet = "ISO_IR 100"
    special.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    special.PhotometricInterpretation = "MONOCHROME1"
    save(site / "special", special)
    with Index(tmp_path / "fast.db") as index:
        index.update(site)
        found = {one.path.name: one for one in index.instances()}["special"]
        assert found.patient == "Jürgen"
        assert found.remarks == {Remark.MONOCHROME1, Remark.LOCALIZER}
    with Index(tmp_path / "slow.db", read=parse_header) as index:
        index.update(site)
    assert rows_of(tmp_path / "fast.db") == rows_of(tmp_path / "slow.db")


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b""])
def test_a_damaged_index_is_made_anew(tmp_path: Path, content: bytes) -> None:
    site = write_site(tmp_path / "site", 1)
    (tmp_path / "i.db").write_bytes(content)
    with Index(tmp_path / "i.db") as index:
        index.update(site)
        assert index.counts().instances == 4


def test_an_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "i.db") as old:
        old.execute("PRAGMA user_version = 99")
        old.execute("CREATE TABLE patient (x)")
    with Index(tmp_path / "i.db") as index:
        index.update(write_site(tmp_path / "site", 1))
        assert index.counts().instances == 4


def test_an_index_that_cannot_be_written_says_which_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "i.db").mkdir()
    with pytest.raises(CohortError, match=r"i\.db.*delete it"):
        Index(tmp_path / "i.db")
    site = write_site(tmp_path / "site", 60)
    with Index(tmp_path / "full.db") as index:
        index._database.execute("PRAGMA max_page_count = 1")  # as on a full disk
        with pytest.raises(CohortError, match=r"full\.db.*full"):
            index.update(site)


UPDATE = """
import sys
from pathlib import Path
from client.dicom.index.index import Index
for turn in range(5):
    with Index(Path(sys.argv[1])) as index:
        index.update(Path(sys.argv[2]))
"""


@pytest.mark.processes
def test_processes_share_an_index(tmp_path: Path) -> None:
    sites = [write_site(tmp_path / "a", 3), write_site(tmp_path / "b", 3)]
    command = [sys.executable, "-c", UPDATE, str(tmp_path / "i.db")]
    running = [subprocess.Popen([*command, str(site)]) for site in (*sites, *sites)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    with Index(tmp_path / "i.db") as index:
        assert index.counts().instances == 24
        assert index.counts().patients == 3


def test_a_link_to_nowhere_and_hidden_files_are_not_looked_at(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", 1)
    (site / "lost").symlink_to(tmp_path / "nothing")
    (site / ".hidden").write_bytes(b"x")
    save(tmp_path / "elsewhere", image(np.ones((3, 3), np.uint8), "P7"))
    (site / "linked").symlink_to(tmp_path / "elsewhere")
    with Index(tmp_path / "i.db") as index:
        assert index.update(site).files == 5
        assert {one.patient for one in index.instances()} == {"P0", "P7"}
        assert all(isinstance(one, Instance) for one in index.instances())
