"""Brightness of a site's studies, for the histogram of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from client.cohort.decode import Object, header_of, pixels_of
from client.cohort_statistics.account import StudyAccount
from client.dicom.contained import contained
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reasons import UnusableFile
from client.site.cache import PIXELS, pixels_key

#: Every so many pixels are looked at: a mean of thousands is as good as one of millions.
_STEP = 4


def mean_intensities(studies: Iterable[StudyAccount], cache: Path) -> dict[tuple[str, str], float]:
    """Return the mean of each used study's middle image, by patient and study, in rescaled units.

    A study whose pixels are not in the store is not in the answer; nothing is decoded for it.
    """
    found: dict[tuple[str, str], float] = {}
    with PixelStore(cache / PIXELS) as store:
        for study in studies:
            value = _mean(study, store) if study.used else None
            if value is not None:
                found[study.patient, study.key] = value
    return found


def _mean(study: StudyAccount, store: PixelStore) -> float | None:
    for path in (study.images[len(study.images) // 2], *study.images):
        try:
            with contained():
                key = pixels_key(path, study.patient)
                entry = store.find(key)
                if entry is None or entry.stored is None:
                    continue
                item = Object(path=str(path), key=key, header=header_of(entry))
                pixels, frame = pixels_of(item, store), item.header.frames // 2
                values, padded = pixels.values(frame), pixels.padded((slice(frame, frame + 1),))
        except (OSError, UnusableFile):
            continue
        counted = values[::_STEP, ::_STEP]
        if padded is not None and not padded.all():
            counted = counted[~padded[0, ::_STEP, ::_STEP]]
        return float(counted.mean(dtype=np.float64)) if counted.size else None
    return None
