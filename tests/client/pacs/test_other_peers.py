"""Other PACS than Orthanc bring what was stored, each with its own way to answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from client.readiness.check_pacs import examine_pacs
from client.site.site_config import SiteConfig
from simulations.synthetic.dicom_writer import Machine, TransferSyntax, write_ct
from tests.client.dicom_files import image, noise, save
from tests.client.pacs.authority import HospitalAuthority
from tests.client.pacs.cohorts import Site, study_of
from tests.client.pacs.other_peers import Peer, behind_tls, dcmqrscp, qrscp, tiny_pacs

pytestmark = pytest.mark.processes

SYNTAXES: dict[str, TransferSyntax] = {"P0": "explicit", "P1": "implicit", "P2": "jpeg2000"}
LATIN = "Größe-1"
UNUSUAL = "1.2.840.10008.5.1.4.1.1.9.5.1"  # Arterial Pulse Waveform
ROUTES = (
    ("dcmqrscp", "c-get"),
    ("dcmqrscp", "c-move"),
    ("qrscp", "c-get"),
    ("qrscp", "c-move"),
    ("tiny_pacs", "dicomweb"),
)


@dataclass(frozen=True)
class Hospitals:
    peers: dict[str, Peer]
    files: dict[str, dict[str, Path]]  # PatientID -> SOP Instance UID -> file


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    folder = tmp_path_factory.mktemp("hospitals")
    files: dict[str, dict[str, Path]] = {}
    for patient, syntax in SYNTAXES.items():
        machine = Machine(
            hospital="n",
            manufacturer="Maker",
            inverted=False,
            signed=False,
            slice_mm=2.0,
            transfer_syntax=syntax,
        )
        volume = np.random.default_rng(0).uniform(-900, 900, (6, 32, 32)).astype(np.float32)
        write_ct(folder / patient, volume, study_of(patient), machine)
        files[patient] = {_uid(path): path for path in (folder / patient).iterdir()}
    odd = image(noise(8, 8), patient="ODD")
    odd.SOPClassUID = odd.file_meta.MediaStorageSOPClassUID = UNUSUAL
    latin = image(noise(8, 8), patient="L")
    latin.SpecificCharacterSet, latin.PatientID = "ISO_IR 100", LATIN
    for patient, one in (("ODD", odd), (LATIN, latin)):
        files[patient] = {one.SOPInstanceUID: save(folder / f"{patient}.dcm", one)}
    every = [path for some in files.values() for path in some.values()]
    with ExitStack() as stack:
        makers = {"dcmqrscp": dcmqrscp, "qrscp": qrscp, "tiny_pacs": tiny_pacs}
        yield Hospitals(
            {
                name: stack.enter_context(make(folder / name, every))
                for name, make in makers.items()
            },
            files,
        )


def _uid(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


@pytest.mark.parametrize(("name", "route"), ROUTES)
def test_what_was_stored_arrives_whole_and_once(
    hospitals: Hospitals, name: str, route: str, tmp_path: Path
) -> None:
    # dcmqrscp moves compressed images to nobody who was not told of in its own configuration.
    patients = [p for p in SYNTAXES if route != "c-move" or p != "P2"]
    sent = {uid: path for p in patients for uid, path in hospitals.files[p].items()}
    site, config = Site(tmp_path, patients), hospitals.peers[name].config(route)
    done = site.pull(config)
    assert (done.counted.series, done.counted.complete) == (len(patients), len(patients))
    files = site.files()
    assert set(files) == set(sent)
    for uid, path in files.items():
        got = dcmread(path)
        assert got == dcmread(sent[uid])
        assert got.PixelData == dcmread(sent[uid]).PixelData
    lost, *kept = sorted(files)
    files[lost].unlink()
    before = {uid: files[uid].stat().st_ino for uid in kept}
    assert site.pull(config).counted.complete == len(patients)
    assert {uid: site.files()[uid].stat().st_ino for uid in kept} == before
    assert lost in site.files()


@pytest.mark.parametrize(
    ("name", "route"), [("dcmqrscp", "c-get"), ("qrscp", "c-get"), ("tiny_pacs", "dicomweb")]
)
def test_it_is_reached_by_tls(hospitals: Hospitals, name: str, route: str, tmp_path: Path) -> None:
    authority = HospitalAuthority(tmp_path / "ca")
    own, peer = authority.issue("WARDROUND"), hospitals.peers[name]
    plain = peer.web_port if route == "dicomweb" else peer.port
    assert plain is not None
    with behind_tls(plain, authority.issue(), own) as port:
        config = peer.config(
            route,
            tls=True,
            port=port,
            url=f"https://127.0.0.1:{port}/dicomweb",
            authority=authority.pem,
            certificate=own.certificate,
            key=own.key,
        )
        done = Site(tmp_path / "site", ["P0", "P2"]).pull(config)
    assert (done.counted.complete, done.counted.instances) == (2, 12)


@pytest.mark.parametrize("name", ["dcmqrscp", "qrscp"])
def test_a_class_that_is_not_told_and_unusual_is_found(
    hospitals: Hospitals, name: str, tmp_path: Path
) -> None:
    done = Site(tmp_path, ["ODD"]).pull(hospitals.peers[name].config("c-get"))
    assert (done.counted.complete, done.counted.instances) == (1, 1)


def test_a_match_for_each_image_is_one_series(hospitals: Hospitals, tmp_path: Path) -> None:
    site = Site(tmp_path, list(SYNTAXES))
    config = hospitals.peers["qrscp"].config("c-get")
    site.wanted(config)
    found = examine_pacs(SiteConfig(name="north", data=site.data, pacs=config))
    (query,) = [one for one in found if one.check == "query"]
    assert "3 of the first 3 entries" in query.detail
    assert "with 3 series" in query.detail
    assert all(one.state != "wrong" for one in found)


@pytest.mark.parametrize("name", ["dcmqrscp", "qrscp"])
def test_an_identifier_in_an_old_character_set_is_found(
    hospitals: Hospitals, name: str, tmp_path: Path
) -> None:
    done = Site(tmp_path, [LATIN]).pull(hospitals.peers[name].config("c-get"))
    assert done.counted.complete == 1
