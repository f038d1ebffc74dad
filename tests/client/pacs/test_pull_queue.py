"""The queue of a pull: what it forgets and what it never does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from client.pacs.fsync import Flusher, boot
from client.pacs.image_source import RemoteSeries
from client.pacs.pull_queue import Queue
from client.pacs.received_file import Landed
from common.platform.errors import RunFailed, StateDamaged
from tests.client.pacs.cohorts import Site, fill
from tests.client.pacs.orthanc import Pacs
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes


def series(name: str, instances: int | None = 2, patient: str = "P") -> RemoteSeries:
    return RemoteSeries(
        patient=patient,
        accession="A",
        study=f"1.{name}",
        series=f"2.{name}",
        modality="CT",
        instances=instances,
    )


def landed(of: RemoteSeries, number: int) -> Landed:
    return Landed(path=Path("x"), study=of.study, series=of.series, instance=f"3.{number}", size=10)


def test_each_series_is_taken_by_one_thread_only(tmp_path: Path) -> None:
    with Queue(tmp_path / "pulls.db") as queue:
        queue.offer([series(str(n)) for n in range(200)])
        taken: list[str] = []

        def work() -> None:
            while (one := queue.take()) is not None:
                taken.append(one.series)
                queue.finish(one, "complete")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(taken) == len(set(taken)) == 200


def test_complete_series_rest_and_grown_or_incomplete_ones_wait_again(tmp_path: Path) -> None:
    same, grown, short = series("0"), series("1"), series("2")
    path = tmp_path / "pulls.db"
    with Queue(path) as queue:
        queue.offer([same, grown, short])
        queue.finish(same, "complete")
        queue.finish(grown, "complete")
        queue.finish(short, "incomplete", "1 of 2 images came")
        assert queue.take() is None
        assert queue.counted().incomplete == ((short, "1 of 2 images came"),)
    with Queue(path) as queue:
        queue.offer([same, series("1", 3), short])
        waiting = [queue.take(), queue.take(), queue.take()]
        assert [one and one.series for one in waiting] == ["2.1", "2.2", None]


def test_what_is_no_longer_selected_does_not_count(tmp_path: Path) -> None:
    with Queue(tmp_path / "pulls.db") as queue:
        queue.offer([series("0"), series("1")])
        queue.acknowledge([landed(series("0"), 0), landed(series("1"), 1)], "boot")
        queue.offer([series("1")])
        counted = queue.counted()
    assert (counted.series, counted.instances, counted.stated, counted.size) == (1, 1, 2, 10)


def test_a_patient_is_forgotten_for_good(tmp_path: Path) -> None:
    with Queue(tmp_path / "pulls.db") as queue:
        queue.offer([series("0", patient="A"), series("1", patient="B")])
        queue.acknowledge([landed(series("0"), 0), landed(series("1"), 1)], "boot")
        assert queue.forget("A") == (("1.0", "2.0"),)
        assert queue.here(series("0")) == frozenset()
        assert queue.here(series("1")) == {"3.1"}
    assert b"3.0" not in (tmp_path / "pulls.db").read_bytes()


def test_a_damaged_queue_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "pulls.db").write_bytes(b"no database" * 100)
    with pytest.raises(StateDamaged, match="Remove it; files that were fetched are found again"):
        Queue(tmp_path / "pulls.db")


def test_without_the_queue_files_that_lie_there_are_not_fetched_again(
    pacs: Pacs, tmp_path: Path
) -> None:
    fill(pacs, tmp_path / "made", ["Q0"])
    site = Site(tmp_path, ["Q0"])
    site.pull(reaching(pacs))
    before = {uid: path.stat().st_ino for uid, path in site.files().items()}
    for path in tmp_path.glob("pulls.db*"):
        path.unlink()
    assert site.pull(reaching(pacs)).counted.complete == 1
    assert {uid: path.stat().st_ino for uid, path in site.files().items()} == before


def test_after_a_loss_of_power_files_that_were_not_flushed_are_looked_at_again(
    pacs: Pacs, tmp_path: Path
) -> None:
    stored = fill(pacs, tmp_path / "made", ["Q1"])
    site, config = Site(tmp_path, ["Q1"]), reaching(pacs)
    site.pull(config)
    files = sorted(site.files().items())
    path = files[0][1]
    study, name = path.parts[-3], path.parts[-2]
    one = RemoteSeries(
        patient="Q1", accession="", study=study, series=name, modality="CT", instances=8
    )
    lost = [Landed(path=p, study=study, series=name, instance=uid, size=1) for uid, p in files[:2]]
    with Queue(tmp_path / "pulls.db") as queue:
        assert len(queue.here(one)) == 8
        queue.acknowledge(lost, "an earlier start of this machine")
    path.write_bytes(b"")  # what ext4 leaves of a file that never reached the disk
    assert site.pull(config).counted.complete == 1
    uid = files[0][0]
    assert path.read_bytes() == stored.files[uid].read_bytes()
    with Queue(tmp_path / "pulls.db") as queue:
        queue.after_start("the next start")  # all is on the disk now, so nothing is taken back
        assert len(queue.here(one)) == 8


def test_a_flusher_leaves_nothing_unflushed(pacs: Pacs, tmp_path: Path) -> None:
    fill(pacs, tmp_path / "made", ["Q2"])
    site = Site(tmp_path, ["Q2"])
    site.pull(reaching(pacs))
    with Queue(tmp_path / "pulls.db") as queue, Flusher(queue):
        queue.after_start(f"not {boot()}")
        assert queue.counted().instances == 8


def test_two_pulls_into_one_folder_are_refused(pacs: Pacs, tmp_path: Path) -> None:
    fill(pacs, tmp_path / "made", ["Q3"])
    site = Site(tmp_path, ["Q3"])
    slow = reaching(pacs, images_per_second=4.0)
    first = threading.Thread(target=site.pull, args=(slow,))
    first.start()
    while not site.files():
        first.join(0.05)
        assert first.is_alive()
    with pytest.raises(RunFailed, match="Another pull into"):
        site.pull(reaching(pacs))
    first.join()
    assert len(site.files()) == 8
