"""Where something failed, in words that hold nothing of any patient.

Public: failure_place.
"""

from __future__ import annotations

import builtins
import inspect
import traceback
from pathlib import Path

from common.platform import errors

#: The folder that holds our packages, and those whose lines are told.
_ROOT = Path(__file__).resolve().parents[2]
_OURS = ("client", "common")
#: Only these names of errors are told: others are made by whoever raises them, of anything.
_KNOWN = frozenset(
    kind
    for module in (builtins, errors)
    for kind in vars(module).values()
    if inspect.isclass(kind) and issubclass(kind, BaseException)
)


def failure_place(error: BaseException) -> str:
    """Return the kind of an error and the innermost line of our own code that it passed.

    Neither its message nor a variable is told, and no name that other code could choose: the
    kind is the nearest that Python or Wardround defines, the line one of a file of this release.
    Which line it was can still depend on patients, as the refusal itself can.
    """
    kind = next(known.__name__ for known in type(error).__mro__ if known in _KNOWN)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(_ROOT) and file.is_file() and frame.lineno:
            place = file.relative_to(_ROOT)
            if place.parts[0] in _OURS:
                return f"{kind} at {place.as_posix()}:{frame.lineno}"
    return kind
