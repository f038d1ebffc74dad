"""Gaussian noise and secret random numbers; a repeatable source for simulations.

`ChaChaNoise` has no seed argument: with a seed, noise is a function of public facts and
hides nothing (two runs with the same seed differ by exactly the patients' gradients).

Normal draws come rounded to a grid, exactly so: a draw is the nearest multiple to a normal
variable of which 191 bits of each uniform are looked at where fewer do not decide. What is a
multiple of the grid itself, plus such a draw, is the rounding of the sum with the unrounded
variable, so the Gaussian's epsilon holds for it, in the tails too.

    floats decide            where the error they may have cannot change the nearest multiple
    near the middle between two multiples, radius almost 0, first word almost 0
                             decided by mpmath from the same words and 128 more bits each

Public: NoiseSource, ChaChaNoise, SimulatedNoise, GRID, grid_of.
"""

from __future__ import annotations

import hashlib
import math
import os
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn, Protocol

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from torch import Tensor

from common.platform.errors import PrivacyError

if TYPE_CHECKING:
    from mpmath import MPContext

#: Contributions and noise are whole multiples of this part of the clip norm, so that the low
#: bits of floating-point noise tell nothing (Mironov 2012) and sums are exact in any order.
GRID = 2.0**-20
#: Draws made at a time: they stay in the processor's cache.
_CHUNK = 2**16
#: Bytes under one nonce: below the 2^32 blocks that ChaCha20 can count (RFC 8439, section 2.3).
_STRETCH = 2**37
_ZEROS = memoryview(bytes(8 * _CHUNK))
#: A first word is read by 63 bits: its float is then right to the last bit however small it is.
_WORD = 2**63
#: First words below this (one in a million) and as near to the largest: their log or its root
#: has too few right bits.
_TOO_SMALL, _TOO_LARGE = 2**43, 2**63 - 2**42
#: How far a float may be from the true value, as part of the standard deviation. Nine times the
#: largest error found in 32,000 draws with the hard ends forced (test_noise).
_FLOAT_ERROR = 2.0**-41
#: Bits that are added to each word where its own do not decide.
_MORE_BITS = 128
#: A grid this many times finer than the standard deviation where a whole number is too coarse.
_FINE = 2.0**20
#: Below this many whole numbers to a standard deviation the grid is finer than whole numbers.
_COARSEST = 2.0**10
#: Above, floats decide nothing any more.
_LARGEST_SPREAD = 2.0**36


def grid_of(standard_deviation: float) -> float:
    """Return what normal draws of this spread are whole multiples of: 1, or a power of two below.

    A whole number is a multiple of each of them.
    """
    if not 0 < standard_deviation <= _LARGEST_SPREAD:
        message = (
            f"Noise of standard deviation {standard_deviation:g} was asked for, expected above 0 "
            f"and up to {_LARGEST_SPREAD:g}. Raise epsilon or delta, or take fewer steps."
        )
        raise PrivacyError(message)
    if standard_deviation >= _COARSEST:
        return 1.0
    return 2.0 ** math.floor(math.log2(standard_deviation / _FINE))


