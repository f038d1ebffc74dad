"""Codestreams on which a decoder that trusts them reads beyond its memory."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from client.dicom.pixels.native import read_image
from client.dicom.reading.files import File
from client.dicom.reasons import UnusableFile
from tests.client.dicom_files import image, noise, save
from tests.peers import program

pytestmark = pytest.mark.processes


def test_a_broken_lossless_frame_never_reaches_a_decoder_that_trusts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("imagecodecs.ljpeg_decode", lambda *_, **__: asked.append(1))
    monkeypatch.setattr("imagecodecs.imagecodecs.ljpeg_decode", lambda *_, **__: asked.append(1))
    plain, packed = save(tmp_path / "plain.dcm", image(noise(1, 33, 47)[0])), tmp_path / "p.dcm"
    command = [program("dcmcjpeg"), "+e1", f"{plain}", f"{packed}"]
    subprocess.run(command, check=True, capture_output=True)
    content = packed.read_bytes()
    table = content.index(b"\xff\xc4")
    packed.write_bytes(content[: table + 1] + b"\xcd" + content[table + 2 :])
    with pytest.raises(UnusableFile):
        read_image(File(path=packed, size=len(content), mtime_ns=0))
    assert not asked
