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
_CHUNK = 2**16
#: Bytes under one nonce: below the 2^32 blocks that ChaCha20 can count (RFC 8439, section 2.3).
_STRETCH = 2**37
_ZEROS = memoryview(bytes(8 * _CHUNK))


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

    def of_round(self, run: str, round_number: int) -> NoiseSource:
        """Return the source of one round: repeatable noise begins anew there, real never does."""
        ...


class ChaChaNoise:
    """Noise from ChaCha20 (RFC 8439) under a key of the operating system, new for each object.

    It cannot be copied or stored, and a forked process takes a key of its own: noise that two
    releases share can be subtracted.
    """

    simulated = False

    def __init__(self) -> None:
        self._process, self._stream = os.getpid(), _Stream(os.urandom(32))

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return normal draws."""
        return self._own().gaussian(shape, standard_deviation)

    def uniform(self, count: int) -> Tensor:
        """Return uniform draws."""
        return self._own().uniform(count)

    def of_round(self, run: str, round_number: int) -> NoiseSource:  # noqa: ARG002 - no round repeats
        """Return this very source: what a round is called never decides its noise."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied."""
        message = "ChaChaNoise cannot be copied or stored; make a new one."
        raise TypeError(message)

    def _own(self) -> _Stream:
        if os.getpid() != self._process:
            self._process, self._stream = os.getpid(), _Stream(os.urandom(32))
        return self._stream


class SimulatedNoise:
    """Repeatable noise for simulations only: whatever it is used for makes no privacy claim.

    Each round has a stream of its own, so that a simulation that was interrupted, or whose
    sites run on several machines, ends in the same bits.
    """

    simulated = True

    def __init__(self, *seed: str | int) -> None:
        self._seed = seed
        key = hashlib.sha256("/".join(map(str, seed)).encode()).digest()
        self._stream = _Stream(key)

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return normal draws."""
        return self._stream.gaussian(shape, standard_deviation)

    def uniform(self, count: int) -> Tensor:
        """Return uniform draws."""
        return self._stream.uniform(count)

    def of_round(self, run: str, round_number: int) -> SimulatedNoise:
        """Return the stream of one round, from its beginning."""
        return SimulatedNoise(*self._seed, run, round_number)

    def __reduce__(self) -> tuple[type[SimulatedNoise], tuple[str | int, ...]]:
        """Travel as the seed; a copy begins anew."""
        return SimulatedNoise, self._seed


class _Stream:
    """The key stream of ChaCha20 read as numbers, in memory that is used again and again."""

    def __init__(self, key: bytes) -> None:
        self._key, self._stretch = key, 0
        self._open()
        self._bytes = bytearray(8 * _CHUNK)
        self._words = torch.frombuffer(self._bytes, dtype=torch.int64)
        self._radius, self._angle, self._wave = torch.empty((3, _CHUNK // 2), dtype=torch.float64)

    def uniform(self, count: int) -> Tensor:
        """Return draws in [0, 1), multiples of 2^-53."""
        draws = torch.empty(count, dtype=torch.float64)
        for part in torch.split(draws, _CHUNK):
            words = np.frombuffer(self._bytes, dtype="<u8")[: self._next(len(part))]
            part.copy_(torch.from_numpy((words >> np.uint64(11)).astype(np.float64)))
        return draws.mul_(2.0**-53)

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return normal draws by Box and Muller (1958), two from two uniforms."""
        draws = torch.empty(math.prod(shape), dtype=torch.float64)
        for part in torch.split(draws, _CHUNK):
            half = (len(part) + 1) // 2
            self._next(2 * half)
            words, wave = self._words[: 2 * half], self._wave[:half]
            # Signed words over 2^64 lie in [-1/2, 1/2]; a uniform of at least 2^-53 has a log.
            radius = self._radius[:half].copy_(words[:half]).mul_(2.0**-64).add_(0.5 + 2.0**-53)
            # Negative, because these angles are half a turn off those of [0, 1].
            radius.log_().mul_(-2.0 * standard_deviation**2).sqrt_().neg_()
            angle = self._angle[:half].copy_(words[half:]).mul_(2 * math.pi * 2.0**-64)
            torch.mul(radius, torch.cos(angle, out=wave), out=part[:half])
            rest = part[half:]
            torch.mul(radius[: len(rest)], torch.sin(angle, out=wave)[: len(rest)], out=rest)
        return draws.reshape(shape)

    def _open(self) -> None:
        """Begin a stretch of the key: a block counter of zero, then the nonce."""
        nonce = bytes(4) + self._stretch.to_bytes(12, "little")
        self._encryptor = Cipher(ChaCha20(self._key, nonce), mode=None).encryptor()
        self._left = _STRETCH

    def _next(self, count: int) -> int:
        """Put fresh words at the start of the buffer, and return their number."""
        if self._left < 8 * count:
            self._stretch += 1
            self._open()
        self._left -= 8 * count
        self._encryptor.update_into(_ZEROS[: 8 * count], memoryview(self._bytes)[: 8 * count])
        return count
