from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from client.dicom.codec.codestream import shape_of
from client.dicom.codec.compressed import in_stored_bits
from client.dicom.reading import parse
from client.dicom.reading.read import read_dataset, read_header, read_pixels
from client.dicom.reading.rescale import Pixels
from client.dicom.reasons import Reason, UnusableFile
from tests.client.dicom_files import Values, compressed, image, noise, save, uid

JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
JPEG_LS, J2K_LOSSLESS = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"


def read_back(path: Path) -> Pixels:
    dataset = read_dataset(path)
    read_header(dataset)
    return read_pixels(dataset)


def reason_of(path: Path) -> Reason:
    with pytest.raises(UnusableFile) as caught:
        read_back(path)
    return caught.value.reason


def lossless_jpeg(values: Values) -> bytes:
    return bytes(imagecodecs.ljpeg_encode(values))


def jpeg_ls(values: Values) -> bytes:
    return bytes(imagecodecs.jpegls_encode(values))


def jpeg_2000(values: Values) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat="J2K", reversible=True))


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEG_LOSSLESS, lossless_jpeg),
        (JPEG_LOSSLESS_SV1, lossless_jpeg),
        (JPEG_LS, jpeg_ls),
        (J2K_LOSSLESS, jpeg_2000),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_lossless_syntaxes_give_back_every_value(
    tmp_path: Path, syntax: str, encode: Callable[[Values], bytes], dtype: str
) -> None:
    values = noise(24, 32, dtype=dtype, top=200)
    path = save(tmp_path / "x", compressed(values, encode(values), syntax))
    assert np.array_equal(read_back(path).stored[0], values)


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS_SV1, JPEG_LS])
def test_signed_values_are_signed_after_decoding(tmp_path: Path, syntax: str) -> None:
    values = noise(24, 32, top=4000).astype(np.int16) - np.int16(2000)
    bits = values.view(np.uint16)
    frame = lossless_jpeg(bits) if syntax == JPEG_LOSSLESS_SV1 else jpeg_ls(bits)
    path = save(tmp_path / "x", compressed(values, frame, syntax))
    assert np.array_equal(read_back(path).stored[0], values)


@pytest.mark.parametrize("stored", range(9, 17))
def test_twos_complement_of_fewer_bits_than_allocated_is_signed(stored: int) -> None:
    values = np.array([-(2 ** (stored - 1)), -1, 0, 2 ** (stored - 1) - 1], np.int16)
    kept = (values.view(np.uint16) & np.uint16(2**stored - 1)).view(np.int16)
    assert np.array_equal(in_stored_bits(kept, stored, stored - 1), values)


def test_lossy_jpeg_of_12_bits_is_near(tmp_path: Path) -> None:
    values = np.add.outer(np.arange(32), np.arange(24)).astype(np.uint16) * 50
    frame = imagecodecs.jpeg_encode(values, level=98, bitspersample=12)
    dataset = compressed(values, bytes(frame), JPEG_EXTENDED)
    dataset.BitsStored, dataset.HighBit = 12, 11
    found = read_back(save(tmp_path / "x", dataset)).stored[0].astype(int)
    assert np.abs(found - values).max() < 40


def test_jpeg_colour_comes_out_as_rgb(tmp_path: Path) -> None:
    values = np.zeros((16, 16, 3), np.uint8)
    values[..., 0], values[:, 8:, 1] = 200, 100
    coded = io.BytesIO()
    Image.fromarray(values).save(coded, "JPEG", quality=98, subsampling=0)
    dataset = compressed(values, coded.getvalue(), JPEG_BASELINE)
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    found = read_back(save(tmp_path / "x", dataset)).stored[0].astype(int)
    assert np.abs(found - values).max() < 12


def test_uncompressed_ybr_becomes_rgb(tmp_path: Path) -> None:
    dataset = image(np.full((8, 8, 3), (76, 85, 255), np.uint8))  # red, Rec. 601
    dataset.PhotometricInterpretation = "YBR_FULL"
    found = read_back(save(tmp_path / "x", dataset)).stored[0, 0, 0].astype(int)
    assert np.abs(found - [255, 0, 0]).max() < 3


