"""Return of freed memory to the system after a large round.

glibc raises the size from which it does so to that of the largest block freed, up to 32 MiB,
and keeps smaller ones in an arena a thread: objects of 4 MiB on dozens of threads would stay.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

# Names and numbers of glibc's malloc.h.
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGE_BYTES = 256 * 1024
_ARENAS = 2


def give_freed_memory_back() -> None:
    """Set the allocator for the rest of this process; nothing happens without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)


def collect_after(size: int) -> None:
    """Search for garbage now if so many bytes may be among it."""
    if size >= _LARGE_BYTES:
        gc.collect()


@contextlib.contextmanager
def no_search_for_garbage() -> Iterator[None]:
    """Leave garbage until the block ends, which makes much that stays and little that does not."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def sort_out_what_stays() -> None:
    """Leave all that is there now, modules above all, out of Python's search for garbage.

    Requests and answers form cycles, with the bytes of a tensor on them. They go when everything
    is searched, which Python does the more seldom the more there is.
    """
    gc.collect()
    gc.freeze()
