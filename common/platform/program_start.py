"""Start of a process of ours: what it imports is not searched for garbage.

    python -I -m common.platform.program_start MODULE ARGUMENT ...

Torch and what comes with it are half a million objects that stay. Python would search them again
and again while they come: a seventh of a start.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Sequence

from common.platform.freed_memory import no_search_for_garbage

#: What follows Python's own name to start a module of ours. Modules come from Python's own
#: environment alone (-I): not from PYTHONPATH, the current folder or a user's own packages.
START = ("-I", "-m", "common.platform.program_start")


def start(module: str, arguments: Sequence[str]) -> int:
    """Import a module and call its `run`; returns the exit status."""
    with no_search_for_garbage():
        program = importlib.import_module(module)
        gc.freeze()
    status: int = program.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(start(sys.argv[1], sys.argv[2:]))
