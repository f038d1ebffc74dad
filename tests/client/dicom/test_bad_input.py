"""Every bad input that hospitals are known to have: its code, and never a wrong volume in silence.

Where other readers go wrong on these was measured with MONAI 1.6.1: PydicomReader merges two
series, fakes the spacing over missing slices, and reads palettes as intensities.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, MediaStorageDirectoryStorage, generate_uid

from client.dicom.index.index import Index
from client.dicom.index.series_remarks import series_remarks
from client.dicom.reading import parse
from client.dicom.reasons import Reason
from client.dicom.remarks import Remark
from client.readiness.kinds import remarks
from tests.client.bad_folders import VOLUME, enhanced, outcome_of, quantities, series, write
from tests.client.dicom_files import compressed, image, noise, placed, save

Build = Callable[[Path], object]


def test_a_good_series_is_one_volume_with_its_geometry(tmp_path: Path) -> None:
    write(tmp_path / "site", series())
    found = outcome_of(tmp_path / "site")
    (volume,) = found.images
    assert np.array_equal(volume.values, quantities())
    assert volume.geometry is not None
    expected = [[0, 0, 0.7, 0], [0, 0.5, 0, 0], [1.5, 0, 0, 0], [0, 0, 0, 1]]
    assert np.allclose(volume.geometry.affine, expected)
    assert found.reasons == Counter()


# --- series that are no volume: (what is written, the reasons for all of it) -----------------


def _without(*places: int) -> Build:
    return lambda site: write(site, [d for n, d in enumerate(series()) if n not in places])


def _changed(place: int, **values: object) -> Build:
    def build(site: Path) -> None:
        datasets = series()
        for name, value in values.items():
            setattr(datasets[place], name, value)
        write(site, datasets)

    return build


def _twice_at_one_place(site: Path) -> None:
    datasets = series()
    datasets.append(placed(image(noise(8, 9, seed=5), number=99), (0, 0, 4.5)))
    datasets[-1].StudyInstanceUID = datasets[0].StudyInstanceUID
    datasets[-1].SeriesInstanceUID = datasets[0].SeriesInstanceUID
    write(site, datasets)


def _phases(site: Path) -> None:
    for phase in range(4):
        for number, dataset in enumerate(series(noise(3, 8, 9, seed=phase))):
            unique = generate_uid(entropy_srcs=[f"{phase} {number}"])
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = unique
            save(site / f"{phase}-{number}", dataset)


def _one_of_another_size(site: Path) -> None:
    datasets = series()
    odd = placed(image(noise(5, 5), "P1", "study of P1", "1", 6), (0, 0, 9.0))
    write(site, [*datasets[:6], odd, *datasets[7:]])


def _without_geometry(site: Path) -> None:
    datasets = series()
    for dataset in datasets:
        del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
    write(site, datasets)


def _with_an_empty_slice(place: int) -> Build:
    def build(site: Path) -> None:
        write(site, series())
        (site / f"{place:03d}.dcm").write_bytes(b"")

    return build


def _with_a_cut_slice(place: int, part: float) -> Build:
    def build(site: Path) -> None:
        path = write(site, series(noise(12, 64, 64)))[place]
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * part)])

    return build


def _with_a_broken_codestream(site: Path) -> None:
    datasets = series()
    frame = bytearray(imagecodecs.jpegls_encode(VOLUME[4].astype(np.uint16)))
    broken = compressed(VOLUME[4], bytes(frame[: len(frame) // 2]), "1.2.840.10008.1.2.4.80")
    for name in ("SeriesInstanceUID", "StudyInstanceUID", "ImagePositionPatient"):
        setattr(broken, name, getattr(datasets[4], name))
    for name in ("ImageOrientationPatient", "PixelSpacing", "Modality"):
        setattr(broken, name, getattr(datasets[4], name))
    write(site, [*datasets[:4], broken, *datasets[5:]])


def _two_patients(site: Path) -> None:
    datasets = series()
    datasets[3].PatientID = "P2"
    write(site, datasets)


SAGITTAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("build", "reasons"),
    [
        (_without(4, 7), {Reason.MISSING_SLICES: 1}),
        (_twice_at_one_place, {Reason.DUP_POSITION: 1}),
        (_phases, {Reason.MULTI_PHASE: 1}),
        (_changed(5, ImageOrientationPatient=SAGITTAL), {Reason.MIXED_ORIENTATION: 1}),
        (_changed(5, ImagePositionPatient=[0.0, 0.0, 8.1]), {Reason.NONUNIFORM_SPACING: 1}),
        (_changed(5, PixelSpacing=[0.5, 0.8]), {Reason.MIXED_MATRIX: 1}),
        (_changed(5, ImagePositionPatient=None), {Reason.NO_GEOMETRY: 1}),
        (_one_of_another_size, {Reason.MIXED_MATRIX: 1}),
        (_without_geometry, {Reason.NO_GEOMETRY: 1}),
        (_with_an_empty_slice(5), {Reason.EMPTY_FILE: 1, Reason.INCOMPLETE_SERIES: 1}),
        (_with_an_empty_slice(11), {Reason.EMPTY_FILE: 1, Reason.INCOMPLETE_SERIES: 1}),
        (_with_a_cut_slice(5, 0.7), {Reason.TRUNCATED_PIXELS: 1, Reason.INCOMPLETE_SERIES: 1}),
        (_with_a_cut_slice(0, 0.99), {Reason.TRUNCATED_PIXELS: 1, Reason.INCOMPLETE_SERIES: 1}),
        (_with_a_broken_codestream, {Reason.TRUNCATED_PIXELS: 1, Reason.INCOMPLETE_SERIES: 1}),
        (_two_patients, {Reason.PATIENT_MISMATCH: 1}),
        (_without(*range(1, 12)), {Reason.TOO_FEW_SLICES: 1}),
        (_changed(5, SeriesInstanceUID=""), {Reason.MISSING_SLICES: 1, Reason.MISSING_HEADER: 1}),
    ],
)
def test_a_series_that_is_no_volume_is_refused_with_its_reason(
    build: Build, reasons: dict[Reason, int], tmp_path: Path
) -> None:
    build(tmp_path / "site")
    found = outcome_of(tmp_path / "site")
    assert found.images == ()
    assert found.reasons == Counter(reasons)


# --- what is put right, and said --------------------------------------------------------------


def test_two_series_in_a_folder_never_merge(tmp_path: Path) -> None:
    write(tmp_path / "site", series())
    write(tmp_path / "site", series(noise(5, 8, 9, seed=3), name="2"), start=20)
    found = outcome_of(tmp_path / "site")
    assert sorted(volume.values.shape[0] for volume in found.images) == [5, 12]
    assert found.reasons == Counter()


@pytest.mark.parametrize("said", [True, False])
def test_a_localizer_is_left_out_only_where_it_says_so(tmp_path: Path, *, said: bool) -> None:
    datasets = series()
    scout = placed(image(noise(8, 9), "P1", "study of P1", "1", 50), (0, 0, 30), SAGITTAL)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER" if said else "AXIAL"]
    write(tmp_path / "site", [*datasets, scout])
    found = outcome_of(tmp_path / "site")
    if said:
        assert np.array_equal(found.images[0].values, quantities())
        assert found.reasons == Counter({Reason.LOCALIZER: 1})
    else:
        assert found.images == ()
        assert found.reasons == Counter({Reason.MIXED_ORIENTATION: 1})


def test_the_shear_of_a_tilted_gantry_is_kept(tmp_path: Path) -> None:
    datasets = series()
    for number, dataset in enumerate(datasets):
        dataset.ImagePositionPatient = [0.0, 0.388 * number, 1.449 * number]
    write(tmp_path / "site", datasets)
    found = outcome_of(tmp_path / "site")
    (volume,) = found.images
    assert volume.geometry is not None
    assert np.allclose(volume.geometry.affine[:3, 0], [0, 0.388, 1.449])
    (seen,) = series_remarks(found.instances).values()
    assert seen == {Remark.GANTRY_TILT}


def test_each_slice_is_rescaled_by_its_own_line(tmp_path: Path) -> None:
    datasets = series()
    for number, dataset in enumerate(datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = str(number + 1), "0"
    write(tmp_path / "site", datasets)
    found = outcome_of(tmp_path / "site")
    expected = VOLUME.astype(np.float32) * np.arange(1, 13, dtype=np.float32)[:, None, None]
    assert np.array_equal(found.images[0].values, expected)
    (seen,) = series_remarks(found.instances).values()
    assert seen == {Remark.RESCALE_VARIES}
    assert remarks(found.instances) == (("RESCALE_VARIES", 12, Remark.RESCALE_VARIES.value),)


def test_monochrome1_is_turned_and_said(tmp_path: Path) -> None:
    values = noise(8, 9)
    dataset = image(values)
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.HighBit = "MONOCHROME1", 12, 11
    write(tmp_path / "site", [dataset])
    found = outcome_of(tmp_path / "site", 2)
    assert np.array_equal(found.images[0].values, 4095 - values.astype(np.float32))
    assert found.instances[0].remarks == {Remark.MONOCHROME1}


def test_a_modality_lut_is_applied_and_said(tmp_path: Path) -> None:
    values = noise(8, 9, top=4, dtype="uint8")
    dataset, table = image(values), Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.ModalityLUTType = "HU"
    table.add_new("LUTData", "US", [100, 300, 65207, 1000])
    dataset.ModalityLUTSequence = Items([table])
    write(tmp_path / "site", [dataset])
    found = outcome_of(tmp_path / "site", 2)
    assert np.array_equal(found.images[0].values, np.array([100, 300, 65207, 1000])[values])
    assert found.instances[0].remarks == {Remark.MODALITY_LUT}


def test_a_palette_gives_colours_not_indices(tmp_path: Path) -> None:
    values = noise(8, 9, top=3, dtype="uint8")
    dataset = image(values)
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    table = np.array([[250, 10, 20], [0, 200, 5], [7, 8, 255]], np.uint8)
    for channel, name in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [3, 0, 8])
        setattr(dataset, f"{name}PaletteColorLookupTableData", table[:, channel].tobytes())
    write(tmp_path / "site", [dataset])
    found = outcome_of(tmp_path / "site", 2)
    assert np.array_equal(found.images[0].values, table[values].astype(np.float32))
    assert found.instances[0].remarks == {Remark.PALETTE, Remark.COLOUR}


def test_a_palette_in_segments_is_unfolded(tmp_path: Path) -> None:
    values = np.arange(72, dtype=np.uint8).reshape(8, 9)
    dataset = image(values)
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    # PS3.3 C.7.9.2: a discrete segment of one entry, then a linear one over the other 255.
    segments = struct.pack("<6H", 0, 1, 0, 1, 255, 255 * 257)
    for name in ("Red", "Green", "Blue"):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"Segmented{name}PaletteColorLookupTableData", segments)
    write(tmp_path / "site", [dataset])
    found = outcome_of(tmp_path / "site", 2)
    assert np.allclose(found.images[0].values, values[..., None], atol=1)


def test_frames_of_colour_in_ybr_keep_their_axes(tmp_path: Path) -> None:
    values = np.full((3, 8, 9, 3), (76, 85, 255), np.uint8)  # red, Rec. 601
    values[1, 2, 3] = 0, 128, 128
    dataset = image(values[0])
    dataset.PhotometricInterpretation, dataset.NumberOfFrames = "YBR_FULL", 3
    dataset.PixelData = values.tobytes()
    write(tmp_path / "site", [dataset])
    found = outcome_of(tmp_path / "site", 2)
    assert [picture.values.shape for picture in found.images] == [(8, 9, 3)] * 3
    assert np.abs(found.images[0].values - [254, 0, 0]).max() < 3
    assert np.abs(found.images[1].values[2, 3]).max() < 3
    assert found.instances[0].remarks == {Remark.COLOUR, Remark.MULTIFRAME}


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_an_enhanced_object_is_put_in_order_and_rescaled_by_frame(
    tmp_path: Path, modality: str
) -> None:
    order = [3, 0, 4, 1, 5, 2]
    dataset = enhanced(VOLUME[:6], order)
    dataset.Modality = modality
    write(tmp_path / "site", [dataset])
    found = outcome_of(tmp_path / "site")
    (volume,) = found.images
    lines = np.arange(6, dtype=np.float32)[:, None, None]
    assert np.array_equal(volume.values, VOLUME[:6].astype(np.float32) * (1 + lines) - 10 * lines)
    assert volume.geometry is not None
    expected = [[0, 0, 0.7, 0], [0, 0.5, 0, 0], [1.5, 0, 0, 0], [0, 0, 0, 1]]
    assert np.allclose(volume.geometry.affine, expected)
    assert found.instances[0].remarks == {Remark.ENHANCED_MULTIFRAME}


def test_an_enhanced_object_that_lacks_a_frame_or_its_group_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "gap", [enhanced(VOLUME[:6], [0, 1, 2, 4, 5])])
    assert outcome_of(tmp_path / "gap").reasons == Counter({Reason.MISSING_SLICES: 1})
    fewer = enhanced(VOLUME[:6], range(6))
    del fewer.PerFrameFunctionalGroupsSequence[5]
    write(tmp_path / "fewer", [fewer])
    assert outcome_of(tmp_path / "fewer").reasons == Counter({Reason.BAD_VR: 1})
    varied = enhanced(VOLUME[:6], range(6))
    measures = Dataset()
    measures.PixelSpacing = [0.9, 0.9]
    varied.PerFrameFunctionalGroupsSequence[2].PixelMeasuresSequence = Items([measures])
    write(tmp_path / "varied", [varied])
    assert outcome_of(tmp_path / "varied").reasons == Counter({Reason.NO_GEOMETRY: 1})


def test_overlays_in_the_high_bits_are_no_part_of_the_image(tmp_path: Path) -> None:
    values = noise(8, 9, top=4096)
    dataset = image(values | np.uint16(0xF000))
    dataset.BitsStored, dataset.HighBit = 12, 11
    write(tmp_path / "site", [dataset])
    found = outcome_of(tmp_path / "site", 2)
    assert np.array_equal(found.images[0].values, values.astype(np.float32))


def test_a_file_without_preamble_or_syntax_is_read_and_said(tmp_path: Path) -> None:
    values = noise(8, 9)
    path = save(tmp_path / "site" / "x", image(values))
    path.write_bytes(path.read_bytes()[132:])
    found = outcome_of(tmp_path / "site", 2)
    assert np.array_equal(found.images[0].values, values.astype(np.float32))
    assert found.instances[0].remarks == {Remark.NO_PREAMBLE}


def test_a_slice_that_is_there_twice_is_used_once(tmp_path: Path) -> None:
    paths = write(tmp_path / "site", series())
    (tmp_path / "site" / "copy.dcm").write_bytes(paths[4].read_bytes())
    found = outcome_of(tmp_path / "site")
    assert np.array_equal(found.images[0].values, quantities())
    assert found.reasons == Counter({Reason.DUP_SOP_SAME: 1})


def test_two_slices_of_one_uid_that_differ_are_both_refused(tmp_path: Path) -> None:
    datasets = series()
    twin = series(noise(12, 8, 9, seed=9))[4]
    write(tmp_path / "site", [*datasets, twin])
    found = outcome_of(tmp_path / "site")
    assert found.images == ()
    assert found.reasons == Counter({Reason.DUP_SOP_DIFFERENT: 2, Reason.INCOMPLETE_SERIES: 1})


def test_stray_files_beside_a_series_are_listed_and_change_nothing(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site, series())
    (site / "notes").write_bytes(b"these are no images, not at all" * 9)
    (site / "readme.txt").write_text("not even looked at")
    report = image(noise(8, 9))
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = UID(
        "1.2.840.10008.5.1.4.1.1.88.11"
    )
    del report.PixelData
    save(site / "report", report)
    save(site / "DICOMDIR", _directory())
    found = outcome_of(site)
    assert np.array_equal(found.images[0].values, quantities())
    assert found.reasons == Counter({Reason.NOT_DICOM: 1, Reason.NO_PIXELS: 1, Reason.DICOMDIR: 1})


def _directory() -> FileDataset:
    dataset = image(noise(8, 9))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    return dataset


# --- single files: code of the index, and of the cohort ---------------------------------------


def _file(change: Callable[[FileDataset], None]) -> Build:
    def build(site: Path) -> None:
        dataset = image(noise(8, 9))
        change(dataset)
        save(site / "x", dataset)

    return build


def _set(**values: object) -> Callable[[FileDataset], None]:
    def change(dataset: FileDataset) -> None:
        for name, value in values.items():
            setattr(dataset, name, value)

    return change


def _syntax(syntax: str, pixels: bytes) -> Callable[[FileDataset], None]:
    def change(dataset: FileDataset) -> None:
        made = compressed(noise(8, 9), pixels, syntax)
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        dataset["PixelData"] = made["PixelData"]

    return change


def _no_syntax(site: Path) -> None:
    """Write a compressed file whose group 2 lost its transfer syntax."""
    dataset = compressed(noise(8, 9), b"\xff\xd8\xff\xd9", "1.2.840.10008.1.2.4.70")
    content = save(site / "x", dataset).read_bytes()
    place = content.index(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(content[place + 6 : place + 8], "little")
    group = int.from_bytes(content[140:144], "little") - 8 - length
    (site / "x").write_bytes(
        content[:140]
        + group.to_bytes(4, "little")
        + content[144:place]
        + content[place + 8 + length :]
    )


def _bad_number(site: Path) -> None:
    content = save(site / "x", image(noise(2, 8, 9))).read_bytes()
    (site / "x").write_bytes(content.replace(b"IS\x02\x002 ", b"IS\x02\x001A"))


def _deflated_bomb(site: Path) -> None:
    """64 MiB of zeros in 64 KiB."""
    dataset = image(noise(8, 9))
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    content = save(site / "x", dataset).read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(1 << 26)) + deflater.flush()
    (site / "x").write_bytes(content[:start] + bomb)


def _claims(rows: int, columns: int, syntax: str, frame: bytes) -> Build:
    def build(site: Path) -> None:
        dataset = compressed(noise(8, 9), frame, syntax)
        dataset.Rows, dataset.Columns = rows, columns
        save(site / "x", dataset)

    return build


def _jpeg2000_of(rows: int, columns: int, padding: int = 0) -> bytes:
    """Return a codestream whose header claims a size and that holds nothing."""
    grid = (columns, rows, 0, 0)
    size = struct.pack(">HH8IH3B", 41, 0, *grid, *grid, 1, 7, 1, 1)
    return b"\xff\x4f\xff\x51" + size + bytes(padding) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (_file(_set(PixelData=b"")), Reason.TRUNCATED_PIXELS),
        (_file(_set(PixelData=bytes(100))), Reason.TRUNCATED_PIXELS),
        (_file(_set(NumberOfFrames=3)), Reason.TRUNCATED_PIXELS),
        (_file(_set(NumberOfFrames=2**31 - 1)), Reason.TOO_LARGE),
        (_file(_set(NumberOfFrames=-1)), Reason.BAD_VR),
        (_file(_set(Rows=65535, Columns=65535)), Reason.TOO_LARGE),
        (_file(_set(Rows=65535)), Reason.TRUNCATED_PIXELS),
        (_file(_set(BitsAllocated=64)), Reason.TRUNCATED_PIXELS),
        (_file(_set(BitsStored=17)), Reason.BAD_VR),
        (_file(_set(BitsStored=0)), Reason.BAD_VR),
        (_file(_set(Rows=None)), Reason.MISSING_HEADER),
        (_file(_set(BitsAllocated=None)), Reason.MISSING_HEADER),
        (_file(_set(PhotometricInterpretation="")), Reason.MISSING_HEADER),
        (_file(_set(PhotometricInterpretation="RGB")), Reason.BAD_VR),
        (_file(_set(PhotometricInterpretation="HSV")), Reason.DECODE_ERROR),
        (_file(_set(PhotometricInterpretation="YBR_RCT", SamplesPerPixel=3)), Reason.DECODE_ERROR),
        (_file(_set(RescaleSlope="0")), Reason.BAD_VR),
        (_file(_set(RescaleSlope="1e999", RescaleIntercept="0")), Reason.NOT_FINITE),
        (_file(_syntax("1.2.840.10008.1.2.4.100", bytes(64))), Reason.UNSUPPORTED_TS),
        (_file(_syntax("1.2.840.10008.1.2.4.70", bytes(64))), Reason.DECODE_ERROR),
        (_file(_syntax("1.2.840.10008.1.2.4.90", bytes(64))), Reason.DECODE_ERROR),
        (_file(_syntax("1.2.840.10008.1.2.5", bytes(64))), Reason.DECODE_ERROR),
        (_no_syntax, Reason.MISSING_TS),
        (_bad_number, Reason.BAD_VR),
        (
            _claims(30000, 30000, "1.2.840.10008.1.2.4.90", _jpeg2000_of(30000, 30000)),
            Reason.TOO_LARGE,
        ),
        (
            _claims(20000, 20000, "1.2.840.10008.1.2.4.90", _jpeg2000_of(20000, 20000)),
            Reason.TOO_LARGE,
        ),
        (
            _claims(17000, 17000, "1.2.840.10008.1.2.4.90", _jpeg2000_of(17000, 17000, 300_000)),
            Reason.TOO_LARGE,
        ),
        (_claims(8, 9, "1.2.840.10008.1.2.4.90", _jpeg2000_of(30000, 30000)), Reason.DECODE_ERROR),
        (
            _claims(9000, 9000, "1.2.840.10008.1.2.5", bytes(64) + b"\x81\0" * 99),
            Reason.TRUNCATED_PIXELS,
        ),
        (_file(lambda dataset: dataset.__delitem__("PixelData")), Reason.NO_PIXELS),
    ],
)
def test_a_file_that_cannot_be_used_has_its_code(
    build: Build, reason: Reason, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    build(tmp_path / "site")
    found = outcome_of(tmp_path / "site", 2)
    assert found.images == ()
    assert found.reasons == Counter({reason: 1})
    assert [one.reason for one in found.quarantined] in ([reason], [])


def test_a_deflated_bomb_has_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "LARGEST_BYTES", 1 << 25)
    _deflated_bomb(tmp_path / "site")
    assert outcome_of(tmp_path / "site", 2).reasons == Counter({Reason.TOO_LARGE: 1})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"PatientID,ill\nP1,1\n", Reason.NOT_DICOM),
        (bytes(range(256)) * 20, Reason.NOT_DICOM),
        (b"\0" * 128 + b"DICM", Reason.NO_PIXELS),
        (b"\xff\xd8\xff\xe0" + bytes(500), Reason.NOT_DICOM),
        (b"PK\3\4" + bytes(500), Reason.NOT_DICOM),
    ],
)
def test_what_is_no_dicom_has_its_code(content: bytes, reason: Reason, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "x").write_bytes(content)
    found = outcome_of(tmp_path / "site", 2)
    assert [one.reason for one in found.quarantined] == [reason]
    assert found.reasons == Counter({reason: 1})


def test_an_unusable_file_keeps_its_code_until_it_changes(tmp_path: Path) -> None:
    site = tmp_path / "site"
    _with_a_broken_codestream(site)
    assert outcome_of(site).reasons[Reason.TRUNCATED_PIXELS] == 1
    with Index(tmp_path / "site-home" / "index.db") as index:
        (one,) = index.quarantined()
        assert (one.reason, one.patient) == (Reason.TRUNCATED_PIXELS, "P1")
    again = outcome_of(site)
    assert again.images == ()
    assert again.reasons == {Reason.TRUNCATED_PIXELS: 1, Reason.INCOMPLETE_SERIES: 1}
    write(site, series())
    assert np.array_equal(outcome_of(site).images[0].values, quantities())
