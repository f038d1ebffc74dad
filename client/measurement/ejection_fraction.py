"""Ejection fraction: which part of its blood a ventricle throws out with a beat."""

from __future__ import annotations

from client.dicom.reasons import Reason, UnusableFile


def ejection_fraction(end_diastole: float | None, end_systole: float | None) -> float:
    """Return an ejection fraction in % of two volumes; UnusableFile says why there is none."""
    if end_diastole is None or end_systole is None:
        lacks = "end-diastolic" if end_diastole is None else "end-systolic"
        raise UnusableFile(Reason.PHASE_MISSING, f"no {lacks} volume")
    if end_diastole <= 0 or end_systole <= 0:
        empty = "end-diastole" if end_diastole <= 0 else "end-systole"
        raise UnusableFile(Reason.PHASE_MISSING, f"nothing is drawn in {empty}")
    if end_systole > end_diastole:
        detail = f"{end_diastole / 1000:.1f} mL, then {end_systole / 1000:.1f} mL"
        raise UnusableFile(Reason.PHASES_SWAPPED, detail)
    return 100 * (end_diastole - end_systole) / end_diastole