def test_lossless_ybr_becomes_rgb(tmp_path: Path) -> None:
    values = np.full((8, 8, 3), (76, 85, 255), np.uint8)
    values[0, 0] = 0, 128, 128
    dataset = compressed(values, jpeg_ls(values), JPEG_LS)
    dataset.PhotometricInterpretation = "YBR_FULL"
    found = read_back(save(tmp_path / "x", dataset)).stored[0].astype(int)
    assert np.abs(found[4, 4] - [255, 0, 0]).max() < 3
    assert np.abs(found[0, 0]).max() < 3


def test_colour_by_plane_is_brought_together(tmp_path: Path) -> None:
    values = noise(8, 8, 3, dtype="uint8", top=255)
    dataset = image(values)
    dataset.PlanarConfiguration = 1
    dataset.PixelData = np.moveaxis(values, -1, 0).tobytes()
    assert np.array_equal(read_back(save(tmp_path / "x", dataset)).stored[0], values)


def test_palette_colour_comes_out_as_rgb(tmp_path: Path) -> None:
    dataset = image(np.array([[0, 1], [1, 0]], np.uint8))
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    for color, entries in (("Red", [10, 20]), ("Green", [30, 40]), ("Blue", [50, 60])):
        setattr(dataset, f"{color}PaletteColorLookupTableDescriptor", [2, 0, 8])
        setattr(dataset, f"{color}PaletteColorLookupTableData", bytes(entries))
    found = read_back(save(tmp_path / "x", dataset)).stored[0]
    assert found.tolist() == [[[10, 30, 50], [20, 40, 60]], [[20, 40, 60], [10, 30, 50]]]


@pytest.mark.parametrize("unit", [257, 1])  # some writers fill the lower 8 of 16 bits alone
def test_a_palette_of_16_bits_comes_out_as_the_same_colours(tmp_path: Path, unit: int) -> None:
    dataset = image(np.array([[0, 1], [1, 0]], np.uint8))
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    for color, entries in (("Red", [10, 20]), ("Green", [30, 40]), ("Blue", [50, 60])):
        setattr(dataset, f"{color}PaletteColorLookupTableDescriptor", [2, 0, 16])
        table = (np.array(entries) * unit).astype("<u2").tobytes()
        setattr(dataset, f"{color}PaletteColorLookupTableData", table)
    found = read_back(save(tmp_path / "x", dataset)).stored[0]
    assert found.dtype == np.uint8
    assert found.tolist() == [[[10, 30, 50], [20, 40, 60]], [[20, 40, 60], [10, 30, 50]]]


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_native_syntaxes_give_the_same_values(tmp_path: Path, syntax: str) -> None:
    values = noise(9, 7)
    dataset = image(values)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = values.astype(">u2").tobytes()
    dataset["PixelData"].VR = "OW"
    assert np.array_equal(read_back(save(tmp_path / "x", dataset)).stored[0], values)


def test_rescale_gives_quantities_and_keeps_stored_values(tmp_path: Path) -> None:
    values = noise(8, 8)
    dataset = image(values)
    dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-1024"
    found = read_back(save(tmp_path / "x", dataset))
    assert found.stored.dtype == np.uint16
    assert np.array_equal(found.values(0), values.astype(np.float32) * 2 - 1024)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_monochrome1_turns_dark_to_bright_by_the_header_alone(tmp_path: Path, dtype: str) -> None:
    values = noise(8, 8, dtype=dtype)
    dataset = image(values)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.RescaleSlope, dataset.RescaleIntercept = "2", "10"
    turned = 65535 - values.astype(float) if dtype == "uint16" else -1 - values.astype(float)
    found = read_back(save(tmp_path / "x", dataset))
    assert np.array_equal(found.values(0), (2 * turned + 10).astype(np.float32))


def test_a_modality_lut_is_applied(tmp_path: Path) -> None:
    dataset = image(np.array([[0, 1], [2, 3]], np.uint8))
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4, 0, 16], "US"
    table.add_new("LUTData", "US", [100, 300, 200, 1000])
    dataset.ModalityLUTSequence = Items([table])
    found = read_back(save(tmp_path / "x", dataset)).values(0)
    assert found.tolist() == [[100, 300], [200, 1000]]


