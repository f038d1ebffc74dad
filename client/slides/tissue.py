"""Where a slide has tissue: by colour, at about 8 microns a pixel.

Public: MASK_MICRONS, tissue_of.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from client.slides.frames import Rgb

_Grey = NDArray[np.float32]

#: What the mask is looked for at.
MASK_MICRONS = 8.0
#: Stained tissue is coloured; glass, dust and shadows are grey.
_COLOURED = 0.07
#: A felt pen on the glass is of a hue that no stain has: from yellow over green to blue.
_PEN = (50.0, 225.0)  # degrees
_PEN_SATURATION = 0.25
#: Darker than any stain: a black pen, the slide's edge.
_DARK = 0.15
#: Vessels and glands are tissue; larger gaps are glass. In mm2.
_LARGEST_HOLE = 0.1


def tissue_of(colours: Rgb, microns: float) -> NDArray[np.bool_]:
    """Return where there is tissue, (rows, columns), of a picture with pixels of this size."""
    # Imported here: it takes a while to load, and most runs read no slide.
    from scipy import ndimage

    scaled = colours.astype(np.float32) / np.float32(255)
    high: _Grey = scaled.max(axis=2)
    spread: _Grey = high - scaled.min(axis=2)
    saturation = spread / np.maximum(high, 1e-6)
    hue = _hue(scaled, high, spread)
    pen = (saturation > _PEN_SATURATION) & (hue > _PEN[0]) & (hue < _PEN[1])
    found = (saturation > _COLOURED) & (high > _DARK) & ~pen
    closed = ndimage.binary_closing(np.pad(found, 2), iterations=2)[2:-2, 2:-2] & ~pen
    holes, count = ndimage.label(~closed)
    if count:
        area = np.bincount(holes.flatten()) * (microns / 1e3) ** 2
        small = area < _LARGEST_HOLE
        small[0] = False
        # What reaches the edge of the scan is no hole.
        edges = (holes[0], holes[-1], holes[:, 0], holes[:, -1])
        small[np.unique(np.concatenate(edges))] = False
        closed |= small[holes] & ~pen
    return np.asarray(closed)


def _hue(scaled: _Grey, high: _Grey, spread: _Grey) -> _Grey:
    """Return the hue in degrees, 0 to 360; 0 where there is no colour."""
    red, green, blue = np.moveaxis(scaled, 2, 0)
    safe = np.maximum(spread, 1e-6)
    by_red = (green - blue) / safe % 6
    by_green = (blue - red) / safe + 2
    by_blue = (red - green) / safe + 4
    found = np.where(high == red, by_red, np.where(high == green, by_green, by_blue))
    return np.where(spread > 0, found * 60, 0).astype(np.float32)
