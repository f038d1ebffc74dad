"""Files that few writers make: values in unused bits, in wrong series, in odd names."""

from __future__ import annotations

import os
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from client.dicom.pixels.native import read_image
from client.dicom.reading.files import File
from client.dicom.reading.read import read_dataset, read_pixels
from client.dicom.reasons import Reason, UnusableFile
from tests.client.bad_folders import VOLUME, Outcome, enhanced, outcome_of, series, write
from tests.client.dicom_files import image, noise, placed, save
from tests.peers import program


@pytest.mark.processes
@pytest.mark.parametrize(
    "command",
    [
        ["dcmcjpeg", "+e1"],
        ["dcmcjpeg", "+el", "+sv", "6"],
        ["dcmcjpls", "+el"],
        ["dcmcrle"],
        ["gdcmconv", "--j2k"],
    ],
)
def test_overlays_that_were_compressed_with_an_image_are_no_part_of_it(
    command: list[str], tmp_path: Path
) -> None:
    values = noise(1, 16, 16)[0].astype(np.uint16) & 0x0FFF
    dataset = image(values | 0x5000)
    dataset.BitsStored, dataset.HighBit = 12, 11
    plain, packed = save(tmp_path / "plain.dcm", dataset), tmp_path / "packed.dcm"
    subprocess.run(
        [program(command[0]), *command[1:], plain, packed], check=True, capture_output=True
    )
    status = packed.stat()
    _, pixels = read_image(File(path=packed, size=status.st_size, mtime_ns=0))
    assert np.array_equal(pixels.stored[0], values)
    assert np.array_equal(read_pixels(read_dataset(packed)).stored[0], values)


@pytest.mark.processes
def test_a_lossy_value_above_the_highest_does_not_turn_dark(tmp_path: Path) -> None:
    values = np.full((16, 16), 4095, np.uint16)
    values[::3, ::2] = 4080
    dataset = image(values)
    dataset.BitsStored, dataset.HighBit = 12, 11
    plain, packed = save(tmp_path / "plain.dcm", dataset), tmp_path / "packed.dcm"
    command = [program("gdcmconv"), "--jpegls", "--lossy", "-e", "3", f"{plain}", f"{packed}"]
    subprocess.run(command, check=True, capture_output=True)
    found = read_pixels(read_dataset(packed)).stored[0].astype(int)
    assert np.abs(found - values).max() <= 3


@pytest.mark.processes
@pytest.mark.parametrize("command", [[], ["dcmcrle"], ["dcmcjpeg", "+e1"], ["dcmcjpls", "+el"]])
@pytest.mark.parametrize(("high", "signed"), [(15, False), (13, False), (15, True)])
def test_bits_that_are_not_the_lowest_are_read_where_they_are_or_refused(
    high: int, command: list[str], *, signed: bool, tmp_path: Path
) -> None:
    values = noise(1, 16, 16)[0].astype(np.uint16) & 0x0FFF
    dataset = image((values << (high - 11)) | 1)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, high, int(signed)
    path = save(tmp_path / "plain.dcm", dataset)
    if command:
        argv = [program(command[0]), *command[1:], path, tmp_path / "packed.dcm"]
        subprocess.run(argv, check=True, capture_output=True)
        path = tmp_path / "packed.dcm"
    wanted = np.where(signed & (values > 2047), values.astype(int) - 4096, values)
    status = path.stat()
    for read in (
        lambda: read_image(File(path=path, size=status.st_size, mtime_ns=0))[1],
        lambda: read_pixels(read_dataset(path)),
    ):
        try:
            assert np.array_equal(read().stored[0], wanted)
        except UnusableFile as problem:
            assert command[:1] in (["dcmcjpeg"], ["dcmcjpls"])
            assert problem.reason is Reason.DECODE_ERROR  # noqa: PT017


def _shifted(volume_shift: float, **values: object) -> list[FileDataset]:
    """Return a second series under the first one's UIDs, with something else about it."""
    first = series()
    second = series(VOLUME[::-1], name="2")
    for slice_, like in zip(second, first, strict=True):
        slice_.SeriesInstanceUID, slice_.StudyInstanceUID = (
            like.SeriesInstanceUID,
            like.StudyInstanceUID,
        )
        x, y, z = slice_.ImagePositionPatient
        slice_.ImagePositionPatient = [x, y, float(z) + volume_shift]
        for name, value in values.items():
            setattr(slice_, name, value)
    for slice_ in first:
        slice_.FrameOfReferenceUID = "1.2.3"
    return [*first, *second]


