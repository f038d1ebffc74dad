"""Pictures of what the network sees, for the readiness report: they stay on this machine."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from common.data.sample import Patients

_MOST_PATIENTS, _MOST_CHANNELS = 6, 4
#: A small picture is enlarged by whole numbers, so that its pixels are seen.
_SHOWN_PIXELS = 192


@dataclass(frozen=True, kw_only=True)
class SeenImage:
    """One patient's image as it goes into the network, channel beside channel."""

    patient: str  # PatientID
    said: str  # shape, and which slice is shown
    uri: str  # of a PNG, in the page itself


def pictures_of(patients: Patients) -> tuple[SeenImage, ...]:
    """Return pictures of a few patients; of a volume its middle slice."""
    return tuple(
        _picture(name, image)
        for number, name in enumerate(patients.pseudonyms[:_MOST_PATIENTS])
        if (image := np.asarray(patients.image[int(patients.items_of(number)[0])])).ndim > 2
    )


def _picture(patient: str, image: NDArray[np.generic]) -> SeenImage:
    """Return the picture of an image, (channel, *spatial)."""
    said = f"{' x '.join(map(str, image.shape[1:]))}, {_channels(len(image))}"
    flat = image.astype(np.float32)
    if flat.ndim == 4:
        middle = flat.shape[1] // 2
        said += f", slice {middle + 1} of {flat.shape[1]}"
        flat = flat[:, middle]
    low, high = float(flat.min()), float(flat.max())
    grey = ((flat - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8)
    strip = np.concatenate(list(grey[:_MOST_CHANNELS]), axis=1)
    times = max(1, _SHOWN_PIXELS // max(grey.shape[1:]))
    return SeenImage(
        patient=patient, said=said, uri=png_uri(strip.repeat(times, 0).repeat(times, 1))
    )


def _channels(count: int) -> str:
    return "one channel" if count == 1 else f"{count} channels"


def png_uri(grey: NDArray[np.uint8]) -> str:
    """Return a picture, (rows, columns[, 3]), as it stands in a page."""
    from PIL import Image

    out = BytesIO()
    Image.fromarray(grey).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