class NoiseSource(Protocol):
    """Where the randomness of privacy comes from: noise, and who and what is in a step."""

    @property
    def simulated(self) -> bool:
        """Whether the noise can be repeated, and so protects nobody."""
        ...

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return independent normal draws in float64, rounded to `grid_of` their spread."""
        ...

    def uniform(self, count: int) -> Tensor:
        """Return independent draws in [0, 1) in float64, (count,)."""
        ...

    def of_round(self, run: str, round_number: int) -> NoiseSource:
        """Return the source of one round: repeatable noise begins anew there, real never does."""
        ...


class ChaChaNoise:
    """Noise from ChaCha20 (RFC 8439) under a key of the operating system, renewed for each call.

    The next key is a hash of the last and of fresh randomness, so a machine that was restored
    from an image, or a forked process, draws on differently. It cannot be copied or stored:
    noise that two releases share can be subtracted.
    """

    simulated = False

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._stream = _Stream(self._key)

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return normal draws."""
        return self._fresh().gaussian(shape, standard_deviation)

    def uniform(self, count: int) -> Tensor:
        """Return uniform draws."""
        return self._fresh().uniform(count)

    def of_round(self, run: str, round_number: int) -> NoiseSource:  # noqa: ARG002 - no round repeats
        """Return this very source: what a round is called never decides its noise."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied."""
        message = "ChaChaNoise cannot be copied or stored; make a new one."
        raise TypeError(message)

    def _fresh(self) -> _Stream:
        # The old key goes in too, should the system's own generator have been restored with us.
        self._key = hashlib.sha256(self._key + os.urandom(32)).digest()
        self._stream.begin(self._key)
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
        self._bytes = bytearray(8 * _CHUNK)
        self._words = torch.frombuffer(self._bytes, dtype=torch.int64)
        self._radius, self._angle, self._wave = torch.empty((3, _CHUNK // 2), dtype=torch.float64)
        self._value = torch.empty(_CHUNK, dtype=torch.float64)
        self.begin(key)

    def begin(self, key: bytes) -> None:
        """Begin the stream of a key."""
        self._key, self._stretch = key, 0
        self._open()
        # Bits for draws that need more; under a nonce that no stretch reaches.
        self._more = Cipher(ChaCha20(key, bytes(4) + b"\xff" * 12), mode=None).encryptor()

    def uniform(self, count: int) -> Tensor:
        """Return draws in [0, 1), multiples of 2^-53."""
        draws = torch.empty(count, dtype=torch.float64)
        for part in torch.split(draws, _CHUNK):
            words = np.frombuffer(self._bytes, dtype="<u8")[: self._next(len(part))]
            part.copy_(torch.from_numpy((words >> np.uint64(11)).astype(np.float64)))
        return draws.mul_(2.0**-53)

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return normal draws, rounded to the grid of their spread."""
        grid = grid_of(standard_deviation)
        draws = torch.empty(math.prod(shape), dtype=torch.float64)
        for part in torch.split(draws, _CHUNK) if len(draws) else ():
            half = (len(part) + 1) // 2
            self._next(2 * half)
            self._round_normal(part, half, standard_deviation / grid)
        if grid != 1:
            draws.mul_(grid)
        return draws.reshape(shape)

    def _round_normal(self, part: Tensor, half: int, spread: float) -> None:
        """Fill `part` by Box and Muller (1958), two draws from two words."""
        first, second = self._words[:half], self._words[half : 2 * half]
        first.bitwise_and_(_WORD - 1)
        value = self._value[: len(part)]
        uniform = self._radius[:half].copy_(first).add_(0.5).mul_(1 / _WORD)
        least, most = uniform.aminmax()
        radius = uniform.log_().mul_(-2.0 * spread**2).sqrt_()
        angle = self._angle[:half].copy_(second).mul_(2 * math.pi * 2.0**-64)
        wave = self._wave[:half]
        torch.mul(radius, torch.cos(angle, out=wave), out=value[:half])
        rest = value[half:]
        torch.mul(radius[: len(rest)], torch.sin(angle, out=wave)[: len(rest)], out=rest)
        torch.round(value, out=part)
        low, high = value.sub_(part).aminmax()  # how far each is from its multiple
        sure = 0.5 - _FLOAT_ERROR * spread
        if low < -sure or high > sure:
            self._decide(part, half, (value.abs() > sure).nonzero().flatten(), spread)
        if least < _TOO_SMALL / _WORD or most > _TOO_LARGE / _WORD:
            pairs = ((first < _TOO_SMALL) | (first > _TOO_LARGE)).nonzero().flatten()
            places = torch.cat([pairs, pairs + half])
            self._decide(part, half, places[places < len(part)], spread)

    def _decide(self, part: Tensor, half: int, places: Tensor, spread: float) -> None:
        """Round again what floats cannot, from the same words with more bits behind them."""
        for place in places.tolist():
            first = int(self._words[place % half])
            second = int(self._words[half + place % half])
            bits = self._more.update(bytes(2 * _MORE_BITS // 8))
            part[place] = _exactly(first, second, bits, spread, cosine=place < half)

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


@lru_cache(maxsize=1)
def _precise() -> MPContext:
    """Return arithmetic of 256 bits, apart from what others set."""
    # Imported here: a few draws in a million need it.
    from mpmath import MPContext

    context = MPContext()
    context.prec = 256
    return context


def _exactly(first: int, second: int, bits: bytes, spread: float, *, cosine: bool) -> float:
    """Return the draw of two words that go on with these bits, to the nearest whole number."""
    mp = _precise()
    scale = mp.mpf(2) ** _MORE_BITS
    more = [int.from_bytes(part, "little") for part in (bits[:16], bits[16:])]
    uniform = (mp.mpf(first) + (more[0] + mp.mpf(0.5)) / scale) / _WORD
    turn = (mp.mpf(second) + more[1] / scale) / 2**64
    wave = mp.cos if cosine else mp.sin
    radius = mp.mpf(spread) * mp.sqrt(-2 * mp.log(uniform))
    return float(mp.nint(radius * wave(2 * mp.pi * turn)))
