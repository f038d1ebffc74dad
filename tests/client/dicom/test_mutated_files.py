"""Thousands of broken files: no crash, no hang, no memory beyond a limit.

The suite reads the first 2,000 of them. All 10,000 take a minute on one core:

    MUTATED_FILES=10000 python -m pytest tests/client/dicom/test_mutated_files.py

Any others, here with the real files of a folder as sources:

    python tests/client/mutations.py FIRST COUNT FOLDER SOURCES
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from tests.client import mutations
from tests.client.bad_folders import VOLUME, enhanced
from tests.client.dicom_files import Values, compressed, image, noise, placed, save

FILES = int(os.environ.get("MUTATED_FILES", "2000"))
#: Processes, one after the other; each has the address space of one.
PARTS = 4


def write_sources(folder: Path) -> None:
    """Write one small file of every kind that is read."""
    grey, colour = noise(24, 20), noise(12, 10, 3, dtype="uint8", top=255)
    save(folder / "explicit", placed(image(grey), (0, 0, 0)))
    for name, syntax in (
        ("implicit", ImplicitVRLittleEndian),
        ("big", ExplicitVRBigEndian),
        ("deflated", DeflatedExplicitVRLittleEndian),
    ):
        dataset = placed(image(grey), (0, 0, 0))
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset["PixelData"].VR = "OW"
        save(folder / name, dataset)
    save(folder / "colour", image(colour))
    save(folder / "enhanced", enhanced(VOLUME[:4], [2, 0, 1, 3]))
    for name, frame, syntax in _codestreams(grey):
        save(folder / name, compressed(grey, frame, syntax))
    eight = noise(24, 20, dtype="uint8", top=255)
    save(
        folder / "jpeg",
        compressed(eight, bytes(imagecodecs.jpeg8_encode(eight)), "1.2.840.10008.1.2.4.50"),
    )


def _codestreams(grey: Values) -> list[tuple[str, bytes, str]]:
    rle = image(grey)
    rle.compress("1.2.840.10008.1.2.5", encoding_plugin="pylibjpeg")
    from pydicom.encaps import generate_frames

    twelve = np.minimum(grey, 4095).astype(np.uint16)
    return [
        ("lossless", bytes(imagecodecs.ljpeg_encode(grey)), "1.2.840.10008.1.2.4.70"),
        ("jpeg-ls", bytes(imagecodecs.jpegls_encode(grey)), "1.2.840.10008.1.2.4.80"),
        (
            "extended",
            bytes(imagecodecs.jpeg_encode(twelve, bitspersample=12)),
            "1.2.840.10008.1.2.4.51",
        ),
        (
            "jpeg2000",
            bytes(imagecodecs.jpeg2k_encode(grey, level=0, codecformat="J2K", reversible=True)),
            "1.2.840.10008.1.2.4.90",
        ),
        ("rle", next(generate_frames(rle.PixelData, number_of_frames=1)), "1.2.840.10008.1.2.5"),
    ]


@pytest.mark.slow
def test_broken_files_are_read_or_refused(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    write_sources(sources)
    outcomes: Counter[str] = Counter()
    for part in range(PARTS):
        count = FILES // PARTS
        ended = subprocess.run(
            [
                sys.executable,
                mutations.__file__,
                str(part * count),
                str(count),
                str(tmp_path),
                str(sources),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
        found = json.loads(ended.stdout)
        assert found["failed"] == 0, "\n".join(found["failures"])
        assert found["resident"] < mutations.RESIDENT_BYTES
        assert found["slowest"] < mutations.SECONDS_A_FILE
        outcomes.update(found["outcomes"])
    assert outcomes.total() == FILES
    # Files of every kind got through, and every way of being wrong was met.
    assert outcomes["read"] > FILES // 10
    assert {"TRUNCATED_PIXELS", "NOT_DICOM", "DECODE_ERROR", "BAD_VR", "NO_PIXELS"} <= set(outcomes)


def test_the_same_number_is_the_same_file() -> None:
    sources = [bytes(range(256)) * 4]
    assert mutations.mutated(sources, 7) == mutations.mutated(sources, 7)
    assert mutations.mutated(sources, 7) != mutations.mutated(sources, 8)
