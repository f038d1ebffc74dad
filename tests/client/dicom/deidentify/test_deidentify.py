from __future__ import annotations

import os
import stat
import struct
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given as given_
from hypothesis import settings, strategies
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless

import client.dicom.deidentify.deidentify as module
from client.dicom.deidentify import replaced_values as values
from client.dicom.deidentify.attribute_table import ACTIONS, Action
from client.dicom.deidentify.defined_terms import TERMS
from client.dicom.deidentify.deidentify import Dates, Profile, Released, Withheld, deidentify
from client.site.pseudonyms import Pseudonyms, pseudonyms
from common.platform.errors import ConfigurationError, StateDamaged
from tests.client.canaries import MARKS, element, file_of, planted, structure
from tests.client.dicom_files import SHARED, compressed, image, noise, placed, save, uid
from tests.client.scores import CR, CT, MR, US, faults, given

NAMES = Pseudonyms(key=b"k" * 32)
#: 4 x 4 pixels of 12 bits; their upper 4 bits and what follows them is none of the image.
PIXELS = np.arange(16, dtype="<u2")
WITH_CANARIES = (PIXELS | 0x4000).tobytes() + b"CANARY" * 4


def canary_file(folder: Path) -> Path:
    elements, counts = planted()
    assert sum(counts.count.values()) > 4500
    assert len(counts.count) > 25  # types
    # A number that the file calls a text.
    elements[0x00180050] = element(0x00180050, "LO", b"CANARY")
    path = folder / "CANARY 47110815.dcm"
    path.write_bytes(file_of({**elements, **structure(WITH_CANARIES)}))
    return path


def marks_in(content: bytes) -> list[bytes]:
    return [mark for mark in MARKS if mark in content]


def ordinary(folder: Path, kind: str, **changes: object) -> Path:
    """Write an ordinary image of a kind, as a scanner sends it."""
    one = image(noise(24, 32, top=4000), series=kind)
    if kind in {"CT", "MR"}:
        placed(one, (1.5, -20, 30))
        one.FrameOfReferenceUID, one.PositionReferenceIndicator = uid("frame"), ""
        one.SliceThickness, one.ImageType = 2, ["ORIGINAL", "PRIMARY", "AXIAL"]
    given(one, {"CT": CT, "MR": MR, "US": US, "CR": CR}[kind], kind)
    one.SeriesNumber, one.InstanceNumber, one.Manufacturer = 3, 7, "SIEMENS Healthineers"
    one.AcquisitionNumber, one.Laterality = 1, ""
    one.AcquisitionDate, one.AcquisitionTime = "20200402", "101112"
    one.BurnedInAnnotation, one.BodyPartExamined = "NO", "BREAST"
    if kind == "CT":
        one.KVP, one.RescaleSlope, one.RescaleIntercept = 120, 1, -1024
    if kind == "MR":
        one.ScanningSequence, one.SequenceVariant, one.ScanOptions = "SE", "SP", ""
        one.MRAcquisitionType, one.EchoTime, one.RepetitionTime = "2D", 12.5, 500
        one.EchoTrainLength = 1
    if kind == "US":
        one.ImageType, one.PatientOrientation = ["ORIGINAL", "PRIMARY"], ""
        one.LossyImageCompression = "00"
    if kind == "CR":
        one.ViewPosition, one.PatientOrientation = "PA", ["L", "F"]
    for name, value in changes.items():
        setattr(one, name, value)
    return save(folder / f"{kind}.dcm", one)


def released(path: Path, **wishes: object) -> tuple[Released, FileDataset]:
    found = deidentify(path, NAMES, Profile(**wishes))  # type: ignore[arg-type]
    target = path.parent / "released.dcm"
    target.write_bytes(found.content)
    return found, dcmread(target)


def test_no_canary_of_any_attribute_or_place_is_in_what_leaves(tmp_path: Path) -> None:
    path = canary_file(tmp_path)
    assert marks_in(path.read_bytes()) == [m for m in MARKS if m != b"canary"]
    found, dataset = released(path)
    assert marks_in(found.content) == []
    assert marks_in(f"{found.patient}/{found.instance}".encode()) == []
    # It is an image still, and the same one.
    assert np.array_equal(dataset.pixel_array, PIXELS.reshape(4, 4))
    assert len(dataset.PixelData) == 32
    assert dataset.preamble == b"\0" * 128


def raw_terms(name: str, value: object) -> object:
    del name
    return value


def raw_code(item: Dataset) -> list[Dataset]:
    return [item]


def raw_numbers(
    source: Dataset, tag: BaseTag, representation: str, value: object
) -> DataElement | None:
    if isinstance(value, str):
        return DataElement(tag, "LO", value)
    return NUMBERS(source, tag, representation, value)


