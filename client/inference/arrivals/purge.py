"""Removal of arrived studies: after they were scored, or when their patient was withdrawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from client.inference.arrivals.queue import ArrivalQueue
from client.site.home import Home


def remove(home: Home, arrivals: ArrivalQueue, study: str) -> None:
    """Remove a study from the queue, with its images where they were sent to us.

    What lies in a watched folder is the hospital's and stays.
    """
    for path in arrivals.forget(study):
        if path.is_relative_to(home.arrived):
            path.unlink(missing_ok=True)
    folder = home.arrived / study
    for series in sorted(folder.glob("*")) if folder.is_dir() else ():
        if series.is_dir() and not any(series.iterdir()):
            series.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def patients_of(files: Sequence[Path]) -> frozenset[str]:
    """Return the PatientIDs of files; one that cannot be read has none."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    found = set()
    for path in files:
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        except (InvalidDicomError, OSError, ValueError):
            continue
        found.add(str(header.get("PatientID", "")))
    return frozenset(found)


def forget_patients(home: Home, patients: frozenset[str]) -> int:
    """Remove every arrived study of these patients from queue and disk; return how many."""
    if not home.arrivals.exists():
        return 0
    removed = 0
    with ArrivalQueue(home.arrivals) as arrivals:
        for listed in arrivals.listed():
            if patients_of(arrivals.files(listed.study)) & patients:
                remove(home, arrivals, listed.study)
                removed += 1
    return removed
