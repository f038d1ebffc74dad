from __future__ import annotations

import stat
import subprocess
import threading
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from client.cohort.decode import read_objects
from client.cohort.scan import dicom_files
from client.cohort.select import Grouping
from client.dicom.codec import dcmtk
from client.dicom.pixels import native
from client.dicom.pixels.native import parse_image, read_easy, read_image
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.quiet import quiet
from client.dicom.reading.files import File
from client.dicom.reasons import Reason, UnusableFile
from tests.client.dicom_files import compressed, image, noise, save, slices
from tests.peers import program

LOSSLESS, JPEG_LS, EXTENDED = (f"1.2.840.10008.1.2.4.{n}" for n in (70, 80, 51))


def file_at(path: Path) -> File:
    return File(path=path, size=path.stat().st_size, mtime_ns=path.stat().st_mtime_ns)


@pytest.mark.parametrize("syntax", [LOSSLESS, JPEG_LS, "native", "native8", "signed", "dark"])
def test_the_easy_way_and_pydicoms_give_the_same(tmp_path: Path, syntax: str) -> None:
    values = noise(24, 20)
    if syntax == LOSSLESS:
        dataset = compressed(values, bytes(imagecodecs.ljpeg_encode(values)), syntax)
    elif syntax == JPEG_LS:
        dataset = compressed(values, bytes(imagecodecs.jpegls_encode(values)), syntax)
    else:
        kinds = {"native8": "uint8", "signed": "int16"}
        dataset = image(noise(24, 20, dtype=kinds.get(syntax, "uint16"), top=200))
    if syntax == "dark":
        dataset.PhotometricInterpretation = "MONOCHROME1"
    if syntax == "signed":
        dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.RescaleSlope, dataset.RescaleIntercept = "0.5", "-3"
    file = file_at(save(tmp_path / "x", dataset))
    (header, easy), (same_header, slow) = read_easy(file), parse_image(file)
    assert header == same_header
    assert easy.stored.dtype == slow.stored.dtype
    assert np.array_equal(easy.stored, slow.stored)
    assert np.array_equal(easy.values(0), slow.values(0))


@pytest.mark.processes
def test_a_point_transform_is_not_forgotten(tmp_path: Path) -> None:
    """T.81 H.1.2.1: values lose their lowest bits, and come back with zeros in their place."""
    values = noise(24, 20) & np.uint16(0xFFF8)
    dataset = image(values)
    dataset.BitsStored, dataset.HighBit = 12, 11
    plain, coded = save(tmp_path / "plain", dataset), tmp_path / "coded"
    command = [program("dcmcjpeg"), "+e1", "+pt", "3", str(plain), str(coded)]
    subprocess.run(command, check=True)
    assert np.array_equal(read_image(file_at(coded))[1].stored[0], values)


def test_objects_are_decoded_side_by_side_and_stay_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    for number, dataset in enumerate(slices(noise(40, 8, 8))):
        save(site / f"{number:02d}", dataset)
    running, most = [0], [0]
    together = threading.Barrier(2, timeout=20)
    lock = threading.Lock()

    def slowly(file: File) -> object:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if file.path.name in {"00", "01"}:
            together.wait()  # passes only when both are being decoded
        found = read_image(file)
        with lock:
            running[0] -= 1
        return found

    monkeypatch.setattr("client.cohort.decode.read_image", slowly)
    monkeypatch.setattr("client.cohort.decode._THREADS", 2)
    with PixelStore(tmp_path / "store") as store:
        found = read_objects(
            site, dicom_files(site, frozenset()), lambda _h: None, store, Grouping(by_series=False)
        )
    assert [item.path for item in found.objects] == [f"{n:02d}" for n in range(40)]
    assert most[0] == 2


def test_a_file_that_changes_while_it_is_read_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    path = save(site / "x", image(noise(8, 8), "P1"))

    def later(file: File) -> object:
        save(path, image(noise(8, 8, seed=1), "P2"))
        return read_image(file_at(file.path))

    monkeypatch.setattr("client.cohort.decode.read_image", later)
    with PixelStore(tmp_path / "store") as store:
        found = read_objects(site, [path], lambda _h: None, store, Grouping(by_series=False))
    assert [problem.reason for problem in found.problems] == [Reason.PARTIAL_WRITE]


def test_quiet_threads_leave_the_filters_as_they_were() -> None:
    before = list(warnings.filters)

    def warn() -> None:
        for _ in range(200):
            with quiet():
                warnings.warn("nobody hears this", stacklevel=1)

    threads = [threading.Thread(target=warn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


# --- dcmtk as the last resort ------------------------------------------------------------------


def _failing(*_: object, **__: object) -> object:
    message = "this decoder knows nothing"
    raise ValueError(message)


@pytest.mark.processes
def test_dcmtk_decodes_what_our_decoder_gives_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("dcmdjpeg")
    values = noise(24, 20)
    frame = bytes(imagecodecs.ljpeg_encode(values))
    file = file_at(save(tmp_path / "x", compressed(values, frame, LOSSLESS)))
    monkeypatch.setattr(imagecodecs, "jpeg8_decode", _failing)
    header, pixels = read_image(file)
    assert np.array_equal(pixels.stored[0], values)
    assert header.shape == (24, 20)


@pytest.mark.processes
@pytest.mark.parametrize("script", [None, "exit 1", "kill -9 $$", "sleep 30"])
def test_without_its_help_the_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    values = noise(24, 20)
    frame = bytes(imagecodecs.ljpeg_encode(values))
    file = file_at(save(tmp_path / "x", compressed(values, frame, LOSSLESS)))
    monkeypatch.setattr(imagecodecs, "jpeg8_decode", _failing)
    monkeypatch.setattr(dcmtk, "_SECONDS", 1)
    stand_in = None
    if script is not None:
        stand_in = tmp_path / "dcmdjpeg"
        stand_in.write_text(f"#!/bin/sh\n{script}\n")
        stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(dcmtk, "_program", lambda: None if stand_in is None else str(stand_in))
    with pytest.raises(UnusableFile) as caught:
        read_image(file)
    assert caught.value.reason is Reason.DECODE_ERROR


@pytest.mark.processes
def test_dcmtk_has_limits_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in, told = tmp_path / "dcmdjpeg", tmp_path / "told"
    stand_in.write_text(
        f"#!/bin/sh\nulimit -v > {told}; ulimit -t >> {told}; ulimit -f >> {told}\n"
    )
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(dcmtk, "_program", lambda: str(stand_in))
    path = save(tmp_path / "x", image(noise(8, 8)))
    with dcmtk.decoded_by_dcmtk(path) as found:
        assert found is None  # it wrote nothing
    memory, seconds, blocks = told.read_text().split()
    assert int(memory) * 1024 == dcmtk._MEMORY_BYTES
    assert int(seconds) == dcmtk._SECONDS
    assert "unlimited" not in blocks


def test_only_what_a_decoder_gave_up_on_goes_to_dcmtk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> None:
        pytest.fail(f"asked dcmtk about {path}")

    monkeypatch.setattr(native, "decoded_by_dcmtk", forbidden)
    values = noise(24, 20)
    frame = bytes(imagecodecs.ljpeg_encode(values))
    for number, broken in enumerate((frame[: len(frame) // 2], bytes(100))):
        path = save(tmp_path / f"{number}", compressed(values, broken, LOSSLESS))
        with pytest.raises(UnusableFile):
            read_image(file_at(path))
