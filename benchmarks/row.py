"""One line of the benchmarks' table, and how a script hands its lines to run.py."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

#: Where a script writes its rows when run.py started it.
ROWS_FILE = "WARDROUND_BENCHMARK_ROWS"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A ratio or a time, what it is compared with, and whether the goal is met."""

    name: str
    measured: float  # NaN where it was not
    relation: Literal["<=", ">=", ""] = ""
    goal: float | None = None  # None: shown for comparison only
    detail: str = ""  # absolute figures, spread
    ray: str = ""  # the same on Flower's Ray engine, where that does the same

    @property
    def verdict(self) -> str:
        """Return met or missed, or nothing where there is no goal."""
        if self.goal is None or math.isnan(self.measured):
            return ""
        met = self.measured <= self.goal if self.relation == "<=" else self.measured >= self.goal
        return "met" if met else "missed"

    @property
    def goal_text(self) -> str:
        """Return the goal as it is read."""
        return "" if self.goal is None else f"{self.relation} {self.goal:.2f}"


class NotMeasured(Exception):
    """What a benchmark needs is not on this machine; the text is what that is."""


def needs(packages: Mapping[str | Path, str]) -> None:
    """Raise NotMeasured for programs and files that are missing: each with its package."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [
        package
        for what, package in packages.items()
        if not (what.exists() if isinstance(what, Path) else shutil.which(what, path=path))
    ]
    if missing:
        raise NotMeasured(" ".join(dict.fromkeys(missing)))


def not_measured(name: str, what: str) -> Row:
    """Return, and print, the row of a benchmark that was not measured."""
    row = Row(name=name, measured=math.nan, detail=f"not measured: needs {what}")
    print(f"{row.name:44} {row.detail}", flush=True)
    return row


def peak_mb() -> float:
    """Return the most memory that this process has had; ru_maxrss is also its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def shown(row: Row) -> Row:
    """Print a row as soon as it is known."""
    print(
        f"{row.name:44} {row.measured:7.3f}  {row.goal_text:8} {row.verdict:7} {row.detail}",
        flush=True,
    )
    return row


def told(rows: Callable[[], Sequence[Row]]) -> None:
    """Measure, and hand the rows to run.py where that asked for them."""
    try:
        found = rows()
    except NotMeasured as missing:
        found = [not_measured(Path(sys.argv[0]).stem, str(missing))]
    if ROWS_FILE in os.environ:
        Path(os.environ[ROWS_FILE]).write_text(json.dumps([asdict(row) for row in found]))
    elif any(row.verdict == "missed" for row in found):
        sys.exit(1)
