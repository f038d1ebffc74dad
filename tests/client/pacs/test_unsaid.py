"""Peers that leave out optional attributes, and identifiers that a PACS reads otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt

from client.pacs.cfind import FIND, GET
from client.pacs.connection.storage_classes import classes_of
from client.pacs.image_source import PacsQuery
from client.readiness.check_pacs import examine_pacs
from client.site.pacs_section import PacsConfig
from client.site.site_config import SiteConfig
from tests.client.dicom_files import image, noise, save
from tests.client.pacs.cohorts import Site
from tests.client.pacs.orthanc import Pacs, free_port, orthanc
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes

US = "1.2.840.10008.5.1.4.1.1.6.1"
#: Standard, and in no list of usual ones: Arterial Pulse Waveform.
UNUSUAL = "1.2.840.10008.5.1.4.1.1.9.5.1"


@dataclass
class Peer:
    """A PACS of pynetdicom's that tells no SOPClassUID at IMAGE level."""

    objects: list[Dataset]
    port: int = 0
    asked: list[Dataset] = field(default_factory=list)

    def config(self) -> PacsConfig:
        return PacsConfig.model_validate(
            {
                "route": "c-get",
                "host": "127.0.0.1",
                "port": self.port,
                "called_title": "PEER",
                "own_title": "WARDROUND",
            }
        )

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        self.asked.append(asked)
        seen = set()
        for one in self._matching(asked):
            found = Dataset()
            for element in asked:
                if element.keyword != "SOPClassUID" and element.keyword in one:
                    found[element.tag] = one[element.tag]
            found.QueryRetrieveLevel = asked.QueryRetrieveLevel
            key = str(found)
            if key not in seen:
                seen.add(key)
                yield 0xFF00, found

    def get(self, event: evt.Event) -> Iterator[object]:
        found = self._matching(event.identifier)
        yield len(found)
        for one in found:
            yield 0xFF00, one

    def _matching(self, asked: Dataset) -> list[Dataset]:
        keys = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        wanted = {k: asked.get(k) for k in keys if asked.get(k)}
        return [
            one
            for one in self.objects
            if all(one.get(k) in (v if isinstance(v, list) else [v]) for k, v in wanted.items())
        ]


@contextmanager
def serving(peer: Peer) -> Iterator[Peer]:
    entity = AE("PEER")
    for syntax in (FIND, GET, "1.2.840.10008.1.1"):
        entity.add_supported_context(syntax)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_FIND, peer.find), (evt.EVT_C_GET, peer.get)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        peer.port = server.socket.getsockname()[1]
        yield peer
    finally:
        server.shutdown()


def objects(sop_class: str, modality: str = "US") -> list[Dataset]:
    found = []
    for number in range(3):
        one = image(noise(16, 16), patient="P0", number=number)
        one.SOPClassUID, one.Modality = sop_class, modality
        one.file_meta.MediaStorageSOPClassUID = sop_class
        found.append(one)
    return found


@pytest.mark.parametrize("modality", ["US", "CT", "MR", "", "ZZ"])
def test_a_modality_has_at_most_eight_usual_classes(modality: str) -> None:
    found = classes_of(modality)
    assert 0 < len(found) == len(set(found)) <= 8


def test_images_come_though_the_peer_does_not_say_their_class(tmp_path: Path) -> None:
    with serving(Peer(objects(US))) as peer:
        done = Site(tmp_path, ["P0"]).pull(peer.config())
    assert (done.counted.complete, done.counted.instances) == (1, 3)


def test_the_true_cause_is_told_where_none_of_the_usual_classes_is_it(tmp_path: Path) -> None:
    with serving(Peer(objects(UNUSUAL))) as peer:
        done = Site(tmp_path, ["P0"]).pull(peer.config())
        site = SiteConfig(name="north", data=tmp_path / "data", pacs=peer.config())
        (retrieval,) = [f for f in examine_pacs(site) if f.check == "retrieval"]
    ((_, told),) = done.counted.incomplete
    for text in (told, retrieval.detail):
        assert "leaves the optional SOPClassUID out" in text
        assert "title" not in text


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    folder = tmp_path_factory.mktemp("pacs")
    with orthanc(folder, peers={"WARDROUND": ("127.0.0.1", free_port())}) as found:
        for patient in ("P*1", "P?1", "P01", "PX1"):
            dataset = image(noise(16, 16), patient=patient)
            found.store([save(folder / f"{patient.encode().hex()}.dcm", dataset)])
        yield found


@pytest.mark.parametrize("route", ["dicomweb", "c-get"])
def test_identifiers_with_wildcards_are_asked_and_only_they_are_taken(
    pacs: Pacs, route: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, ["P*1", "P?1", "P?2", "*", "P\\1"])
    done = site.pull(reaching(pacs, route))
    assert {dcmread(path).PatientID for path in site.files().values()} == {"P*1", "P?1"}
    listed = {one.question.value: one.question.why_not_asked for one in done.unanswered}
    assert set(listed) == {"P?2", "*", "P\\1"}
    assert listed["P?2"] is None
    assert "everybody" in str(listed["*"])
    assert "backslash" in str(listed["P\\1"])


def test_a_question_without_a_value_is_asked() -> None:
    question = PacsQuery(key=None, value="", modality="CT", first_day="", last_day="")
    assert question.why_not_asked is None
