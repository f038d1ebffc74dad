"""Suppression of pydicom's warnings in every thread.

They are for developers; what matters is raised or checked. `warnings.catch_warnings` alone is
not safe among threads: it puts back a list that another thread is using.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

_lock = threading.Lock()
_inside: list[warnings.catch_warnings] = []
_depth = [0]
_level = [logging.NOTSET]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings, and what pydicom logs, until the last thread inside has left."""
    with _lock:
        _depth[0] += 1
        if _depth[0] == 1:
            _inside.append(warnings.catch_warnings())
            _inside[0].__enter__()
            warnings.simplefilter("ignore")
            _level[0] = logging.getLogger("pydicom").level
            logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _lock:
            _depth[0] -= 1
            if _depth[0] == 0:
                _inside.pop().__exit__(None, None, None)
                logging.getLogger("pydicom").setLevel(_level[0])
