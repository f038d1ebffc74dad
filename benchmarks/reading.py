"""Uncompressed DICOM to float32: 2-D images and a 3-D series against MONAI's PydicomReader.

    python benchmarks/reading.py

256 CT images of 512 x 512, and a series of 100 x 512 x 512, in Explicit VR Little Endian with
headers of about 120 elements; one thread, files in the page cache. Both sides give quantities
(rescaled, float32); the peer's voxels have columns first, and its affine is in RAS. Before anything
is timed, voxels are compared for equality, and the affine to 1e-6 mm. Times are medians over turns.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from ct_files import noise, write_series
from row import Row, shown, told

from client.dicom.pixels.native import read_image
from client.dicom.reading.files import File, files_below
from client.dicom.reading.volume import stack_slices

IMAGES, SLICES, SIDE = 256, 100, 512
REPEATS = 5
#: Index (row, column, slice) in LPS to index (column, row, slice) in RAS.
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Float = NDArray[np.float32]


def rows() -> list[Row]:
    """Measure and return the rows."""
    warnings.simplefilter("ignore")  # of the peer, about decoders that this needs not
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_series(folder / "images", noise(IMAGES, SIDE, SIDE), 1)
        write_series(folder / "volume", noise(SLICES, SIDE, SIDE), 2)
        images, slices = files_below(folder / "images"), files_below(folder / "volume")
        _check_flat(images)
        _check_volume(slices, folder / "volume")
        flat = _rates(lambda: _all(_flat, images), lambda: _all(_peers_flat, images), IMAGES)
        deep = _rates(lambda: _volume(slices), lambda: _peers_volume(folder / "volume"), SLICES)
    return [
        shown(
            Row(
                name=f"{kind}: ours / MONAI PydicomReader",
                measured=rates[0] / rates[1],
                relation=">=",
                goal=3.0,
                detail=f"{rates[0]:.0f} and {rates[1]:.0f} images a second, {equal}",
            )
        )
        for kind, rates, equal in (
            ("2-D image to float32", flat, "voxels equal"),
            ("3-D series to float32", deep, "voxels and affine equal"),
        )
    ]


def _flat(file: File) -> Float:
    return read_image(file)[1].values(0)


def _peers_flat(file: File) -> Float:
    from monai.data.image_reader import PydicomReader

    reader = PydicomReader()
    return np.asarray(reader.get_data(reader.read(str(file.path)))[0])


def _volume(files: list[File]) -> tuple[Float, NDArray[np.float64]]:
    pixels, geometry = stack_slices([read_image(file) for file in files])
    return pixels.patch((slice(None),)), geometry.affine


def _peers_volume(folder: Path) -> tuple[Float, NDArray[np.float64]]:
    from monai.data.image_reader import PydicomReader

    reader = PydicomReader()
    values, facts = reader.get_data(reader.read(str(folder)))
    return np.asarray(values), np.asarray(facts["affine"])


def _all(read: Callable[[File], Float], files: list[File]) -> None:
    for file in files:
        read(file)


def _check_flat(files: list[File]) -> None:
    for file in files[::16]:
        if not np.array_equal(_flat(file), _peers_flat(file).T):
            message = f"{file.path} differs between ours and PydicomReader"
            raise ValueError(message)


def _check_volume(files: list[File], folder: Path) -> None:
    ours, affine = _volume(files)
    theirs, peers_affine = _peers_volume(folder)
    same = np.array_equal(ours, theirs.transpose(2, 1, 0))
    # Ours takes (slice, row, column) to LPS, the peer's (column, row, slice) to RAS.
    turned = TO_RAS @ affine[:, [2, 1, 0, 3]]
    if not same or not np.allclose(turned, peers_affine, atol=1e-6):
        message = f"the volume differs: voxels equal {same}, affines {turned} and {peers_affine}"
        raise ValueError(message)


def _rates(
    ours: Callable[[], object], theirs: Callable[[], object], images: int
) -> tuple[float, float]:
    """Return images a second of both, taking turns."""
    spent: list[tuple[float, float]] = []
    for _ in range(REPEATS):
        turn = []
        for run in (ours, theirs):
            start = time.perf_counter()
            run()
            turn.append(time.perf_counter() - start)
        spent.append((turn[0], turn[1]))
    a, b = np.median(np.array(spent), axis=0).tolist()
    return images / a, images / b


if __name__ == "__main__":
    told(rows)
