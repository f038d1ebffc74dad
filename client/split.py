"""Who trains, chooses and tests: by patient, never by image."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
    taken from training.
    """
    parts: dict[str, Part] = dict(given)
    offset = 0
    for stratum, patients in _by_stratum(strata, given).items():
        ordered = _shuffled(patients, seed, f"test/{stratum}")
        if rules.folds is not None:
            # Strata follow each other around the folds, so that folds are of one size.
            places = [(offset + i) % rules.folds for i in range(len(ordered))]
            offset += len(ordered)
            tested = {p for p, place in zip(ordered, places, strict=True) if place == fold}
        elif given:
            tested = set()
        else:
            tested = set(ordered[: round(rules.test_fraction * len(ordered))])
        parts |= {p: "test" if p in tested else "train" for p in ordered}
    if "validation" not in given.values():
        training = {p: s for p, s in strata.items() if parts[p] == "train"}
        for stratum, patients in _by_stratum(training, {}).items():
            ordered = _shuffled(patients, seed, f"validation/{fold}/{stratum}")
            parts |= dict.fromkeys(
                ordered[: round(rules.validation_fraction * len(ordered))], "validation"
            )
    return parts


def _by_stratum(strata: Mapping[str, str], given: Mapping[str, Part]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(strata):
        if patient not in given:
            groups[strata[patient]].append(patient)
    return dict(sorted(groups.items()))


def _shuffled(patients: Sequence[str], seed: int, purpose: str) -> list[str]:
    """Return the patients in an order that depends on seed and purpose alone."""

    def place(patient: str) -> bytes:
        return hashlib.sha256(f"{seed}/{purpose}/{patient}".encode()).digest()

    return sorted(patients, key=place)
