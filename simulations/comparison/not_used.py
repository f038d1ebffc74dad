"""not-used.csv: every file, row and patient that was left out, and why."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from common.platform.durable_files import replace_durably
from simulations.comparison.cohorts import Hospitals

_HEAD = ("hospital", "reason", "what", "detail", "meaning")


def not_used_rows(hospitals: Hospitals) -> list[tuple[str, str, str, str, str]]:
    """Return hospital, reason, what, detail and meaning of each thing that was left out."""
    lines = [(name, "HOSPITAL", name, "", why) for name, why in hospitals.left_out.items()]
    return lines + [
        (cohort.name, problem.reason.name, problem.what, problem.detail, problem.reason.value)
        for cohort in hospitals.cohorts
        for problem in cohort.unusable
    ]


def write_not_used(path: Path, hospitals: Hospitals) -> int:
    """Write one line for each thing that was left out, and return how many there are.

    It names files and patients, so it belongs beside the hospitals' data and nowhere else.
    """
    lines = not_used_rows(hospitals)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_HEAD)
    writer.writerows(lines)
    replace_durably(path, text.getvalue().encode())
    return len(lines)
