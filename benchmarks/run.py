"""Every benchmark here, each in a process of its own, and one table of all at the end.

    python benchmarks/run.py [NAME ...]

"Missed" does not fail the command: on a machine that others use, run the one script again.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from row import ROWS_FILE, Row, not_measured

HERE = Path(__file__).parent
#: In this order: the quiet ones first.
SCRIPTS = (
    "aggregation",
    "cached_reads",
    "header_index",
    "reading",
    "jpeg_lossless",
    "private_step",
    "rounds",
    "large_cohort",
    "patch_memory",
    "recompute_memory",
    "slide_tiles",
    "federation",
    "growth",
    "idle_site",
    "pull",
    "ray_engine",
)

#: The last line of a script that lacks a package which is not one of ours.
_ABSENT = re.compile(
    r"^ModuleNotFoundError: No module named "
    r"'(?!(?:client|common|server|simulations)\b)([\w.]+)'\s*\Z",
    re.MULTILINE,
)


def main() -> None:
    """Run the named scripts, or all, and print their rows."""
    names = sys.argv[1:] or list(SCRIPTS)
    unknown = [name for name in names if name not in SCRIPTS]
    if unknown:
        sys.exit(f"No benchmark {', '.join(unknown)}; there are {', '.join(SCRIPTS)}.")
    rows: list[Row] = []
    missing: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(f"== {name}", flush=True)
            found = _rows_of(name, Path(folder) / f"{name}.json")
            rows, missing = [*rows, *found], [*missing, *([] if found else [name])]
    Console(width=None if sys.stdout.isatty() else 140).print(_table(_with_ray(rows)))
    if missing:
        print(f"Not run: {', '.join(missing)}; what each printed above says why.")


def _rows_of(name: str, file: Path) -> list[Row]:
    ended = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py")],
        env={**os.environ, ROWS_FILE: str(file)},
        check=False,
        stderr=subprocess.PIPE,
        text=True,
    )
    absent = _ABSENT.search(ended.stderr)
    if ended.returncode != 0 and absent is not None:
        return [not_measured(name, f"the Python package {absent[1]}")]
    print(ended.stderr, end="", file=sys.stderr, flush=True)
    if ended.returncode != 0 or not file.exists():
        print(f"{name} ended with status {ended.returncode}; its rows are missing below.")
        return []
    return [Row(**row) for row in json.loads(file.read_text())]


def _with_ray(rows: list[Row]) -> list[Row]:
    """Put what was measured on Flower's Ray engine beside the rows of the same name."""
    beside = {row.name: row.ray for row in rows if row.ray}
    return [
        Row(
            name=r.name,
            measured=r.measured,
            relation=r.relation,
            goal=r.goal,
            detail=r.detail,
            ray=beside.get(r.name, ""),
        )
        for r in rows
        if not r.ray
    ]


def _table(rows: list[Row]) -> Table:
    table = Table(title="Measured, one thread where not said")
    for name, right in (
        ("what", False),
        ("measured", True),
        ("goal", True),
        ("", False),
        ("detail", False),
        ("Flower's Ray engine", False),
    ):
        table.add_column(name, justify="right" if right else "left")
    for row in rows:
        table.add_row(
            row.name,
            "" if math.isnan(row.measured) else f"{row.measured:.3f}",
            row.goal_text,
            row.verdict,
            row.detail,
            row.ray,
        )
    return table


if __name__ == "__main__":
    main()