def test_each_frame_of_an_enhanced_object_has_its_own_line_and_place(tmp_path: Path) -> None:
    values = noise(3, 8, 8)
    dataset = image(values)
    groups = []
    for frame in range(3):
        line, place, group = Dataset(), Dataset(), Dataset()
        line.RescaleSlope, line.RescaleIntercept = str(frame + 1), str(10 * frame)
        place.ImagePositionPatient = [0.0, 0.0, 3.0 * frame]
        group.PixelValueTransformationSequence = Items([line])
        group.PlanePositionSequence = Items([place])
        groups.append(group)
    turn, measures, shared = Dataset(), Dataset(), Dataset()
    turn.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.5, 0.5]
    shared.PlaneOrientationSequence = Items([turn])
    shared.PixelMeasuresSequence = Items([measures])
    dataset.PerFrameFunctionalGroupsSequence = Items(groups)
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    parsed = read_dataset(save(tmp_path / "x", dataset))
    found, header = read_pixels(parsed), read_header(parsed)
    for frame in range(3):
        expected = values[frame].astype(np.float32) * (frame + 1) + 10 * frame
        assert np.array_equal(found.values(frame), expected)
    assert [p[2] for p in header.positions] == [0, 3, 6]
    assert header.spacing == (0.5, 0.5)


@given(
    slope=st.floats(-10, 10).filter(lambda s: s != 0),
    intercept=st.floats(-2000, 2000),
    start=st.integers(0, 5),
    stop=st.integers(6, 9),
)
def test_a_patch_is_that_part_of_the_whole(
    slope: float, intercept: float, start: int, stop: int
) -> None:
    stored = noise(4, 10, 10)
    pixels = Pixels(stored=stored, slope=np.full(4, slope), intercept=np.full(4, intercept))
    whole = np.stack([pixels.values(frame) for frame in range(4)])
    where = slice(1, 3), slice(start, stop), slice(start, None)
    assert np.array_equal(pixels.patch(where), whole[where])


def test_quantities_of_floats_leave_the_stored_values_alone() -> None:
    stored = np.ones((1, 4, 4), np.float32)
    Pixels(stored=stored, slope=np.array([3.0]), intercept=np.array([1.0])).values(0)
    assert (stored == 1).all()


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    values = noise(8, 8)
    path = save(tmp_path / "whole", image(values))
    bare = tmp_path / "bare"
    bare.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(read_back(bare).stored[0], values)


def test_a_file_without_transfer_syntax_is_read_when_it_is_native(tmp_path: Path) -> None:
    values = noise(8, 8)
    dataset = image(values)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    path = tmp_path / "x"
    meta = dcmread(io.BytesIO(content.getvalue())).file_meta.FileMetaInformationGroupLength
    path.write_bytes(content.getvalue()[132 + 12 + meta :])
    assert np.array_equal(read_back(path).stored[0], values)


def _without(name: str) -> Callable[[FileDataset], None]:
    return lambda dataset: delattr(dataset, name)


def _set(name: str, value: object) -> Callable[[FileDataset], None]:
    return lambda dataset: setattr(dataset, name, value)


def _syntax(syntax: str) -> Callable[[FileDataset], None]:
    def change(dataset: FileDataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without("PixelData"), Reason.NO_PIXELS),
        (_without("Rows"), Reason.MISSING_HEADER),
        (_without("PhotometricInterpretation"), Reason.MISSING_HEADER),
        (_set("PixelData", b"\0\0"), Reason.TRUNCATED_PIXELS),
        (_set("NumberOfFrames", 2), Reason.TRUNCATED_PIXELS),
        (_set("Rows", 65535), Reason.TRUNCATED_PIXELS),
        (_set("NumberOfFrames", 2**31 - 1), Reason.TOO_LARGE),
        (_set("SOPClassUID", "1.2.840.10008.1.3.10"), Reason.DICOMDIR),
        (_set("SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.4"), Reason.SEGMENTATION),
        (_set("BitsAllocated", 13), Reason.DECODE_ERROR),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, change: Callable[[FileDataset], None], reason: Reason
) -> None:
    dataset = image(noise(8, 8))
    change(dataset)
    assert reason_of(save(tmp_path / "x", dataset)) is reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"PatientID,ill\nP1,1\n", Reason.NOT_DICOM),
        (b"\0" * 128 + b"DICM", Reason.NO_PIXELS),
        (bytes(range(256)) * 20, Reason.NOT_DICOM),
    ],
)
def test_what_is_not_dicom_says_so(tmp_path: Path, content: bytes, reason: Reason) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    assert reason_of(path) is reason


def test_a_syntax_without_decoder_is_named(tmp_path: Path) -> None:
    values = noise(8, 8)
    path = save(tmp_path / "x", compressed(values, b"\0" * 64, "1.2.840.10008.1.2.4.100"))
    assert reason_of(path) is Reason.UNSUPPORTED_TS


