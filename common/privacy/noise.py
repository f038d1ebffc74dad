"""Gaussian noise and secret draws that nobody can repeat, and a repeatable one for simulations.

`ChaChaNoise` has no seed argument: with a seed, noise is a function of public facts and
hides nothing (two runs with the same seed differ by exactly the patients' gradients).

Public: NoiseSource, ChaChaNoise, SimulatedNoise, GRID.
"""

from __future__ import annotations

import hashlib
import math
import os
from typing import NoReturn, Protocol

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from torch import Tensor

#: Contributions and noise are whole multiples of this part of the clip norm, so that the low
#: bits of floating-point noise tell nothing (Mironov 2012) and sums are exact in any order.
GRID = 2.0**-20
#: Draws made at a time: they stay in the processor's cache.
_CHUNK = 2**17
_ZEROS = bytes(8 * _CHUNK)


class NoiseSource(Protocol):
    """Where the randomness of privacy comes from: noise, and who and what is in a step."""

    @property
    def simulated(self) -> bool:
        """Whether the noise can be repeated, and so protects nobody."""
        ...

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return independent normal draws in float64."""
        ...

    def uniform(self, count: int) -> Tensor:
        """Return independent draws in [0, 1) in float64, (count,)."""
        ...


class ChaChaNoise:
    """Noise from ChaCha20 (RFC 8439) under a key of the operating system, new for each object.

    It cannot be copied or stored, and a forked process takes a key of its own: noise that two
    releases share can be subtracted.
    """

    simulated = False

    def __init__(self) -> None:
        self._process, self._stream = os.getpid(), _Stream(os.urandom(32), os.urandom(16))

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return normal draws."""
        return self._own().gaussian(shape, standard_deviation)

    def uniform(self, count: int) -> Tensor:
        """Return uniform draws."""
        return self._own().uniform(count)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied."""
        message = "ChaChaNoise cannot be copied or stored; make a new one."
        raise TypeError(message)

    def _own(self) -> _Stream:
        if os.getpid() != self._process:
            self._process, self._stream = os.getpid(), _Stream(os.urandom(32), os.urandom(16))
        return self._stream


class SimulatedNoise:
    """Repeatable noise for simulations only: whatever it is used for makes no privacy claim."""

    simulated = True

    def __init__(self, *seed: str | int) -> None:
        key = hashlib.sha256("/".join(map(str, seed)).encode()).digest()
        self._stream = _Stream(key, bytes(16))

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return normal draws."""
        return self._stream.gaussian(shape, standard_deviation)

    def uniform(self, count: int) -> Tensor:
        """Return uniform draws."""
        return self._stream.uniform(count)


class _Stream:
    """The key stream of ChaCha20 read as numbers."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._encryptor = Cipher(ChaCha20(key, nonce), mode=None).encryptor()

    def uniform(self, count: int) -> Tensor:
        """Return draws in [0, 1) with 53 random bits each."""
        parts = [
            self._words(min(_CHUNK, count - start)) for start in range(0, count, _CHUNK)
        ]  # fmt: skip
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return normal draws by Box and Muller (1958), two from two uniforms."""
        count = math.prod(shape)
        draws = torch.empty(count, dtype=torch.float64)
        for start in range(0, count, _CHUNK):
            part = draws[start : start + _CHUNK]
            half = (len(part) + 1) // 2
            radius = self._fractions(half).log_().mul_(-2.0).sqrt_()
            angle = self._fractions(half).mul_(2 * math.pi)
            part[:half] = radius * angle.cos()
            part[half:] = (radius * angle.sin())[: len(part) - half]
        return draws.mul_(standard_deviation).reshape(shape)

    def _words(self, count: int) -> Tensor:
        """Return draws in [0, 1), multiples of 2^-53."""
        words = np.frombuffer(self._bytes(count), dtype="<u8")
        return torch.from_numpy((words >> np.uint64(11)).astype(np.float64)).mul_(2.0**-53)

    def _fractions(self, count: int) -> Tensor:
        """Return draws in (0, 1] from 64 bits by rounding: faster, and safe to take logs of."""
        words = torch.frombuffer(bytearray(self._bytes(count)), dtype=torch.int64)
        return words.to(torch.float64).mul_(2.0**-64).add_(0.5).clamp_min_(2.0**-54)

    def _bytes(self, count: int) -> bytes:
        return self._encryptor.update(_ZEROS[: 8 * count])
