"""JPEG Lossless on two cores against pydicom's default decoder, bit for bit the same.

    python benchmarks/jpeg_lossless.py

96 CT slices of 512 x 512 in JPEG Lossless, SV1 (1.2.840.10008.1.2.4.70). Ours reads and decodes
files as a cohort does, on two threads. The peer is `dcmread` and `pixel_array` one file after the
other, with the first plugin that pydicom has for the syntax: gdcm or pylibjpeg-libjpeg, which an
environment of its own gets for this script (neither is part of Wardround: pylibjpeg-libjpeg is
GPL). Without a network there is no peer, and the row says so instead of a ratio.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from ct_files import noise, write_series
from row import Row, shown, told

from client.dicom.pixels.native import read_image
from client.dicom.quiet import quiet
from client.dicom.reading.files import files_below

SLICES, SIDE, THREADS = 96, 512, 2
SYNTAX = "1.2.840.10008.1.2.4.70"
REPEATS = 5
#: What the peer's environment gets: pydicom with both of its plugins for JPEG Lossless.
PEER = ("pydicom==3.0.2", "numpy", "python-gdcm", "pylibjpeg", "pylibjpeg-libjpeg")
PEER_CODE = """
import hashlib, json, sys, time
from pathlib import Path
from pydicom import dcmread
from pydicom.pixels.decoders import JPEGLosslessSV1Decoder
files = sorted(Path(sys.argv[1]).iterdir())
dcmread(files[0]).pixel_array
start = time.perf_counter()
found = [dcmread(path).pixel_array for path in files]
seconds = time.perf_counter() - start
print(json.dumps({
    "seconds": seconds, "plugin": JPEGLosslessSV1Decoder.available_plugins[0],
    "hash": hashlib.sha256(b"".join(a.astype("<u2").tobytes() for a in found)).hexdigest(),
}))
"""


def rows() -> list[Row]:
    """Measure and return the rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, volume = folder / "files", noise(SLICES, SIDE, SIDE)
        write_series(files, volume, 1, _encode, SYNTAX)
        if not np.array_equal(_ours(files, THREADS), volume):
            message = "decoded values are not those that were encoded"
            raise ValueError(message)
        python = _peer(folder / "peer")
        if python is None:
            return [
                shown(
                    Row(
                        name="JPEG Lossless, 2 threads, images a second",
                        measured=SLICES / _timed(files, THREADS),
                        detail="ratio not measured: needs a network (or python3-venv) for the peer",
                    )
                )
            ]
        turns = [
            (_timed(files, THREADS), _timed(files, 1), _theirs(python, files, volume))
            for _ in range(REPEATS)
        ]
    two, one, peer = np.median([(a, b, c.seconds) for a, b, c in turns], axis=0).tolist()
    return [
        shown(
            Row(
                name="JPEG Lossless, 2 cores: ours / pydicom",
                measured=peer / two,
                relation=">=",
                goal=3.0,
                detail=f"{SLICES / two:.0f} (one thread {SLICES / one:.0f}) and "
                f"{SLICES / peer:.0f} images a second, bit-equal; its plugin: {turns[0][2].plugin}",
            )
        )
    ]


@dataclass(frozen=True)
class Theirs:
    """One turn of the peer."""

    seconds: float
    plugin: str  # the one that pydicom takes first


def _encode(plane: np.ndarray) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.ljpeg_encode(plane, bitspersample=16))


def _ours(folder: Path, threads: int) -> np.ndarray:
    with quiet(), ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(read_image, files_below(folder)))
    return np.stack([pixels.stored[0] for _, pixels in found])


def _timed(folder: Path, threads: int) -> float:
    files = files_below(folder)
    start = time.perf_counter()
    with quiet(), ThreadPoolExecutor(threads) as pool:
        list(pool.map(read_image, files))
    return time.perf_counter() - start


def _peer(folder: Path) -> Path | None:
    """Return a Python with pydicom and its plugins, in an environment of its own."""
    try:
        venv.create(folder, with_pip=True)
    except subprocess.CalledProcessError:  # Debian's Python without python3-venv
        return None
    python = folder / "bin" / "python"
    got = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEER],
        check=False,
        capture_output=True,
        text=True,
    )
    return python if got.returncode == 0 else None


def _theirs(python: Path, files: Path, volume: np.ndarray) -> Theirs:
    ended = subprocess.run(
        [str(python), "-c", PEER_CODE, str(files)], check=True, capture_output=True, text=True
    )
    found = json.loads(ended.stdout)
    if found["hash"] != hashlib.sha256(volume.tobytes()).hexdigest():
        message = "pydicom's values are not those that were encoded"
        raise ValueError(message)
    return Theirs(float(found["seconds"]), str(found["plugin"]))


if __name__ == "__main__":
    told(rows)
