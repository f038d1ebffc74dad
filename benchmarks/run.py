"""Every benchmark that is here, one table: ours, the peer's or floor's, the ratio and the goal."""

from __future__ import annotations

import runpy
from pathlib import Path


def main() -> None:
    """Run each benchmark file of this folder as its own script."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name not in {"run.py", "__init__.py"}:
            print(f"== {path.stem}", flush=True)
            runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main()
