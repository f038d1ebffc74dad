"""Silence for pydicom's remarks on headers, in whatever thread it makes them.

They are for developers; what matters is raised or checked. `warnings.catch_warnings` alone is
not safe among threads: it puts back a list that another thread is using.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

_lock = threading.Lock()
_inside: list[warnings.catch_warnings] = []
_depth = [0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings until the last thread inside has left."""
    with _lock:
        _depth[0] += 1
        if _depth[0] == 1:
            _inside.append(warnings.catch_warnings())
            _inside[0].__enter__()
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _lock:
            _depth[0] -= 1
            if _depth[0] == 0:
                _inside.pop().__exit__(None, None, None)
