"""Random reads from the cache against MONAI's PersistentDataset, both warm, one thread.

    python benchmarks/cached_reads.py

2-D: one of 256 CT images of 256 x 256 as float32 in torch. 3-D: a patch of 64 x 64 x 64 at a
random place of a series of 100 x 512 x 512. Both start from the same DICOM files, the peer through
MONAI's PydicomReader. The cache maps stored values into memory, rescales what is asked for and
looks the object up each time; PersistentDataset loads the whole item. That both give the same
values is checked before anything is timed. Times are medians over repeats that take turns.
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
import torch
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

sys.path.insert(0, str(Path(__file__).parents[1]))

from row import Row, shown, told

from client.cohort.decode import Object, pixels_of, read_objects
from client.cohort.select import Grouping
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reading.read import Header

IMAGES, SIDE = 256, 256
VOLUME, PATCH = (100, 512, 512), 64
REPEATS = 7

Read = Callable[[int], torch.Tensor]


def rows() -> list[Row]:
    """Measure and return the rows."""
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, pair, reads in (
            ("2-D image of 256 x 256", _images(Path(folder)), (1000, 200)),
            ("3-D patch of 64 x 64 x 64", _patches(Path(folder)), (200, 3)),
        ):
            ours, peer = _rates(pair, reads)
            found.append(
                shown(
                    Row(
                        name=f"{name}: cache / PersistentDataset",
                        measured=ours / peer,
                        relation=">=",
                        goal=8.0,
                        detail=f"{ours:.0f} and {peer:.0f} reads a second",
                    )
                )
            )
    return found


def _images(folder: Path) -> tuple[Read, Read]:
    """Return reading image n from the cache, and from the peer."""
    files = [
        _write(folder / "images" / f"{n}.dcm", plane, n)
        for n, plane in enumerate(_noise(IMAGES, SIDE, SIDE))
    ]
    store, found = _ingest(folder / "images", files)
    by_name = {item.path: item for item in found}
    ordered = [by_name[path.name] for path in files]
    peer = _persistent(folder / "peer-images", files)

    def ours(number: int) -> torch.Tensor:
        return torch.from_numpy(pixels_of(ordered[number], store).values(0))

    def theirs(number: int) -> torch.Tensor:
        return peer(number)[0].mT  # MONAI has columns first

    return ours, theirs


def _patches(folder: Path) -> tuple[Read, Read]:
    """Return reading patch n of a volume from the cache, and from the peer."""
    for number, plane in enumerate(_noise(*VOLUME)):
        _write(folder / "volume" / f"{number}.dcm", plane, number)
    store, found = _ingest(folder / "volume", sorted((folder / "volume").iterdir()))
    slices = sorted(found, key=lambda item: item.header.positions[0][2])
    peer = _persistent(folder / "peer-volume", [folder / "volume"])
    rng = np.random.default_rng(0)
    corners = [[int(rng.integers(0, n - PATCH + 1)) for n in VOLUME] for _ in range(IMAGES)]

    def ours(number: int) -> torch.Tensor:
        first, row, column = corners[number]
        where = slice(None), slice(row, row + PATCH), slice(column, column + PATCH)
        chosen = slices[first : first + PATCH]
        found = np.empty((PATCH, PATCH, PATCH), np.float32)
        for level, item in enumerate(chosen):
            found[level] = pixels_of(item, store).patch(where)[0]
        return torch.from_numpy(found)

    def theirs(number: int) -> torch.Tensor:
        first, row, column = corners[number]
        whole = peer(0)[0]
        return (
            whole[column : column + PATCH, row : row + PATCH, first : first + PATCH]
            .permute(2, 1, 0)
            .contiguous()
        )

    return ours, theirs


def _noise(*shape: int) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 4096, shape, dtype=np.uint16)


def _write(path: Path, plane: NDArray[np.uint16], number: int) -> Path:
    """Write a CT slice."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.Modality, dataset.InstanceNumber = "P", "CT", number
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = generate_uid(
        entropy_srcs=[str(path.parent)]
    )
    dataset.ImagePositionPatient = [0, 0, number]
    dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    dataset.Rows, dataset.Columns = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    dataset.PixelData = plane.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _ingest(site: Path, files: list[Path]) -> tuple[PixelStore, list[Object]]:
    """Read files into a store as a site does, and open it anew."""
    folder = site.with_name(f"store-{site.name}")
    with PixelStore(folder) as store:
        found = read_objects(site, files, _take_all, store, Grouping(by_series=False))
    return PixelStore(folder), found.objects


def _take_all(header: Header) -> None:
    del header


def _persistent(folder: Path, sources: list[Path]) -> Callable[[int], torch.Tensor]:
    """Return reading item n of a PersistentDataset over MONAI's own DICOM reader."""
    warnings.simplefilter("ignore")  # of the peer, about decoders that this needs not
    logging.disable(logging.WARNING)
    from monai.data.dataset import PersistentDataset
    from monai.transforms.compose import Compose
    from monai.transforms.io.array import LoadImage
    from monai.transforms.utility.array import EnsureChannelFirst

    load = Compose([LoadImage(reader="PydicomReader"), EnsureChannelFirst()])
    dataset = PersistentDataset([str(source) for source in sources], load, cache_dir=folder)
    return lambda number: dataset[number]


def _rates(pair: tuple[Read, Read], reads: tuple[int, int]) -> tuple[float, float]:
    """Return reads a second of both, after checking that they read the same."""
    ours, peer = pair
    for number in range(IMAGES if reads[1] > 100 else 3):  # also fills the peer's cache
        if not np.array_equal(ours(number).numpy(), peer(number).numpy()):
            message = f"item {number} differs between the cache and PersistentDataset"
            raise ValueError(message)
    order = [int(n) for n in np.random.default_rng(1).integers(0, IMAGES, max(reads))]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for read, count, spent in zip(pair, reads, seconds, strict=True):
            start = time.perf_counter()
            for number in order[:count]:
                read(number)
            spent.append((time.perf_counter() - start) / count)
    return 1 / float(np.median(seconds[0])), 1 / float(np.median(seconds[1]))


if __name__ == "__main__":
    told(rows)