@pytest.mark.parametrize("shift", [0.75, 12 * 1.5])
@pytest.mark.parametrize(
    "values", [{"FrameOfReferenceUID": "1.2.4"}, {"StudyInstanceUID": "1.2.4"}, {"Modality": "MR"}]
)
def test_two_series_under_one_uid_are_no_volume(
    shift: float, values: dict[str, object], tmp_path: Path
) -> None:
    found = _outcome(tmp_path, lambda site: write(site, _shifted(shift, **values)))
    assert not found.images
    assert found.reasons == {Reason.MIXED_SERIES: 1}


def test_a_slice_in_colour_among_grey_ones_stops_nothing(tmp_path: Path) -> None:
    def build(site: Path) -> None:
        write(site, [*series(), *series(noise(5, 8, 9), name="good")])
        one = series()[3]
        colours = np.stack([VOLUME[3].astype(np.uint8)] * 3, axis=-1)
        other = placed(image(colours), tuple(one.ImagePositionPatient))
        for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(other, name, one[name].value)
        save(site / "003.dcm", other)

    found = _outcome(tmp_path, build)
    assert found.reasons == {Reason.MIXED_MATRIX: 1}
    assert [one.values.shape for one in found.images] == [(5, 8, 9)]


@pytest.mark.parametrize("kept", [132, 300, -1])
def test_a_last_slice_that_was_cut_leaves_no_shorter_volume(kept: int, tmp_path: Path) -> None:
    def build(site: Path) -> None:
        last = write(site, series())[-1]
        content = last.read_bytes()
        # Just before the pixels, every element is whole.
        last.write_bytes(content[: content.index(b"\xe0\x7f\x10\x00") if kept < 0 else kept])

    found = _outcome(tmp_path, build)
    assert not found.images
    assert found.reasons[Reason.INCOMPLETE_SERIES] == 1


def test_a_slice_overwritten_with_zeros_leaves_no_shorter_volume(tmp_path: Path) -> None:
    def build(site: Path) -> None:
        last = write(site, series())[-1]
        last.write_bytes(bytes(last.stat().st_size))

    found = _outcome(tmp_path, build)
    assert not found.images
    assert found.reasons == {Reason.NOT_DICOM: 1, Reason.INCOMPLETE_SERIES: 1}


def test_names_that_are_no_utf8_are_listed_and_stop_nothing(tmp_path: Path) -> None:
    def build(site: Path) -> None:
        write(site / "good", series())
        name = os.fsdecode(b"M\xfcller.dcm")
        save(site / "old" / name, series(name="other")[0])
        folder = site / "old" / os.fsdecode(b"J\xf6rg")
        folder.mkdir()
        save(folder / "1.dcm", series(name="another")[0])
        (site / "old" / os.fsdecode(b"M\xfcller.txt")).write_text("not listed")

    found = _outcome(tmp_path, build)
    assert len(found.images) == 1
    assert found.reasons == {Reason.UNREADABLE: 2}
    listed = sorted(Path(one.what).name for one in found.quarantined)
    assert listed == ["J\\xf6rg", "M\\xfcller.dcm"]
    assert all("rename" in one.detail for one in found.quarantined)


def _deflated(body: bytes, path: Path, length: int | None) -> Path:
    """Write a deflated file whose group of meta information says this length, or none."""
    named = b"1.2." + b"3" * 1200  # so that the syntax is not near the beginning
    meta = b"\2\0\3\0UI" + len(named).to_bytes(2, "little") + named
    meta += b"\2\0\x10\0UI\x16\0" + DeflatedExplicitVRLittleEndian.encode()
    if length is not None:
        meta = b"\2\0\0\0UL\4\0" + length.to_bytes(4, "little") + meta
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(bytes(128) + b"DICM" + meta + packer.compress(body) + packer.flush())
    return path


