"""Root without root's right to read what it likes, for tests of permissions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

#: Linux: capset(2), version 3; the capabilities that let a process ignore permissions.
_VERSION = 0x20080522
_IGNORE_PERMISSIONS = (1 << 1) | (1 << 2)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def as_ordinary_user(call: Callable[[], T]) -> T:
    """Return what a call gives that takes permissions as an ordinary user does.

    It is made in a thread that gives these rights up for good, as Linux keeps them by thread.
    """
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_give_up).result()
        return pool.submit(call).result()


def _give_up() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = _Header(_VERSION, 0), (_Data * 2)()
    assert libc.capget(ctypes.byref(header), data) == 0
    data[0].effective &= ~_IGNORE_PERMISSIONS
    data[0].permitted &= ~_IGNORE_PERMISSIONS
    assert libc.capset(ctypes.byref(header), data) == 0