def test_a_value_against_its_type_is_a_bad_vr(tmp_path: Path) -> None:
    path = save(tmp_path / "x", image(noise(2, 8, 8)))
    content = path.read_bytes()
    assert b"IS\x02\x002 " in content
    path.write_bytes(content.replace(b"IS\x02\x002 ", b"IS\x02\x001A"))
    assert reason_of(path) is Reason.BAD_VR


def jpeg(values: Values) -> bytes:
    return bytes(imagecodecs.jpeg_encode(values.astype(np.uint8)))


def jpeg_12_bits(values: Values) -> bytes:
    return bytes(imagecodecs.jpeg_encode(values, level=95, bitspersample=12))


@pytest.mark.parametrize(
    ("syntax", "encode", "reason"),
    [
        (JPEG_BASELINE, jpeg, Reason.TRUNCATED_PIXELS),
        (JPEG_EXTENDED, jpeg_12_bits, Reason.TRUNCATED_PIXELS),
        (JPEG_LOSSLESS_SV1, lossless_jpeg, Reason.TRUNCATED_PIXELS),
        (JPEG_LS, jpeg_ls, Reason.TRUNCATED_PIXELS),
        (J2K_LOSSLESS, jpeg_2000, Reason.TRUNCATED_PIXELS),
    ],
)
def test_a_truncated_frame_is_refused_not_filled_up(
    tmp_path: Path, syntax: str, encode: Callable[[Values], bytes], reason: Reason
) -> None:
    values = noise(64, 64, dtype="uint8" if syntax == JPEG_BASELINE else "uint16", top=200)
    frame = encode(values)
    path = save(tmp_path / "x", compressed(values, frame[: len(frame) // 2], syntax))
    assert reason_of(path) is reason


@pytest.mark.parametrize("encode", [lossless_jpeg, jpeg_ls, jpeg_2000])
def test_a_frame_says_its_own_size(encode: Callable[[Values], bytes]) -> None:
    assert shape_of(encode(noise(24, 32))) == (24, 32, 1)


def test_a_frame_larger_than_its_header_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(frame: bytes) -> None:
        pytest.fail(f"decoded {len(frame)} bytes")

    monkeypatch.setattr(imagecodecs, "jpegls_decode", forbidden)
    large = jpeg_ls(noise(512, 512))
    path = save(tmp_path / "x", compressed(noise(8, 8), large, JPEG_LS))
    assert reason_of(path) is Reason.DECODE_ERROR


def test_bytes_like_a_codestream_inside_rle_are_no_size(tmp_path: Path) -> None:
    header = b"\1\0\0\0\x40\0\0\0" + b"\0" * 56
    row = b"\x07\xff\x4f\xff\x51\0\0\0\0"  # a run of 8 literal bytes
    values = np.tile(np.array([255, 79, 255, 81, 0, 0, 0, 0], np.uint8), (8, 1))
    path = save(tmp_path / "x", compressed(values, header + row * 8, "1.2.840.10008.1.2.5"))
    assert np.array_equal(read_back(path).stored[0], values)


def test_a_deflated_bomb_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse, "LARGEST_BYTES", 1 << 20)
    path = save(tmp_path / "x", image(noise(8, 8)))
    meta = dcmread(path).file_meta
    content = path.read_bytes()
    start = 132 + 12 + meta.FileMetaInformationGroupLength
    syntax = b"1.2.840.10008.1.2.1\0"
    head = content[:start].replace(b"UI\x14\0" + syntax, b"UI\x16\0" + b"1.2.840.10008.1.2.1.99")
    assert len(head) == start + 2
    head = head[:140] + (meta.FileMetaInformationGroupLength + 2).to_bytes(4, "little") + head[144:]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(b"\0" * (1 << 24)) + deflater.flush()
    path.write_bytes(head + bomb)
    assert path.stat().st_size < 1 << 17
    assert reason_of(path) is Reason.TOO_LARGE


def test_header_names_are_trimmed_and_geometry_is_all_or_nothing(tmp_path: Path) -> None:
    dataset = image(noise(8, 8), patient="P1 ")
    dataset.ImagePositionPatient = [0.0, 0.0, 1.0]
    header = read_header(read_dataset(save(tmp_path / "x", dataset)))
    assert header.patient == "P1"
    assert header.positions == header.orientations == ()
    assert header.series == uid("P1 ", "S1", "1")