@pytest.mark.parametrize("length", [None, 0, 8])
def test_a_deflated_file_is_bounded_whatever_its_group_length_says(
    length: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = save(tmp_path / "plain.dcm", image(VOLUME[0]))
    dataset = dcmread(plain)
    body = plain.read_bytes()[132 + 12 + int(dataset.file_meta.FileMetaInformationGroupLength) :]
    path = _deflated(body, tmp_path / "deflated.dcm", length)
    assert np.array_equal(read_pixels(read_dataset(path)).stored[0], VOLUME[0])
    monkeypatch.setattr("client.dicom.reading.parse.LARGEST_BYTES", 100)
    with pytest.raises(UnusableFile) as caught:
        read_dataset(path)
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_deflated_file_without_what_its_pixels_need_stops_nothing(tmp_path: Path) -> None:
    def build(site: Path) -> None:
        write(site / "good", series())
        dataset = image(VOLUME[0])
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        plain = save(site.parent / "plain.dcm", dataset)
        content = plain.read_bytes()
        bits = b"\x28\0\0\1\2\0\0\0"  # BitsAllocated, which says what type the pixels have
        at = content.index(bits)
        meta = 132 + 12 + int(dcmread(plain).file_meta.FileMetaInformationGroupLength)
        _deflated(content[meta:at] + content[at + 10 :], site / "deflated.dcm", None)

    found = _outcome(tmp_path, build)
    assert len(found.images) == 1
    assert found.reasons == {Reason.BAD_VR: 1}


def test_pixels_of_several_frames_are_not_one_frame_and_a_rest(tmp_path: Path) -> None:
    dataset = image(VOLUME[0])
    dataset.Rows = VOLUME.shape[1] // 2
    path = save(tmp_path / "half.dcm", dataset)
    with pytest.raises(UnusableFile) as caught:
        read_image(File(path=path, size=path.stat().st_size, mtime_ns=0))
    assert caught.value.reason is Reason.DECODE_ERROR


def test_one_pixel_and_its_padding_are_one_pixel(tmp_path: Path) -> None:
    dataset = image(np.array([[7]], np.uint8))
    dataset.PixelData = b"\7\0"
    path = save(tmp_path / "one.dcm", dataset)
    _, pixels = read_image(File(path=path, size=path.stat().st_size, mtime_ns=0))
    assert pixels.stored.tolist() == [[[7]]]


@pytest.mark.parametrize(("number", "thickness"), [(2, 1.5), (3, 1.5), (-2, 1.4)])
def test_every_second_slice_alone_is_no_whole_series(
    number: int, thickness: float, tmp_path: Path
) -> None:
    def build(site: Path) -> None:
        every = series(noise(24, 8, 9))
        for place, slice_ in enumerate(every):
            slice_.InstanceNumber = 100 + place * (1 if number > 0 else -1)
            slice_.SliceThickness = thickness
        write(site, every[:: abs(number)])

    found = _outcome(tmp_path, build)
    assert found.reasons == {Reason.MISSING_SLICES: 1}


@pytest.mark.parametrize(("number", "thickness"), [(2, 3.0), (1, 0.75), (0, 1.5), (2, None)])
def test_a_series_numbered_otherwise_is_whole(
    number: int, thickness: float | None, tmp_path: Path
) -> None:
    def build(site: Path) -> None:
        for place, slice_ in enumerate(every := series()):
            slice_.InstanceNumber, slice_.SliceThickness = 1 + place * number, thickness
        write(site, every)

    assert len(_outcome(tmp_path, build).images) == 1


@pytest.mark.parametrize("lacking", [0, 5])
def test_a_slice_without_the_rescale_of_the_others_is_no_part_of_their_volume(
    lacking: int, tmp_path: Path
) -> None:
    def build(site: Path) -> None:
        for place, slice_ in enumerate(every := series()):
            for name in ("RescaleSlope", "RescaleIntercept"):
                if name in slice_:
                    delattr(slice_, name)
            if place != lacking:
                slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
        write(site, every)

    found = _outcome(tmp_path, build)
    assert not found.images
    assert found.reasons == {Reason.MISSING_HEADER: 1}


def test_frames_that_are_rescaled_in_part_are_refused(tmp_path: Path) -> None:
    dataset = enhanced(VOLUME, range(len(VOLUME)))
    del dataset.PerFrameFunctionalGroupsSequence[4].PixelValueTransformationSequence
    found = _outcome(tmp_path, lambda site: write(site, [dataset]))
    assert found.reasons[Reason.MISSING_HEADER] == 1
    assert not found.images


@pytest.mark.parametrize("count", [1, 3])
def test_a_dose_is_in_its_own_unit(count: int, tmp_path: Path) -> None:
    values = VOLUME[0] if count == 1 else VOLUME[:count]
    dataset = image(values)
    dataset.DoseGridScaling = "0.25"
    path = save(tmp_path / "dose.dcm", dataset)
    _, pixels = read_image(File(path=path, size=path.stat().st_size, mtime_ns=0))
    assert np.allclose(pixels.values(0), VOLUME[0] * 0.25)


def test_a_series_under_two_patients_is_said_to_be(tmp_path: Path) -> None:
    def build(site: Path) -> None:
        write(site / "one", series())
        other = series()
        for slice_ in other:
            slice_.PatientID = "P2"
        write(site / "two", other)

    found = _outcome(tmp_path, build)
    assert not found.images
    assert found.reasons == {Reason.PATIENT_TWO_IDS: 2 * len(VOLUME)}


def _outcome(folder: Path, build: Callable[[Path], object]) -> Outcome:
    site = folder / "site"
    site.mkdir()
    build(site)
    return outcome_of(site)
