"""A PACS that lies, breaks off or sends what nobody asked for does no harm, and is found out."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from client.pacs import rate_limit as pace
from client.pacs.pull import Pulled
from common.platform.errors import RunFailed, Unreachable
from tests.client.dicom_files import image, noise, save
from tests.client.pacs.cohorts import Site, fill
from tests.client.pacs.hostile import Answer, Hostile, multipart, serving
from tests.client.pacs.orthanc import Pacs
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST_PAUSE_SECONDS", 0.05)


def slices(folder: Path, count: int = 3) -> tuple[list[FileDataset], list[bytes]]:
    made = [image(noise(16, 16, seed=n), patient="H", number=n) for n in range(count)]
    return made, [save(folder / f"{n}.dcm", one).read_bytes() for n, one in enumerate(made)]


def pulled(hostile: Hostile, folder: Path) -> tuple[Pulled, Site]:
    site = Site(folder / "site", ["H"])
    with serving(hostile) as config:
        return site.pull(config), site


def uids(made: list[FileDataset]) -> list[str]:
    return [one.SOPInstanceUID for one in made]


def test_a_pacs_that_gives_no_count_is_asked_for_its_list(tmp_path: Path) -> None:
    made, sent = slices(tmp_path)
    parts = {"whole": sent[:2]}

    def retrieve(path: str) -> Answer:
        return (
            multipart(sent[2])
            if path.endswith(made[2].SOPInstanceUID)
            else multipart(*parts["whole"])
        )

    done, site = pulled(Hostile(made[0], None, uids(made), retrieve), tmp_path)
    assert done.counted.complete == 1  # the third was missed, and asked for alone
    assert set(site.files()) == set(uids(made))


def test_a_count_that_is_wrong_gives_way_to_the_list(tmp_path: Path) -> None:
    made, sent = slices(tmp_path)
    done, site = pulled(Hostile(made[0], 5, uids(made), lambda _p: multipart(*sent)), tmp_path)
    assert (done.counted.complete, done.counted.instances, done.counted.stated) == (1, 3, 5)
    assert len(site.files()) == 3


def test_an_image_that_is_listed_and_never_sent_leaves_its_series_incomplete(
    tmp_path: Path,
) -> None:
    made, sent = slices(tmp_path)
    hostile = Hostile(made[0], 3, uids(made), lambda _p: multipart(sent[0], sent[1]))
    done, _ = pulled(hostile, tmp_path)
    ((_, told),) = done.counted.incomplete
    assert told == "2 of 3 images came; the PACS does not send more"


def test_a_series_of_which_nothing_is_listed_is_not_called_whole(tmp_path: Path) -> None:
    made, sent = slices(tmp_path)
    done, _ = pulled(Hostile(made[0], 3, [], lambda _p: multipart(sent[0], sent[1])), tmp_path)
    ((_, told),) = done.counted.incomplete
    assert told == "2 of 3 images came; the PACS lists none of its images"


def test_an_object_of_another_series_replaces_nothing(tmp_path: Path) -> None:
    made, sent = slices(tmp_path)
    other = image(noise(16, 16), patient="OTHER")
    foreign = save(tmp_path / "other.dcm", other).read_bytes()
    site = Site(tmp_path / "site", ["H"])
    victim = site.data / other.StudyInstanceUID / other.SeriesInstanceUID
    victim.mkdir(parents=True)
    victim /= f"{other.SOPInstanceUID}.dcm"
    victim.write_bytes(b"what the site has")
    hostile = Hostile(
        made[0],
        3,
        [*uids(made)[:2], other.SOPInstanceUID],
        lambda _p: multipart(sent[0], foreign, sent[1]),
    )
    done, _ = pulled(hostile, tmp_path)
    assert victim.read_bytes() == b"what the site has"
    ((_, told),) = done.counted.incomplete
    assert told == "2 of 3 images came; the others are UNEXPECTED (an object of another series)"


def test_one_object_without_parts_is_taken(tmp_path: Path) -> None:
    made, sent = slices(tmp_path, 1)
    hostile = Hostile(made[0], 1, uids(made), lambda _p: Answer("application/dicom", sent[0]))
    done, site = pulled(hostile, tmp_path)
    assert done.counted.complete == 1
    assert [path.read_bytes() for path in site.files().values()] == sent


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer("text/html", b"<html>Please log in"), "text/html, expected DICOM"),
        (Answer("text/plain", b"no", status=404), "status 404"),
        (Answer("text/plain", b"no", status=500), "status 500"),
    ],
)
def test_a_series_that_is_refused_is_listed_and_stops_nothing(
    tmp_path: Path, answer: Answer, why: str
) -> None:
    made, _ = slices(tmp_path)
    hostile = Hostile(made[0], 3, uids(made), lambda _p: answer)
    done, _ = pulled(hostile, tmp_path)
    ((_, told),) = done.counted.incomplete
    assert told.startswith("0 of 3 images came; the PACS answers")
    assert told.endswith(why)
    assert len(hostile.asked) == 3


def test_an_answer_that_breaks_off_is_asked_for_again_without_what_came(tmp_path: Path) -> None:
    made, sent = slices(tmp_path)
    whole = multipart(*sent)
    place = whole.body.index(sent[2]) + 100

    def retrieve(path: str) -> Answer:
        if path.endswith(tuple(uids(made))):
            return multipart(sent[uids(made).index(path.rpartition("/")[2])])
        return Answer(whole.kind, whole.body, cut_at=place)

    hostile = Hostile(made[0], 3, uids(made), retrieve)
    done, site = pulled(hostile, tmp_path)
    assert done.counted.complete == 1
    assert len(site.files()) == 3
    assert [path.rpartition("/")[2] for path in hostile.asked] == [
        made[0].SeriesInstanceUID,
        made[2].SOPInstanceUID,
    ]


def test_a_pacs_that_stays_away_ends_the_pull_after_its_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PATIENCE_SECONDS", 0.3)
    made, sent = slices(tmp_path)
    whole = multipart(*sent)
    cut = Answer(whole.kind, whole.body, cut_at=50)
    with pytest.raises(Unreachable, match=r"broke off|ends in the middle"):
        pulled(Hostile(made[0], 3, uids(made), lambda _p: cut), tmp_path)


def test_series_whose_uids_are_paths_are_never_stored(tmp_path: Path) -> None:
    made, sent = slices(tmp_path, 1)
    with pytest.warns(UserWarning, match="Invalid value for VR UI"):
        made[0].SeriesInstanceUID = "../../../outside"
    done, site = pulled(Hostile(made[0], 1, uids(made), lambda _p: multipart(*sent)), tmp_path)
    assert done.counted.series == 0
    assert site.files() == {}


def test_a_full_disk_is_told_and_the_next_pull_goes_on(pacs: Pacs, tmp_path: Path) -> None:
    fill(pacs, tmp_path / "made", ["D0"], size=256, syntaxes=["explicit"])
    site = Site(tmp_path / "site", ["D0"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for route in ("dicomweb", "c-get"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(RunFailed, match=r"Cannot write to .*site/data: File too large"):
                site.pull(reaching(pacs, route))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert site.files() == {}
    assert site.pull(reaching(pacs)).counted.complete == 1
