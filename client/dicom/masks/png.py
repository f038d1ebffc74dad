"""PNG masks of the shape of their image, as numbered structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.dicom.masks.mask_remarks import Tell, to_nobody
from client.dicom.masks.png_values import drawn_around, rims, shown_values, strays
from client.dicom.masks.seg_segments import Labels, Structures
from client.dicom.reasons import Reason, UnusableFile


def read_png(
    path: Path, shape: tuple[int, int], structures: Structures, tell: Tell = to_nobody
) -> Labels:
    """Read a PNG of the image's shape as the grey values that it shows.

    Values are a structure's own; 0 among them means every value but 0, and a picture of 0 and
    255 alone is the one structure there is. Grey values of no structure are told where they are
    few, and else refused.
    """
    if not path.is_file():
        raise UnusableFile(Reason.MASK_MISSING, path.name)
    values = shown_values(path, tell)
    if values.shape != shape:
        raise UnusableFile(Reason.MASK_UNUSABLE, f"mask {values.shape}, image {shape}")
    labels = label_map(values, structures)
    named = {value for wanted in structures.values() for value in wanted}
    if around := drawn_around(labels):
        tell(UnusableFile(Reason.MASK_INVERTED, around))
    # A picture of one value is what `label_map` took for the one structure.
    if len(np.unique(values[values != 0])) > 1:
        for reason, detail in (
            (Reason.MASK_RIM, rims(values)),
            (Reason.MASK_GREYS, strays(values, named)),
        ):
            if detail:
                tell(UnusableFile(reason, detail))
    return labels


def label_map(values: NDArray[np.integer], structures: Structures) -> Labels:
    """Return 1.. for each structure's values, in order; later structures win where they overlap."""
    labels = np.zeros(values.shape, np.uint8)
    for number, wanted in enumerate(structures.values(), 1):
        labels[(values > 0) if 0 in wanted else np.isin(values, wanted)] = number
    if values.any() and not labels.any():
        present = np.unique(values[values != 0])
        if len(structures) == 1 and present.tolist() == [255]:
            return (values > 0).astype(np.uint8)
        found = ", ".join(str(v) for v in present[:5])
        raise UnusableFile(Reason.MASK_UNUSABLE, f"no structure has the value {found}")
    return labels
