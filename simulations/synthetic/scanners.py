"""Effects of a hospital's scanner on its images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Real = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """The faults and habits of one machine."""

    gain: float = 1.0  # multiplies what is measured
    offset: float = 0.0  # is added to it; X-ray: of a full range of 1, CT: times 1000 HU
    gamma: float = 1.0  # response of film and of an X-ray detector's look-up table; not in CT
    blur: int = 0  # passes of a (1, 2, 1) / 4 smoothing in the plane
    noise: float = 0.03  # standard deviation; X-ray: of a full range of 1, CT: times 500 HU


def take_xray(picture: Float, scanner: Scanner, rng: np.random.Generator) -> Float:
    """Return (rows, columns) in 0 to 1 as this machine takes it."""
    taken = np.clip(picture, 0, 1)
    if scanner.gamma != 1:
        taken = taken**scanner.gamma
    taken = smooth(scanner.gain * taken + scanner.offset, scanner.blur)
    return as_float32(np.clip(taken + _noise(picture.shape, scanner.noise, rng), 0, 1))


def take_ct(hounsfield: Float, scanner: Scanner, rng: np.random.Generator) -> Float:
    """Return (slices, rows, columns) in Hounsfield units as this machine takes it."""
    taken = smooth(scanner.gain * (hounsfield + 1000), scanner.blur)
    shift = 1000 * scanner.offset - 1000
    return taken + shift + _noise(taken.shape, 500 * scanner.noise, rng)


def smooth(picture: Float, passes: int) -> Float:
    """Blur along the last two axes; the border repeats its pixels."""
    for _ in range(passes):
        for axis in (-2, -1):
            moved = np.moveaxis(picture, axis, 0)
            padded = np.concatenate([moved[:1], moved, moved[-1:]])
            moved = 0.5 * moved + 0.25 * (padded[:-2] + padded[2:])
            picture = np.moveaxis(moved, 0, axis)
    return picture


def as_float32(values: Real) -> Float:
    """Return the values in single precision; nothing is copied when they are already."""
    return values.astype(np.float32, copy=False)


def _noise(shape: tuple[int, ...], deviation: float, rng: np.random.Generator) -> Float:
    return np.float32(deviation) * rng.standard_normal(shape, dtype=np.float32)
