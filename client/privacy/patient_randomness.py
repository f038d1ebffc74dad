"""Random numbers for each patient and image under a step's secret key.

Guarantee: it follows from the key, the PatientID and the image's place among the patient's own
images alone. AES-256 of distinct blocks under a secret key cannot be told from independent draws,
so sampling and the choice of images are as secret and as fair as draws from the noise source.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from torch import Tensor

from common.privacy.noise import NoiseSource

#: Draws of 53 bits that the key is made of: more than the 256 that it has.
_DRAWS = 8


class PatientDraw:
    """The draws of one step."""

    def __init__(self, noise: NoiseSource) -> None:
        secret = noise.uniform(_DRAWS).cpu().numpy().astype("<f8").tobytes()
        self._key = hashlib.sha256(secret).digest()

    def uniform(self, pseudonyms: tuple[str, ...], patient: Tensor, place: Tensor) -> Tensor:
        """Return numbers from 0 to less than 1, one for each patient (position) and place."""
        blocks = np.zeros((len(patient), 2), "<u8")
        blocks[:, 0] = _digests(pseudonyms)[patient.cpu().numpy()] if len(patient) else 0
        blocks[:, 1] = place.cpu().numpy()
        # Each block is used once with a key, so that ECB is what is wanted: a permutation.
        cipher = Cipher(algorithms.AES(self._key), modes.ECB()).encryptor()  # noqa: S305
        drawn = np.frombuffer(cipher.update(blocks.tobytes()), "<u8")[::2]
        return torch.from_numpy((drawn >> np.uint64(11)).astype(np.float64) / 2**53)


@lru_cache(maxsize=4)
def _digests(pseudonyms: tuple[str, ...]) -> NDArray[np.uint64]:
    """Return 64 bits of each name; of 2,000 patients two share them with chance 1e-13."""
    found = [hashlib.sha256(p.encode(errors="surrogatepass")).digest()[:8] for p in pseudonyms]
    return np.frombuffer(b"".join(found), "<u8")
