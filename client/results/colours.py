"""Colours of structures, the same in SEG and pictures."""

from __future__ import annotations

import numpy as np

Rgb = tuple[int, int, int]  # 0 to 255, sRGB

#: Told apart on grey images, also by most who do not see red and green (Okabe and Ito).
_COLOURS: tuple[Rgb, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)


def colour(number: int) -> Rgb:
    """Return the colour of structure 1, 2, ..."""
    return _COLOURS[(number - 1) % len(_COLOURS)]


def cielab(rgb: Rgb) -> list[int]:
    """Return L*a*b* of D50 as PS3.3 C.10.7.1.1 packs it into 16 bits."""
    values = np.array(rgb) / 255
    linear = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    # sRGB to XYZ, adapted to D50 by Bradford's method, over D50's white (ICC.1).
    to_xyz = np.array(
        [
            [0.4360747, 0.3850649, 0.1430804],
            [0.2225045, 0.7168786, 0.0606169],
            [0.0139322, 0.0971045, 0.7141733],
        ]
    )
    xyz = to_xyz @ linear / np.array([0.9642, 1.0, 0.8249])
    cubic = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lightness = 116 * cubic[1] - 16
    a, b = 500 * (cubic[0] - cubic[1]), 200 * (cubic[1] - cubic[2])
    packed = (lightness / 100, (a + 128) / 255, (b + 128) / 255)
    return [int(np.clip(round(value * 65535), 0, 65535)) for value in packed]
