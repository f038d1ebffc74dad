"""Peers that leave out optional attributes, and identifiers that a PACS reads otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import Association

from client.pacs.cfind import FIND, GET, ask
from client.pacs.connection import storage_classes
from client.pacs.connection.association import COMPRESSED, UNCOMPRESSED
from client.pacs.connection.storage_classes import classes_of, further_proposals, proposals
from client.pacs.image_source import PacsQuery
from client.pacs.pull_selection import WantedSeries
from client.readiness.check_pacs import examine_pacs
from client.site.pacs_section import PacsConfig, PullSelection
from client.site.site_config import SiteConfig
from common.platform.errors import TrustRefused
from tests.client.dicom_files import image, noise, save
from tests.client.pacs.cohorts import Site
from tests.client.pacs.orthanc import Pacs, free_port, orthanc
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes

US = "1.2.840.10008.5.1.4.1.1.6.1"
#: Standard, and in no list of usual ones: Arterial Pulse Waveform.
UNUSUAL = "1.2.840.10008.5.1.4.1.1.9.5.1"
PRIVATE = "1.3.12.2.1107.5.9.1"


@dataclass
class Peer:
    """A PACS of pynetdicom's that tells no SOPClassUID at IMAGE level, and less where told."""

    objects: list[Dataset]
    omits: frozenset[str] = frozenset()  # keys
    ignores: frozenset[str] = frozenset()  # keys: it answers whatever their value is
    takes: tuple[str, ...] = ()  # storage classes; empty for all
    services: tuple[str, ...] = (FIND, GET, "1.2.840.10008.1.1")
    pdu_bytes: int = 16382
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
                if element.keyword not in self.omits | {"SOPClassUID"} and element.keyword in one:
                    found[element.tag] = one[element.tag]
            found.QueryRetrieveLevel = asked.QueryRetrieveLevel
            key = str(found)
            if key not in seen:
                seen.add(key)
                yield 0xFF00, found

    def get(self, event: evt.Event) -> Iterator[object]:
        found = [
            one
            for one in self._matching(event.identifier)
            if one.SeriesInstanceUID == event.identifier.SeriesInstanceUID
        ]
        yield len(found)
        for one in found:
            yield 0xFF00, one

    def _matching(self, asked: Dataset) -> list[Dataset]:
        keys = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        wanted = {k: asked.get(k) for k in keys if asked.get(k) and k not in self.ignores}
        return [
            one
            for one in self.objects
            if all(one.get(k) in ([v] if isinstance(v, str) else v) for k, v in wanted.items())
        ]


@contextmanager
def serving(peer: Peer) -> Iterator[Peer]:
    entity = AE("PEER")
    entity.maximum_pdu_size = peer.pdu_bytes
    for syntax in peer.services:
        entity.add_supported_context(syntax)
    for sop_class in peer.takes or [str(c.abstract_syntax) for c in AllStoragePresentationContexts]:
        entity.add_supported_context(sop_class, scu_role=True, scp_role=True)
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


@pytest.fixture
def _few_syntaxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_classes, "COMPRESSED", COMPRESSED[:1])


def pulled(peer: Peer, folder: Path, patients: tuple[str, ...] = ("P0",), **select: object) -> Site:
    """Pull from the peer; the site's `done` says what came of it."""
    site = Site(folder, patients)
    with serving(peer):
        config = peer.config().model_copy(update={"select": PullSelection.model_validate(select)})
        site.pull(config)
    return site


@pytest.mark.parametrize("modality", ["US", "CT", "MR", "", "ZZ"])
def test_every_class_is_proposed_and_no_association_proposes_too_much(modality: str) -> None:
    usual = classes_of(modality)
    assert 0 < len(usual) == len(set(usual))
    every = [*proposals(usual), *further_proposals(usual)]
    assert all(len(one) <= 127 for one in every)
    proposed = {(sop_class, tuple(syntaxes)) for one in every for sop_class, syntaxes in one}
    for context in AllStoragePresentationContexts:
        for syntaxes in (UNCOMPRESSED, *COMPRESSED):
            assert (str(context.abstract_syntax), tuple(syntaxes)) in proposed


@pytest.mark.parametrize(("sop_class", "pdu_bytes"), [(US, 0), (US, 128), (UNUSUAL, 16382)])
def test_images_come_though_the_peer_does_not_say_their_class(
    tmp_path: Path, sop_class: str, pdu_bytes: int
) -> None:
    site = pulled(Peer(objects(sop_class), pdu_bytes=pdu_bytes), tmp_path)
    assert (site.done.counted.complete, site.done.counted.instances) == (1, 3)


@pytest.mark.usefixtures("_few_syntaxes")
def test_the_true_cause_is_told_where_no_class_of_the_standard_is_it(tmp_path: Path) -> None:
    with serving(Peer(objects(PRIVATE))) as peer:
        done = Site(tmp_path, ["P0"]).pull(peer.config())
        site = SiteConfig(name="north", data=tmp_path / "data", pacs=peer.config())
        (retrieval,) = [f for f in examine_pacs(site) if f.check == "retrieval"]
    ((_, told),) = done.counted.incomplete
    for text in (told, retrieval.detail):
        assert "leaves the optional SOPClassUID out" in text
        assert "title" not in text


