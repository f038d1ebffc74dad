"""Reports as HL7 v2 ORU^R01 by MLLP, with python-hl7's server as the receiver."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from client.pacs.receivers.mllp import deliver_hl7
from client.pacs.sending.delivery import State
from client.results.identity import Kind
from client.results.writing import Result, write_results
from client.site.results_section import Hl7Receiver
from common.config.parts.coded_concept import CodedConcept
from common.platform.errors import Unreachable
from tests.client.pacs.orthanc import free_port
from tests.client.pacs.receivers.hl7_receiver import Ris, ris, saying
from tests.client.scores import diagnosed, outlined, radiograph, volume

pytestmark = pytest.mark.processes


@pytest.fixture
def receiver() -> Iterator[Ris]:
    with ris() as found:
        yield found


def to(port: int, **changes: object) -> Hl7Receiver:
    return Hl7Receiver.model_validate({"host": "127.0.0.1", "port": port} | changes)


def report(folder: Path, name: str = "Doe^Jane") -> Result:
    """Return the report of a radiograph of somebody."""
    sources = radiograph(folder / "source")
    one = dcmread(sources[0])
    one.SpecificCharacterSet = "ISO_IR 192"
    one.PatientName, one.AccessionNumber = name, "A|17"
    one.save_as(sources[0])
    code = CodedConcept(value="363346000", meaning="Malignant neoplastic disease")
    score = diagnosed(sources)
    first = replace(score.quantities[0], finding=code)
    return the_report(write_results(replace(score, quantities=(first,)), folder / "out"))


def the_report(results: tuple[Result, ...]) -> Result:
    (found,) = [one for one in results if one.kind is Kind.DIAGNOSTIC_REPORT]
    return found


def test_a_report_is_taken_once_and_its_receipt_kept(receiver: Ris, tmp_path: Path) -> None:
    result = report(tmp_path)
    target = to(receiver.port, application="RIS", facility="WEST")
    assert deliver_hl7(result, target).state is State.TAKEN
    again = deliver_hl7(result, target)
    assert (again.state, again.arrived, again.detail) == (State.TAKEN_BEFORE, True, "")
    assert len(receiver.messages) == 1
    (receipt,) = result.path.parent.glob("*.hl7-receipt.json")
    assert receipt.stat().st_mode & 0o077 == 0
    # A crash between acknowledgement and receipt: sent again as it was, and filed once.
    receipt.unlink()
    assert deliver_hl7(result, target).state is State.TAKEN
    assert len(receiver.messages) == 2
    assert str(receiver.messages[0]) == str(receiver.messages[1])
    assert len(receiver.filed) == 1


def test_the_message_says_what_the_report_says(receiver: Ris, tmp_path: Path) -> None:
    result = report(tmp_path, "Müller^Jörg|A&B")
    deliver_hl7(result, to(receiver.port, application="RIS", facility="WEST"))
    (message,) = receiver.messages
    msh = message.segment("MSH")
    assert [str(msh(n)) for n in (3, 5, 6, 9, 11, 12, 18)] == [
        "WARDROUND",
        "RIS",
        "WEST",
        "ORU^R01^ORU_R01",
        "P",
        "2.5.1",
        "UNICODE UTF-8",
    ]
    assert len(str(msh(10))) == 20
    pid = message.segment("PID")
    assert message.unescape(str(pid(3))).startswith("P1")
    assert [message.unescape(str(pid(n))) for n in (5, 7, 8)] == [
        "Müller^Jörg|A&B",
        "19600101",
        "F",
    ]
    obr = message.segment("OBR")
    assert message.unescape(str(obr(3))) == "A|17"
    assert "|" not in str(obr(3)), "separators of the text are escaped"
    assert str(obr(25)) == "P"
    observed = [
        (str(s(2)), str(s(3)), str(s(4)), str(s(5)), str(s(6))) for s in message.segments("OBX")
    ]
    assert [str(s(1)) for s in message.segments("OBX")] == [
        str(n) for n in range(1, len(observed) + 1)
    ]
    assert {str(s(11)) for s in message.segments("OBX")} == {"P"}
    bundle = json.loads(result.path.read_text())
    values = [e["resource"] for e in bundle["entry"] if "valueQuantity" in e["resource"]]
    numbers = {(sub, value) for kind, _, sub, value, _ in observed if kind == "NM"}
    assert ("1", f"{values[0]['valueQuantity']['value']:.10g}") in numbers
    units = {unit for kind, *_, unit in observed if kind == "NM"}
    assert units == {"{ratio}^ratio^UCUM"}
    coded = [value for kind, *_, value, _ in observed if kind == "CWE"]
    assert coded == ["363346000^Malignant neoplastic disease^SCT"]
    texts = [message.unescape(value) for kind, *_, value, _ in observed if kind == "TX"]
    assert texts[0] == "For research use only. Not for clinical decisions."
    assert "probability of malignant: 0.812 (0.700 to 0.900)" in texts
    study = dcmread(
        result.path.with_name(result.path.name.replace("diagnostic-", "")).with_suffix(".dcm")
    ).StudyInstanceUID
    assert observed[0][:2] + observed[0][3:4] == ("ST", "113014^DICOM Study^DCM", study)


def test_outlines_are_told_by_structure(receiver: Ris, tmp_path: Path) -> None:
    result = the_report(write_results(outlined(volume(tmp_path / "s"), ("a^b&c",)), tmp_path / "o"))
    deliver_hl7(result, to(receiver.port))
    (message,) = receiver.messages
    named = [message.unescape(str(s(5))) for s in message.segments("OBX") if str(s(2)) == "ST"]
    assert "a^b&c" in named


@pytest.mark.parametrize(
    ("code", "said"),
    [("AE", "an error (AE): no order"), ("AR", "a refusal (AR): no order"), ("XX", "unknown code")],
)
def test_what_is_not_taken_is_told_and_sent_again_next_time(
    receiver: Ris, tmp_path: Path, code: str, said: str
) -> None:
    result = report(tmp_path)
    receiver.code, receiver.reason = code, "no order"
    failed = deliver_hl7(result, to(receiver.port))
    assert failed.state is State.FAILED
    assert said in failed.detail
    assert not list(result.path.parent.glob("*receipt*"))
    receiver.code = "CA"
    assert deliver_hl7(result, to(receiver.port)).state is State.TAKEN


def test_a_letter_that_the_character_set_lacks_is_not_lost(tmp_path: Path) -> None:
    result = report(tmp_path, "Müller^Ελένη")
    with ris("iso-8859-1") as receiver:
        failed = deliver_hl7(result, to(receiver.port, character_set="8859/1"))
        assert failed.state is State.FAILED
        assert "8859/1 does not have (U+0395)" in failed.detail
        other = report(tmp_path / "other", "Müller^Jörg")
        assert deliver_hl7(other, to(receiver.port, character_set="8859/1")).arrived
    (message,) = receiver.messages
    assert str(message.segment("PID")(5)) == "Müller^Jörg"
    assert str(message.segment("MSH")(18)) == "8859/1"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "no whole acknowledgement"),
        (b"\x0bMSH|^~\\&|A", "no whole acknowledgement"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no whole acknowledgement"),
        (b"\x0b" + b"x" * 70_000 + b"\x1c\x0d", "no whole acknowledgement"),
        (b"\x0bnothing\x1c\x0d", "no HL7 acknowledgement"),
        (b"\x0bMSH|^~\\&|A\r\x1c\x0d", "no HL7 acknowledgement"),
    ],
)
def test_what_is_no_acknowledgement_is_waited_for(tmp_path: Path, answer: bytes, said: str) -> None:
    result = report(tmp_path)
    with saying(lambda _: answer) as port, pytest.raises(Unreachable, match=said):
        deliver_hl7(result, to(port))
    assert not list(result.path.parent.glob("*receipt*"))


def test_an_acknowledgement_of_another_message_is_none_of_ours(tmp_path: Path) -> None:
    result = report(tmp_path)
    other = b"\x0bMSH#^~\\&#RIS\rMSA#AA#another\r\x1c\x0d"  # with a separator of its own
    with saying(lambda _: other) as port:
        failed = deliver_hl7(result, to(port))
    assert failed.state is State.FAILED
    assert "acknowledged the message 'another'" in failed.detail


def test_a_receiver_that_is_not_there_or_speaks_no_tls_is_told(
    receiver: Ris, tmp_path: Path
) -> None:
    result = report(tmp_path)
    with pytest.raises(Unreachable, match="is not reached"):
        deliver_hl7(result, to(free_port()))
    with pytest.raises(Unreachable, match="does not answer in time"):  # to TLS it says nothing
        deliver_hl7(result, to(receiver.port, tls=True, timeout_seconds=1))
    silent = to(receiver.port, timeout_seconds=0.2)
    with (
        saying(lambda _: time.sleep(1) or b"") as port,
        pytest.raises(Unreachable, match="does not answer in time"),
    ):
        deliver_hl7(result, silent.model_copy(update={"port": port}))
