"""Patients that each run trained on here; none of them calibrates its model.

A patient's part follows from the site's key, and moves when that key is lost, when the table gives
the patient another split, or when a run's release split otherwise. One who was trained on might
then stand in the test part. Hence the parts as they were are noted before the first step; who is
in there once stays there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from client.inference.calibration.site_calibration import hashed
from common.platform.durable_files import replace_durably
from common.platform.errors import StateDamaged


def note_trained(folder: Path, fingerprint: str, seed: int, patients: Iterable[str]) -> None:
    """Add patients to those that a run trained on; durable when this returns."""
    before = trained_on(folder, fingerprint, seed)
    after = before | hashed(patients)
    if after != before:
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(sorted(after)).encode()
        replace_durably(_path(folder, fingerprint, seed), content, mode=0o600)


def trained_on(folder: Path, fingerprint: str, seed: int) -> frozenset[str]:
    """Return the SHA-256 of every PatientID that the run trained on; none where it never did.

    StateDamaged when the note cannot be read: then nobody knows, and nothing may be calibrated.
    """
    path = _path(folder, fingerprint, seed)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError) as error:
        content = error
    if not isinstance(content, list) or not all(isinstance(item, str) for item in content):
        message = (
            f"{path} cannot be read, so it is not known whom the run trained on. Restore it from "
            "a copy."
        )
        raise StateDamaged(message)
    return frozenset(content)


def _path(folder: Path, fingerprint: str, seed: int) -> Path:
    return folder / f"{fingerprint}-{seed}.json"
