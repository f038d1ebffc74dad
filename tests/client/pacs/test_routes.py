"""Each route brings from the real Orthanc what was stored there, whole and once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread

from client.pacs.pull import Pulled
from tests.client.dicom_files import image, noise, save
from tests.client.pacs.authority import HospitalAuthority
from tests.client.pacs.cohorts import SYNTAXES, Site, Stored, fill
from tests.client.pacs.orthanc import Pacs, free_port, orthanc
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes

PATIENTS = ("P0", "P1", "P2", "P3", "P4")
ROUTES = ("dicomweb", "c-get", "c-move")


@dataclass(frozen=True)
class Hospital:
    pacs: Pacs
    stored: Stored
    own_port: int


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder, port = tmp_path_factory.mktemp("hospital"), free_port()
    with orthanc(folder, peers={"WARDROUND": ("127.0.0.1", port)}) as pacs:
        yield Hospital(pacs, fill(pacs, folder / "made", PATIENTS), port)


def is_complete(done: Pulled, series: int, instances: int) -> bool:
    counted = done.counted
    return (counted.series, counted.complete, counted.instances, counted.stated) == (
        series,
        series,
        instances,
        instances,
    )


@pytest.mark.parametrize("route", ROUTES)
def test_what_was_stored_arrives_and_a_second_pull_asks_for_nothing(
    hospital: Hospital, route: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, PATIENTS)
    config = reaching(hospital.pacs, route, own_port=hospital.own_port)
    assert is_complete(site.pull(config), len(PATIENTS), len(hospital.stored.files))
    files = site.files()
    assert set(files) == set(hospital.stored.files)
    syntaxes = set()
    for uid, path in files.items():
        got, sent = dcmread(path), dcmread(hospital.stored.files[uid])
        assert got == sent
        assert got.PixelData == sent.PixelData
        syntaxes.add(got.file_meta.TransferSyntaxUID)
        if route == "dicomweb":
            assert path.read_bytes() == hospital.stored.files[uid].read_bytes()
    # DIMSE sends uncompressed images in one of two encodings; compressed ones come as stored.
    assert len(syntaxes) in ({len(SYNTAXES)} if route == "dicomweb" else {4, 5})
    before = {uid: path.stat().st_ino for uid, path in files.items()}
    assert is_complete(site.pull(config), len(PATIENTS), len(files))
    assert {uid: path.stat().st_ino for uid, path in site.files().items()} == before
    assert list(site.data.rglob("*.part")) == []


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_missing_of_a_series_is_fetched_alone(
    hospital: Hospital, route: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, ["P0"])
    config = reaching(hospital.pacs, route, own_port=hospital.own_port)
    site.pull(config)
    files = site.files()
    lost = sorted(files)[:3]
    for uid in lost:
        files[uid].unlink()
    kept = {uid: path.stat().st_ino for uid, path in files.items() if uid not in lost}
    assert is_complete(site.pull(config), 1, 8)
    now = {uid: path.stat().st_ino for uid, path in site.files().items()}
    assert len(now) == 8
    assert {uid: now[uid] for uid in kept} == kept


@pytest.mark.parametrize("route", ROUTES)
def test_a_series_that_grew_at_the_pacs_is_completed(
    hospital: Hospital, route: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, ["P1"])
    config = reaching(hospital.pacs, route, own_port=hospital.own_port)
    late = next(u for u, p in hospital.stored.files.items() if p.parent.name == "P1")
    hospital.pacs.delete(late)
    assert is_complete(site.pull(config), 1, 7)
    hospital.pacs.store([hospital.stored.files[late]])
    assert is_complete(site.pull(config), 1, 8)


def test_only_what_the_selection_names_is_fetched(hospital: Hospital, tmp_path: Path) -> None:
    site = Site(tmp_path, ["P0", "P3", "NOBODY"])
    done = site.pull(reaching(hospital.pacs))
    assert is_complete(done, 2, 16)
    assert [one.question.value for one in done.unanswered] == ["NOBODY"]
    other = reaching(hospital.pacs, select={"modalities": ["MR"]})
    assert site.pull(other).counted.series == 0
    days = reaching(hospital.pacs, select={"first_day": "2031-01-01"})
    assert site.pull(days).counted.series == 0


@pytest.mark.parametrize("route", ["dicomweb", "c-get"])
def test_without_labels_days_and_modalities_decide(
    hospital: Hospital, route: str, tmp_path: Path
) -> None:
    select = {"named_by_labels": False, "modalities": ["CT"], "first_day": "2019-01-01"}
    site = Site(tmp_path, [])  # there is no table at all
    assert is_complete(site.pull(reaching(hospital.pacs, route, select=select)), 5, 40)


def test_nothing_is_fetched_of_a_withdrawn_patient(hospital: Hospital, tmp_path: Path) -> None:
    site = Site(tmp_path, ["P0", "P1"])
    done = site.pull(reaching(hospital.pacs), withdrawn=frozenset({"P1"}))
    assert is_complete(done, 1, 8)
    assert {dcmread(path).PatientID for path in site.files().values()} == {"P0"}


@pytest.mark.parametrize("wildcard", ["*", "P?", "P0\\P1", "P*"])
@pytest.mark.parametrize("route", ["dicomweb", "c-get"])
def test_a_patient_id_that_is_a_wildcard_matches_nobody_else(
    hospital: Hospital, route: str, wildcard: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, ["P4", wildcard])
    assert is_complete(site.pull(reaching(hospital.pacs, route)), 1, 8)


@pytest.mark.parametrize("route", ROUTES)
def test_images_that_the_pacs_keeps_broken_leave_their_series_incomplete(
    hospital: Hospital, route: str, tmp_path: Path
) -> None:
    whole = [image(noise(32, 32), patient="BROKEN", number=n) for n in range(3)]
    whole[1].PixelData = whole[1].PixelData[:1000]
    for number, dataset in enumerate(whole):
        hospital.pacs.store([save(tmp_path / f"{number}.dcm", dataset)])
    site = Site(tmp_path / "site", ["BROKEN", "P0"])
    done = site.pull(reaching(hospital.pacs, route, own_port=hospital.own_port))
    assert done.counted.complete == 1
    ((series, told),) = done.counted.incomplete
    assert series.patient == "BROKEN"
    assert told == (
        "2 of 3 images came; the others are TRUNCATED_PIXELS (1000 bytes of pixels, expected 2048)"
    )
    assert whole[1].SOPInstanceUID not in site.files()


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_goes_through_tls(route: str, tmp_path: Path) -> None:
    authority = HospitalAuthority(tmp_path / "ca")
    own, port = authority.issue("WARDROUND"), free_port()
    with orthanc(
        tmp_path,
        tls=authority.issue(),
        https=authority.issue(),
        peers={"WARDROUND": ("127.0.0.1", port)},
    ) as pacs:
        fill(pacs, tmp_path / "made", ["P0", "P1"])
        config = reaching(
            pacs,
            route,
            tls=True,
            authority=authority.pem,
            certificate=own.certificate,
            key=own.key,
            own_port=port,
        )
        assert is_complete(Site(tmp_path / "site", ["P0", "P1"]).pull(config), 2, 16)


def test_a_patient_id_beyond_ascii_is_found(hospital: Hospital, tmp_path: Path) -> None:
    dataset = image(noise(8, 8))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID = "Größe-1"
    hospital.pacs.store([save(tmp_path / "a.dcm", dataset)])
    site = Site(tmp_path / "site", ["Größe-1"])
    assert is_complete(site.pull(reaching(hospital.pacs, "c-get")), 1, 1)
