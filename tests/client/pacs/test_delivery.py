from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom
import httpx
import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import RLELossless

from client.dicom.index.copies import differences
from client.pacs.sending.delivery import Delivered, State, deliver
from client.pacs.sending.failure_reasons import is_stored, why_refused
from client.results.codes import own
from client.results.identity import Kind
from client.results.writing import Result, write_results
from client.site.pacs_section import PacsConfig
from common.platform.errors import TrustRefused, Unreachable, WardroundError
from tests.client.pacs.orthanc import Pacs, orthanc
from tests.client.scores import diagnosed, hippocampus, numbered, outlined, ultrasound, volume

pytestmark = pytest.mark.processes

ROUTES = ("dicomweb", "c-get")


def config(pacs: Pacs, route: str, **changes: object) -> PacsConfig:
    return PacsConfig.model_validate(
        {
            "route": route,
            "url": pacs.url,
            "user": pacs.user,
            "password_file": pacs.password_file,
            "host": "127.0.0.1",
            "port": pacs.dicom_port,
            "called_title": pacs.called_title,
            "own_port": 11112,
            **changes,
        }
    )


def states(delivered: Sequence[Delivered]) -> list[State]:
    return [one.state for one in delivered]


def stored_instances(pacs: Pacs) -> int:
    found = pacs.rest("/statistics")
    assert isinstance(found, Mapping)
    return int(found["CountInstances"])


def dicom(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.sop_instance is not None]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Pacs]:
    with orthanc(tmp_path / "pacs", peers={"WARDROUND": ("127.0.0.1", 11112)}) as running:
        yield running