@pytest.mark.usefixtures("_few_syntaxes")
def test_what_fails_of_a_series_keeps_none_of_the_others_away(tmp_path: Path) -> None:
    some = objects(US)
    some[1].SOPClassUID = some[1].file_meta.MediaStorageSOPClassUID = PRIVATE
    site = pulled(Peer(some), tmp_path)
    ((_, told),) = site.done.counted.incomplete
    assert told.startswith("2 of ")


@pytest.mark.parametrize(
    "omits",
    [
        {"PatientID", "AccessionNumber"},
        {"Modality", "NumberOfSeriesRelatedInstances", "StudyDate", "ModalitiesInStudy"},
        {"StudyInstanceUID"},
    ],
)
def test_a_peer_that_leaves_other_keys_out_is_understood(tmp_path: Path, omits: set[str]) -> None:
    peer = Peer(objects(US), omits=frozenset(omits))
    site = pulled(peer, tmp_path, modalities=["US"])
    # Without its UID no study can be asked for: that is said.
    whole = 0 if "StudyInstanceUID" in omits else 1
    assert site.done.counted.complete == whole
    assert any("without a valid StudyInstanceUID" in text for text in site.said) is (not whole)


def test_of_a_peer_that_answers_everybody_nothing_of_others_is_taken(tmp_path: Path) -> None:
    others = [image(noise(8, 8), patient="OTHER")]
    named = Peer([*objects(US), *others], ignores=frozenset({"PatientID"}))
    site = pulled(named, tmp_path / "named")
    assert {dcmread(path).PatientID for path in site.files().values()} == {"P0"}
    nameless = Peer(
        [*objects(US), *others], omits=frozenset({"PatientID"}), ignores=frozenset({"PatientID"})
    )
    site = pulled(nameless, tmp_path / "nameless")
    assert site.files() == {}
    assert any("answers it with everybody's" in text for text in site.said)


def test_a_study_of_another_day_is_not_taken_from_a_peer_that_ignores_days(tmp_path: Path) -> None:
    some = objects(US)
    for one in some:
        one.StudyDate = "20200101"
    assert pulled(Peer(some), tmp_path, first_day="2021-01-01").files() == {}
    assert len(pulled(Peer(some), tmp_path, first_day="2020-01-01").files()) == 3


def test_a_list_of_the_whole_study_leaves_no_series_incomplete(tmp_path: Path) -> None:
    first, second = objects(US), objects(US)
    for number, one in enumerate(second):
        one.StudyInstanceUID = first[0].StudyInstanceUID
        one.SeriesInstanceUID = f"{US}.2"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{US}.1.{number}"
    peer = Peer([*first, *second], ignores=frozenset({"SeriesInstanceUID"}))
    site = pulled(peer, tmp_path)
    assert (site.done.counted.complete, site.done.counted.instances) == (2, 6)


def test_a_series_of_which_nothing_is_listed_comes_by_its_own_uid(tmp_path: Path) -> None:
    peer = Peer(objects(US), omits=frozenset({"SOPInstanceUID"}))
    assert len(pulled(peer, tmp_path).files()) == 3


def test_a_peer_that_offers_no_c_get_is_named_so(tmp_path: Path) -> None:
    peer = Peer(objects(US), services=(FIND, "1.2.840.10008.1.1"))
    with pytest.raises(TrustRefused, match="does not take a service that is needed here"):
        pulled(peer, tmp_path)


def test_images_come_on_the_few_contexts_that_a_peer_takes(tmp_path: Path) -> None:
    site = pulled(Peer(objects(US), takes=(US,)), tmp_path)
    assert site.done.counted.complete == 1


def test_nobody_is_fetched_without_a_name_once_patients_have_withdrawn(tmp_path: Path) -> None:
    peer = Peer(objects(US), omits=frozenset({"PatientID"}))
    question = PacsQuery(
        key="StudyInstanceUID",
        value=peer.objects[0].StudyInstanceUID,
        modality="",
        first_day="",
        last_day="",
    )
    site = Site(tmp_path, [])
    site.asked = (WantedSeries(question=question, series=frozenset(), modalities=frozenset()),)
    with serving(peer):
        assert site.pull(peer.config(), withdrawn=frozenset({"W"})).counted.series == 0
        assert any("does not say whose they are" in text for text in site.said)
        assert site.pull(peer.config()).counted.complete == 1


def test_an_answer_that_cannot_be_read_ends_no_query() -> None:
    class Strange:
        def send_c_find(self, _asked: Dataset, _model: str) -> Iterator[tuple[Dataset, object]]:
            for code, match in ((0xFF00, None), (0xFF01, Dataset()), (0xB001, None), (0, None)):
                status = Dataset()
                status.Status = code
                yield status, match

    remarks: Counter[str] = Counter()
    found = ask(cast("Association", Strange()), Peer([], port=1).config(), Dataset(), remarks)
    assert len(found) == 1
    assert sum(remarks.values()) == 2


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
