"""Folders with what hospitals export besides good series, and what a cohort makes of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items

from client.cohort.decode import read_objects
from client.cohort.image import Image
from client.cohort.images import find_images
from client.cohort.scan import dicom_files as files_of
from client.cohort.select import Grouping
from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.index.index import Index
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reasons import Reason, Unusable
from common.config.run_config import Images
from tests.client.dicom_files import Values, image, noise, save, slices

VOLUME = noise(12, 8, 9)


@dataclass(frozen=True)
class Outcome:
    """What is made of a folder: usable images, the index's rows, and every reason."""

    images: tuple[Image, ...]
    instances: tuple[Instance, ...]
    quarantined: tuple[Quarantined, ...]
    reasons: Counter[Reason]


def series(volume: Values = VOLUME, gap: float = 1.5, name: str = "1") -> list[FileDataset]:
    """Return the slices of an axial series with an image type and a rescale."""
    found = slices(volume, gap=gap, series=name)
    for dataset in found:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    return found


def write(folder: Path, datasets: Sequence[FileDataset], start: int = 0) -> list[Path]:
    """Write one file for each, numbered."""
    return [
        save(folder / f"{number:03d}.dcm", dataset)
        for number, dataset in enumerate(datasets, start)
    ]


def outcome_of(site: Path, dimensions: int = 3) -> Outcome:
    """Read a folder as a cohort does: index, objects on threads, images.

    Its files have rested for an hour, so that nobody waits whether they still grow.
    """
    for path in site.rglob("*"):
        at = path.stat().st_mtime_ns - 3600 * 10**9
        os.utime(path, ns=(at, at))
    rules = Images(size=(8, 8) if dimensions == 2 else (8, 8, 8))
    home = site.with_name(f"{site.name}-home")
    with PixelStore(home / "cache" / "pixels") as store, Index(home / "index.db") as index:
        found = read_objects(
            site,
            files_of(site, frozenset()),
            lambda _header: None,
            store,
            Grouping(by_series=dimensions == 3),
            index,
        )
        seen = tuple(find_images(found, rules, store))
        lost = [one for one in seen if isinstance(one, Unusable)]
        return Outcome(
            images=tuple(one for one in seen if isinstance(one, Image)),
            instances=tuple(index.instances(site)),
            quarantined=index.quarantined(site),
            reasons=Counter(problem.reason for problem in (*found.problems, *lost)),
        )


def enhanced(volume: Values, order: Sequence[int], gap: float = 1.5) -> FileDataset:
    """Return an enhanced multi-frame CT whose frame k is slice order[k], rescaled by itself."""
    dataset = image(volume[list(order)], "P1", "study of P1", "enhanced")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.Modality = "CT"
    dataset.NumberOfFrames = len(order)
    groups = []
    for number in order:
        group = Dataset()
        place, line, content = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0.0, 0.0, gap * number]
        line.RescaleSlope, line.RescaleIntercept = str(1 + number), str(-10 * number)
        line.RescaleType = "HU"
        content.InStackPositionNumber = number + 1
        group.PlanePositionSequence = Items([place])
        group.PixelValueTransformationSequence = Items([line])
        group.FrameContentSequence = Items([content])
        groups.append(group)
    shared, turn, measures = Dataset(), Dataset(), Dataset()
    turn.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.7], gap
    shared.PlaneOrientationSequence = Items([turn])
    shared.PixelMeasuresSequence = Items([measures])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items(groups)
    return dataset


def quantities(volume: Values = VOLUME) -> np.ndarray:
    """Return what the slices of `series` mean."""
    return volume.astype(np.float32) - 1024
