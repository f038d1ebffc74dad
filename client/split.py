"""Who trains, chooses and tests: by patient, never by image."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from common.config import Split

Part = Literal["train", "validation", "test"]

_NAMES: Mapping[str, Part] = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip


def part_named(text: str) -> Part | None:
    """Return the split that a cell names, or None."""
    return _NAMES.get(text.strip().lower())


def split_patients(
    strata: Mapping[str, str], given: Mapping[str, Part], rules: Split, seed: int, fold: int = 0
) -> dict[str, Part]:
    """Return each patient's part; strata says what the parts are balanced by.

    Patients that `given` names stay where they are. Everything follows from the seed and the
    patients' own identifiers, so the order of files does not matter. Validation patients are
    taken from training, unless some are given.
    """
    parts: dict[str, Part] = {patient: given.get(patient, "train") for patient in sorted(strata)}
    free = {p: stratum for p, stratum in strata.items() if p not in given}
    if rules.folds is not None:
        # Strata follow each other around the folds, so that folds are of one size.
        ordered = [p for group in _shuffled_strata(free, seed, "test") for p in group]
        parts |= dict.fromkeys(ordered[fold % rules.folds :: rules.folds], "test")
    elif not given:
        parts |= dict.fromkeys(_share(free, rules.test_fraction, seed, "test"), "test")
    if "validation" not in given.values():
        training = {p: strata[p] for p, part in parts.items() if part == "train"}
        chosen = _share(training, rules.validation_fraction, seed, f"validation/{fold}")
        parts |= dict.fromkeys(chosen, "validation")
    return parts


def _share(strata: Mapping[str, str], fraction: float, seed: int, purpose: str) -> Iterator[str]:
    """Yield this fraction of each stratum.

    Roundings are made up for by the next stratum, so that many small strata give the right
    number of patients all together.
    """
    seen = taken = 0
    for group in _shuffled_strata(strata, seed, purpose):
        seen += len(group)
        wanted = min(len(group), round(fraction * seen) - taken)
        taken += wanted
        yield from group[:wanted]


def _shuffled_strata(strata: Mapping[str, str], seed: int, purpose: str) -> Iterator[list[str]]:
    """Yield the patients of each stratum in an order of seed, purpose and their names alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for patient in strata:
        groups[strata[patient]].append(patient)
    for stratum, patients in sorted(groups.items()):
        yield _shuffled(patients, seed, f"{purpose}/{stratum}")


def _shuffled(patients: Sequence[str], seed: int, purpose: str) -> list[str]:
    def place(patient: str) -> bytes:
        return hashlib.sha256(f"{seed}/{purpose}/{patient}".encode()).digest()

    return sorted(patients, key=place)
