"""Gaussian noise and secret draws that nobody can repeat, and a repeatable one for simulations.

`ChaChaNoise` has no seed argument: with a seed, noise is a function of public facts and
hides nothing (two runs with the same seed differ by exactly the patients' gradients).
"""

from __future__ import annotations

import hashlib
import math
import os
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

Float = NDArray[np.float64]

#: Sums and noise are rounded to multiples of this part of the clip norm, so that the low
#: bits of floating-point noise tell nothing (Mironov 2012).
GRID = 2.0**-20


class NoiseSource(Protocol):
    """Where the randomness of privacy comes from."""

    @property
    def simulated(self) -> bool:
        """Whether the noise can be repeated, and so protects nobody."""
        ...

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Float:
        """Return independent normal draws."""
        ...

    def chosen(self, count: int, probability: float) -> NDArray[np.bool_]:
        """Return, for each of `count` patients, an independent secret draw."""
        ...


class ChaChaNoise:
    """Noise from ChaCha20 (RFC 8439) under a key of the operating system, new for each object."""

    simulated = False

    def __init__(self) -> None:
        self._stream = Cipher(ChaCha20(os.urandom(32), os.urandom(16)), mode=None).encryptor()

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Float:
        """Return normal draws by Box and Muller (1958) in float64."""
        count = math.prod(shape)
        half = (count + 1) // 2
        # 1 - u keeps the logarithm's argument above zero.
        radius = np.sqrt(-2.0 * np.log(1.0 - self._uniform(half)))
        angle = 2.0 * np.pi * self._uniform(half)
        draws = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        return standard_deviation * draws.reshape(shape)

    def chosen(self, count: int, probability: float) -> NDArray[np.bool_]:
        """Return secret Bernoulli draws."""
        return self._uniform(count) < probability

    def _uniform(self, count: int) -> Float:
        """Return draws in [0, 1) with 53 random bits each."""
        words = np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


class SimulatedNoise:
    """Repeatable noise for simulations only: whatever it is used for makes no privacy claim."""

    simulated = True

    def __init__(self, *place: str | int) -> None:
        digest = hashlib.sha256("/".join(map(str, place)).encode()).digest()
        self._generator = np.random.default_rng(int.from_bytes(digest, "big"))

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Float:
        """Return normal draws."""
        return standard_deviation * self._generator.standard_normal(shape)

    def chosen(self, count: int, probability: float) -> NDArray[np.bool_]:
        """Return Bernoulli draws."""
        return self._generator.random(count) < probability


def on_grid(value: Float, clip_norm: float) -> Float:
    """Return value rounded to the grid of its clip norm."""
    step = GRID * clip_norm
    return np.rint(value / step) * step