@pytest.mark.slow
@pytest.mark.needs_shared_data
@pytest.mark.parametrize("route", ROUTES)
def test_results_are_stored_and_the_pacs_copy_says_what_the_score_says(
    tmp_path: Path, empty: Pacs, route: str
) -> None:
    score = hippocampus()
    results = write_results(score, tmp_path / "out")
    empty.store(score.sources)
    delivered = deliver(results, config(empty, route))
    assert states(delivered) == [State.STORED] * 3
    assert all(one.arrived and not one.detail for one in delivered)
    copies = {r.kind: empty.file(str(r.sop_instance)) for r in dicom(results)}
    for result in dicom(results):
        copy = dcmread(BytesIO(copies[result.kind]))
        assert differences(dcmread(result.path), copy) == []
    assert score.outlines is not None
    segmentation = highdicom.seg.segread(BytesIO(copies[Kind.SEGMENTATION]))
    pixels = segmentation.get_pixels_by_source_instance(
        [dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in score.sources],
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(pixels, score.outlines.labels)
    report = highdicom.sr.srread(BytesIO(copies[Kind.REPORT]))
    sizes = [
        group.get_measurements()[0].value
        for group in report.content.get_volumetric_roi_measurement_groups()
    ]
    assert sizes == [np.count_nonzero(score.outlines.labels == number) for number in (1, 2)]
    # The study lists its images and our three series, as one study of one patient.
    found = empty.rest("/statistics")
    assert isinstance(found, Mapping)
    assert (found["CountStudies"], found["CountPatients"], found["CountSeries"]) == (1, 1, 4)


@pytest.mark.slow
@pytest.mark.parametrize("route", [*ROUTES, "c-move"])
def test_numbers_of_a_diagnosis_are_those_of_the_score_in_the_pacs_copy(
    tmp_path: Path, empty: Pacs, route: str
) -> None:
    score = diagnosed(ultrasound(tmp_path / "source"))
    results = write_results(score, tmp_path / "out")
    assert states(deliver(results, config(empty, route))) == [State.STORED] * 2
    report = highdicom.sr.srread(BytesIO(empty.file(str(results[0].sop_instance))))
    (group,) = report.content.get_image_measurement_groups()
    found = {m.name.meaning: m.value for m in group.get_measurements() if m.derivation is None}
    assert {q.meaning: q.value for q in score.quantities}.items() <= found.items()


@pytest.mark.slow
def test_a_number_keeps_value_and_unit_in_the_pacs_copy(tmp_path: Path, empty: Pacs) -> None:
    score = numbered(ultrasound(tmp_path / "source"))
    results = write_results(score, tmp_path / "out")
    assert states(deliver(results, config(empty, ROUTES[0]))) == [State.STORED] * 2
    report = highdicom.sr.srread(BytesIO(empty.file(str(results[0].sop_instance))))
    (group,) = report.content.get_image_measurement_groups()
    (number,) = [
        m
        for m in group.get_measurements(highdicom.sr.CodedConcept.from_code(own("predicted ef")))
        if m.derivation is None
    ]
    assert (number.value, number.unit.value) == (52.25, "%")


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_sending_twice_stores_once_even_when_it_was_written_again_elsewhere(
    tmp_path: Path, empty: Pacs, route: str
) -> None:
    score = outlined(volume(tmp_path / "source"))
    first = write_results(score, tmp_path / "one")
    assert states(deliver(first, config(empty, route))) == [State.STORED] * 3
    time.sleep(1.1)  # another second of writing
    again = write_results(score, tmp_path / "two")
    one, two = (dcmread(found[1].path).ContentTime for found in (first, again))
    assert one != two
    assert states(deliver(again, config(empty, route))) == [State.ALREADY_THERE] * 3
    assert stored_instances(empty) == 3


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_another_object_under_a_results_uid_is_noticed(
    tmp_path: Path, empty: Pacs, route: str
) -> None:
    results = write_results(outlined(volume(tmp_path / "source")), tmp_path / "out")
    changed = dcmread(results[0].path)
    changed.PixelData = bytes([changed.PixelData[0] ^ 1]) + changed.PixelData[1:]
    changed.PatientName = "Somebody^Else"
    dcmwrite(tmp_path / "changed.dcm", changed)
    empty.store([tmp_path / "changed.dcm"])
    delivered = deliver(results, config(empty, route))
    assert states(delivered) == [State.CHANGED, State.STORED, State.STORED]
    assert "PatientName, PixelData" in delivered[0].detail
    assert not delivered[0].arrived


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_a_copy_that_the_pacs_compressed_without_loss_is_equal(
    tmp_path: Path, empty: Pacs, route: str
) -> None:
    results = write_results(diagnosed(ultrasound(tmp_path / "source")), tmp_path / "out")
    (picture,) = [result for result in results if result.kind is Kind.CAPTURE]
    copy = dcmread(picture.path)
    copy.compress(RLELossless, generate_instance_uid=False)
    dcmwrite(tmp_path / "copy.dcm", copy)
    empty.store([tmp_path / "copy.dcm"])
    assert states(deliver([picture], config(empty, route))) == [State.ALREADY_THERE]


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_a_file_that_was_damaged_is_not_sent_and_the_others_are(
    tmp_path: Path, empty: Pacs, route: str
) -> None:
    results = write_results(outlined(volume(tmp_path / "source")), tmp_path / "out")
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(results[0].path.read_bytes()[:400])
    damaged = (replace(results[0], path=broken), *results[1:])
    delivered = deliver(damaged, config(empty, route))
    assert states(delivered) == [State.FAILED, State.STORED, State.STORED]
    assert "Score the study again" in delivered[0].detail


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_an_object_that_the_pacs_refuses_does_not_hold_up_the_others(
    tmp_path: Path, route: str
) -> None:
    rule = tmp_path / "rule.lua"
    rule.write_text("function ReceivedInstanceFilter(dicom) return dicom.Modality ~= 'SEG' end\n")
    results = write_results(outlined(volume(tmp_path / "source")), tmp_path / "out")
    peers = {"WARDROUND": ("127.0.0.1", 11112)}
    settings = {"LuaScripts": [str(rule)]}
    with orthanc(tmp_path / "pacs", peers=peers, settings=settings) as picky:
        delivered = deliver(results, config(picky, route))
        assert states(delivered) == [State.FAILED, State.STORED, State.STORED]
        assert "Ask the PACS team" in delivered[0].detail or "ask the PACS" in delivered[0].detail
        assert stored_instances(picky) == 2


@pytest.mark.slow
def test_a_wrong_password_is_said_before_anything_is_sent(tmp_path: Path, empty: Pacs) -> None:
    results = write_results(diagnosed(ultrasound(tmp_path / "source")), tmp_path / "out")
    wrong = tmp_path / "wrong"
    wrong.write_text("not it\n")
    wrong.chmod(0o600)
    with pytest.raises(TrustRefused, match="does not take the password"):
        deliver(results, config(empty, "dicomweb", password_file=wrong))
    assert stored_instances(empty) == 0


@pytest.mark.slow
def test_a_title_that_the_pacs_does_not_know_stores_nothing_and_says_so(
    tmp_path: Path, empty: Pacs
) -> None:
    results = write_results(diagnosed(ultrasound(tmp_path / "source")), tmp_path / "out")
    with pytest.raises(WardroundError, match="Ask the PACS team"):
        deliver(results, config(empty, "c-get", own_title="STRANGER"))
    assert stored_instances(empty) == 0


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_a_pacs_that_is_not_there_is_unreachable(tmp_path: Path, empty: Pacs, route: str) -> None:
    results = write_results(diagnosed(ultrasound(tmp_path / "source")), tmp_path / "out")
    empty.kill()
    with pytest.raises(Unreachable):
        deliver(results, config(empty, route))


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_a_pacs_killed_while_we_send_is_completed_by_sending_again_without_doubles(
    tmp_path: Path, empty: Pacs, route: str
) -> None:
    results: list[Result] = []
    for number in range(6):
        sources = volume(tmp_path / f"source {number}")
        score = replace(outlined(sources), unlike_training=number / 100)
        results += dicom(write_results(score, tmp_path / "out"))
    killer = threading.Thread(target=_kill_when, args=(empty, 4), daemon=True)
    killer.start()
    with pytest.raises(WardroundError):
        deliver_one_by_one(results, config(empty, route))
    killer.join()
    empty.start_again()
    before = stored_instances(empty)
    assert 0 < before < len(results)
    delivered = deliver(results, config(empty, route))
    assert {State.STORED, State.ALREADY_THERE} == set(states(delivered))
    assert states(delivered).count(State.ALREADY_THERE) == before
    assert stored_instances(empty) == len(results)


def deliver_one_by_one(results: Sequence[Result], pacs: PacsConfig) -> None:
    for result in results:
        deliver([result], pacs)


def _kill_when(pacs: Pacs, stored: int) -> None:
    while True:
        # A busy PACS sometimes closes a connection unanswered.
        with contextlib.suppress(httpx.TransportError):
            if stored_instances(pacs) >= stored:
                break
        time.sleep(0.005)
    pacs.kill()


def test_statuses_are_explained() -> None:
    assert is_stored(0x0000)
    assert is_stored(0xB000)
    assert not is_stored(0xA700)
    assert "no room" in why_refused(0xA7FF)
    assert "cannot understand" in why_refused(0xC123)
    assert "Explicit VR" in why_refused(0xC122)
    assert "class" in why_refused(0x0122)
    assert "0x4711" in why_refused(0x4711)
    assert "no reason" in why_refused(None)