def raw_pixels(source: Dataset, target: Dataset, _change: object = None) -> None:
    for name in (
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PixelData",
    ):
        target[name] = source[name]


def raw_uid(self: Pseudonyms, value: str) -> str:
    del self
    return value


def raw_date(self: values.Cleaner, text: str) -> str:
    del self
    return text


def raw_preamble(dataset: Dataset) -> bytes:
    return b"CANARY" + str(dataset).encode()


def never(vr: str, found: object) -> bool:
    del vr, found
    return False


def whole_items(self: values.Cleaner, source: Dataset) -> Dataset:
    """Return the dataset cleaned, and its items as they were."""
    found = CLEAN(self, source)
    for tag in found.keys():  # noqa: SIM118
        if found[tag].VR == "SQ" and ACTIONS[int(tag)] is Action.SEQUENCE:
            found[tag] = source[tag]
    return found


CLEAN, NUMBERS = values.Cleaner.dataset, values._numbers


@pytest.mark.parametrize(
    ("where", "what", "fault"),
    [
        (values, "_terms", raw_terms),
        (values, "_known_code", raw_code),
        (values, "_numbers", raw_numbers),
        (module, "clean_pixels", raw_pixels),
        (Pseudonyms, "uid", raw_uid),
        (values.Cleaner, "_date", raw_date),
        (module, "_encoded", raw_preamble),
        (values.Cleaner, "dataset", whole_items),
        (values, "_vendor", str),
        (values, "registered", bool),
        (values, "_reads_as_text", never),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_canary_gets_out_when_a_guard_is_taken_away(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    what: str,
    fault: Callable[..., object],
) -> None:
    path = canary_file(tmp_path)
    monkeypatch.setattr(where, what, fault)
    monkeypatch.setattr(module, "_check_released", lambda _source, _out: None)
    assert marks_in(deidentify(path, NAMES, Profile()).content) != []


@pytest.mark.parametrize("name", ["ProtocolName", "InstitutionName", "StationName"])
def test_a_canary_gets_out_when_an_attribute_is_let_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = canary_file(tmp_path)
    tag = tag_for_keyword(name)
    assert tag is not None
    monkeypatch.setitem(ACTIONS, tag, Action.TERM)
    monkeypatch.setitem(TERMS, name, Anything())
    assert marks_in(deidentify(path, NAMES, Profile()).content) != []


class Anything(frozenset[str]):
    def __contains__(self, item: object) -> bool:
        return True


def test_nothing_of_table_e_1_1_stays_but_what_the_options_allow() -> None:
    allowed = {
        "U": {Action.UID},
        "Z": {Action.EMPTY, Action.DATE, Action.TIME, Action.CHARACTERISTIC},
        "X": {Action.CHARACTERISTIC, Action.EMPTY},
        "D": {Action.REPLACE, Action.DATETIME},
        "Z/D": {Action.EMPTY, Action.DATE, Action.TIME, Action.REPLACE},
        "X/Z": {Action.EMPTY, Action.DATE, Action.TIME},
        "X/D": {Action.DATE, Action.TIME, Action.REPLACE},
        "X/Z/D": {Action.DATETIME, Action.REPLACE, Action.DATE, Action.TIME},
        "X/Z/U*": {Action.SEQUENCE},
    }
    lines = (Path(__file__).parents[2] / "confidential_attributes.txt").read_text().splitlines()
    table = [line.split() for line in lines if not line.startswith("#")]
    assert len(table) > 600
    wrong = [
        (keyword_for_tag(int(tag, 16)), action, ours.name)
        for tag, action in table
        if (ours := ACTIONS.get(int(tag, 16))) is not None and ours not in allowed[action]
    ]
    assert wrong == []


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["CT", "MR", "US", "CR"])
def test_an_ordinary_image_has_no_new_error_and_the_same_pixels(tmp_path: Path, kind: str) -> None:
    path = ordinary(tmp_path, kind)
    found, dataset = released(path)
    source = dcmread(path)
    assert np.array_equal(dataset.pixel_array, source.pixel_array)
    before = set(faults(path))
    assert set(faults(tmp_path / "released.dcm")) <= before
    for name in (
        "Modality",
        "PixelSpacing",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "RescaleSlope",
        "EchoTime",
        "KVP",
        "ViewPosition",
    ):
        assert dataset.get(name) == source.get(name)
    assert dataset.PatientID == dataset.PatientName == found.patient != "P1"
    assert dataset.Manufacturer == "SIEMENS"


def test_the_standards_marks_of_what_was_done_are_set(tmp_path: Path) -> None:
    _, dataset = released(ordinary(tmp_path, "CT"))
    assert dataset.PatientIdentityRemoved == "YES"
    assert "PS3.15" in str(dataset.DeidentificationMethod)
    codes = [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107"]
    assert dataset.LongitudinalTemporalInformationModified == "MODIFIED"
    _, dataset = released(
        ordinary(tmp_path, "CT", PatientAge="093Y"), dates=Dates.REMOVE, keep_characteristics=True
    )
    codes = [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113108"]
    assert dataset.LongitudinalTemporalInformationModified == "REMOVED"
    assert (dataset.PatientSex, dataset.PatientAge, dataset.StudyDate) == ("F", "090Y", "")


def test_dates_of_a_patient_move_together_and_differently_for_another(tmp_path: Path) -> None:
    def day(patient: str, date: str) -> datetime:
        _, dataset = released(ordinary(tmp_path, "CT", PatientID=patient, StudyDate=date))
        assert dataset.StudyTime == "000000"
        return datetime.strptime(dataset.StudyDate, "%Y%m%d")  # noqa: DTZ007

    first, second = day("P1", "20200131"), day("P1", "20200301")
    assert (second - first).days == 30
    assert first.year < 2020 or first.month < 2
    assert day("P2", "20200131") != first


def test_identifiers_are_the_same_for_the_same_patient_and_series_under_one_key(
    tmp_path: Path,
) -> None:
    path = ordinary(tmp_path, "CT")
    one, first = released(path)
    two, second = released(path)
    assert one == two
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    other = deidentify(path, Pseudonyms(key=b"o" * 32), Profile())
    assert (other.patient, other.instance) != (one.patient, one.instance)


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("CT", {"BurnedInAnnotation": "YES"}, "text is burned into the picture"),
        ("US", {"BurnedInAnnotation": ""}, "often has text in the picture"),
        ("MR", {"RecognizableVisualFeatures": "YES"}, "a face or the like"),
    ],
)
def test_pictures_that_may_show_a_name_are_withheld_until_a_person_looked(
    tmp_path: Path, kind: str, changes: dict[str, object], says: str
) -> None:
    path = ordinary(tmp_path, kind, **changes)
    with pytest.raises(Withheld, match=says):
        deidentify(path, NAMES, Profile())
    _, dataset = released(path, pixels_checked=True)
    assert dataset.BurnedInAnnotation == "NO"


@pytest.mark.parametrize(
    "sop_class",
    [
        "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text SR
        "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF
        "1.2.840.10008.5.1.4.1.1.9.1.1",  # 12-lead ECG
        "1.2.3.4",
    ],
)
def test_what_no_table_can_clean_is_withheld(tmp_path: Path, sop_class: str) -> None:
    one = dcmread(ordinary(tmp_path, "CT"))
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = sop_class
    with pytest.raises(Withheld, match="are not released"):
        deidentify(save(tmp_path / "other.dcm", one), NAMES, Profile(pixels_checked=True))


@pytest.mark.parametrize("name", ["Rows", "BitsStored", "PixelRepresentation", "PixelData"])
def test_a_file_that_was_cut_off_says_what_it_lacks(tmp_path: Path, name: str) -> None:
    one = dcmread(ordinary(tmp_path, "CT"))
    delattr(one, name)
    with pytest.raises(Withheld, match=f"It has no {name}; the file may be cut off"):
        deidentify(save(tmp_path / "other.dcm", one), NAMES, Profile(pixels_checked=True))


def test_a_table_of_values_is_withheld(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "US"
    table.LUTData = b"CANARY" * 50
    path = ordinary(tmp_path, "CT", ModalityLUTSequence=[table])
    with pytest.raises(Withheld, match="Modality LUT"):
        deidentify(path, NAMES, Profile())


def test_what_a_codec_carries_besides_the_image_does_not_leave(tmp_path: Path) -> None:
    pixels = noise(16, 16, dtype="uint8", top=255)
    comment = b"CANARY in a comment"
    segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
    for syntax, clean, decode in (
        (JPEGBaseline8Bit, imagecodecs.jpeg_encode(pixels, level=95), imagecodecs.jpeg_decode),
        (JPEGLSLossless, imagecodecs.jpegls_encode(pixels), imagecodecs.jpegls_decode),
    ):
        stream = clean[:2] + segment + clean[2:]
        path = save(tmp_path / "j.dcm", given(compressed(pixels, stream, syntax), CT, "CT"))
        assert path.read_bytes().count(b"CANARY") == 1
        found, dataset = released(path)
        assert marks_in(found.content) == []
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert np.array_equal(dataset.pixel_array, decode(clean))


def test_an_identifier_that_is_still_there_withholds_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ordinary(tmp_path, "CT")
    monkeypatch.setattr(Pseudonyms, "uid", raw_uid)
    with pytest.raises(Withheld, match="still in what was written"):
        deidentify(path, NAMES, Profile())


@settings(max_examples=300)
@given_(data=strategies.data())
def test_a_damaged_file_is_withheld_or_clean(
    tmp_path_factory: pytest.TempPathFactory, data: strategies.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        ordinary(folder, "MR", PatientID="CANARY47", StudyDescription="CANARY", StudyID="CANARY")
    content = bytearray((folder / "MR.dcm").read_bytes())
    for _ in range(data.draw(strategies.integers(1, 6))):
        content[data.draw(strategies.integers(140, len(content) - 1))] = data.draw(
            strategies.integers(0, 255)
        )
    (folder / "damaged.dcm").write_bytes(content)
    try:
        found = deidentify(folder / "damaged.dcm", NAMES, Profile())
    except Withheld:
        return
    assert marks_in(found.content) == []


def test_the_key_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "identity.key"
    first = pseudonyms(path)
    assert len(first.key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert pseudonyms(path) == first
    assert pseudonyms(tmp_path / "other.key") != first
    assert first.key.hex() not in repr(first)
    assert [p.name for p in path.parent.iterdir()] == ["identity.key"]
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        pseudonyms(path)
    path.chmod(0o600)
    os.truncate(path, 5)
    with pytest.raises(StateDamaged, match="from the backup"):
        pseudonyms(path)


def test_pseudonyms_have_the_form_of_what_they_stand_for() -> None:
    assert len(NAMES.patient("P1")) == 20 + 1
    assert NAMES.patient("P1").isalnum()
    assert NAMES.patient("P1") != NAMES.patient("P2")
    assert NAMES.uid("1.2.3").startswith("2.25.")
    assert len(NAMES.uid("1.2.3")) <= 64
    assert all(1 <= NAMES.days(str(n)) <= 3650 for n in range(200))


def command(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = Path(__file__).parents[4] / ".venv" / "bin" / "wardround-site"
    return subprocess.run(
        [program, "deidentify", *map(str, arguments), "--home", home],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_command_writes_what_may_leave_and_lists_what_stays(tmp_path: Path) -> None:
    data, home, out = tmp_path / "data", tmp_path / "home", tmp_path / "out"
    ordinary(data, "CT")
    ordinary(data, "US", BurnedInAnnotation="YES")
    (data / "letter.txt").write_text("Dear Jane Doe")
    home.mkdir()
    (home / "site.yaml").write_text(f"name: north\ndata: {data}\n")
    done = command(home, data, "--out", out, "--all")
    assert done.returncode == 3, done.stderr
    assert "Wrote 1 image of 1 patient" in done.stdout
    assert "burned into the picture" in done.stdout
    assert "letter.txt" in done.stdout
    (written,) = out.rglob("*.dcm")
    assert b"Doe" not in written.read_bytes()
    assert "P1" not in str(written.relative_to(out))
    checked = command(home, data, "--out", out, "--pixels-checked", "--dates", "remove")
    assert "Wrote 2 images of 1 patient" in checked.stdout
    inside = command(home, data, "--out", data / "out")
    assert inside.returncode == 2
    assert "Give a folder elsewhere" in inside.stderr
    missing = command(home, tmp_path / "nowhere", "--out", out)
    assert missing.returncode == 2
    stranger = command(tmp_path / "no home", data, "--out", out)
    assert stranger.returncode == 2
    assert not (tmp_path / "no home").exists()


@pytest.mark.needs_shared_data
def test_public_files_are_released_with_their_pixels_or_withheld(tmp_path: Path) -> None:
    written = 0
    for path in sorted((SHARED / "dicom-zoo").glob("*")):
        try:
            found = deidentify(path, NAMES, Profile(pixels_checked=True))
        except Withheld:
            continue
        written += 1
        (tmp_path / "one.dcm").write_bytes(found.content)
        dataset = dcmread(tmp_path / "one.dcm")
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.pixel_array.shape[-2:] or dataset.Rows
    assert written > 110


def test_elements_of_a_wrong_type_do_not_carry_text(tmp_path: Path) -> None:
    wrong = {
        0x00280030: element(0x00280030, "LO", b"CANARY\\CANARY"),  # PixelSpacing
        0x00200013: element(0x00200013, "UT", b"CANARY"),  # InstanceNumber
        0x00080020: element(0x00080020, "PN", b"CANARY"),  # StudyDate
        0x00080060: element(0x00080060, "LT", b"CANARY"),  # Modality
        0x52009229: element(0x52009229, "UN", b"CANARY"),  # a sequence
        0x00080018: element(0x00080018, "UI", b"1.2.3\0"),
        0x0020000D: element(0x0020000D, "UI", b"1.2.4\0"),
        0x0020000E: element(0x0020000E, "UI", b"1.2.5\0"),
    }
    path = tmp_path / "wrong.dcm"
    path.write_bytes(file_of({**structure(WITH_CANARIES), **wrong}))
    assert marks_in(deidentify(path, NAMES, Profile()).content) == []
