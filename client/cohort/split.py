"""Split of patients into training, validation and test, each patient by itself.

Guarantee: a patient's part follows from that patient's identifier, the split that its own rows
give, the configuration and a key; from nobody else. So one patient more or less moves no other.

    between hospitals  the key is the hospital's own secret (`site_key`), the same for all runs and
                       seeds: no coordinator chooses who is tested, and who is tested once trains no
                       run of the same fractions
    in a simulation    the key follows the seed (`simulated_key`), so that the split can be repeated
                       and differs from seed to seed; whoever knows the seed knows the split

Not guaranteed: sizes. Each patient is drawn with the configured chance, so a part of n expected
patients has about n +- sqrt(n), and a small hospital may have nobody in one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from client.site.pseudonyms import pseudonyms
from common.config.run_config import Split

Part = Literal["train", "validation", "test"]

_NAMES: Mapping[str, Part] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def part_named(text: str) -> Part | None:
    """Return the split that a cell names, or None."""
    return _NAMES.get(text.strip().lower())


@dataclass(frozen=True, kw_only=True)
class SplitKey:
    """The key of a split: with it, and not without it, a patient's part can be told."""

    secret: bytes = field(repr=False)

    def fingerprint(self) -> str:
        """Return what tells this key from another; nobody finds 32 secret bytes by it."""
        return hmac.digest(self.secret, b"fingerprint of a split key", hashlib.sha256).hex()[:32]

    def draw(self, purpose: str, patient: str) -> float:
        """Return the patient's own number from 0 to less than 1, as good as drawn by chance."""
        text = f"{purpose}\0{patient}".encode(errors="surrogatepass")
        digest = hmac.digest(self.secret, text, hashlib.sha256)
        return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def site_key(path: Path) -> SplitKey:
    """Return the key by which a hospital splits its patients, of its key for identifiers.

    Whoever chose it would choose who is tested, and could have one after the other be measured:
    it is never the run's seed, and stays the same for all runs.
    """
    return SplitKey(secret=pseudonyms(path).secret("split"))


def simulated_key(seed: int) -> SplitKey:
    """Return the key that a simulation's seed gives; it is no secret."""
    return SplitKey(secret=hashlib.sha256(f"split of a simulation/{seed}".encode()).digest())


def part_of(patient: str, given: Part | None, rules: Split, key: SplitKey, fold: int = 0) -> Part:
    """Return one patient's part; `given` is what its own rows of the table say.

    A given split is kept, but that of given training patients `validation_fraction` validates.
    """
    if given is not None and given != "train":
        return given
    if given is None and _is_tested(patient, rules, key, fold):
        return "test"
    # One draw for each fold, so that no patient validates in all of them.
    chosen = key.draw(f"validation/{fold}", patient) < rules.validation_fraction
    return "validation" if chosen else "train"


def _is_tested(patient: str, rules: Split, key: SplitKey, fold: int) -> bool:
    drawn = key.draw("test", patient)
    if rules.folds is not None:
        return int(drawn * rules.folds) == fold % rules.folds
    return drawn < rules.test_fraction
