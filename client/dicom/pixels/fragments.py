"""The frame of an encapsulated object, joined from its fragments (PS3.5 A.4)."""

from __future__ import annotations

import os
from pathlib import Path

from client.dicom.headers.elements import UnusualHeader
from client.dicom.reasons import Reason, UnusableFile

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def read_frame(path: Path, start: int) -> bytes:
    """Return the frame whose first item begins at a place in the file.

    UnusableFile where the file ends before the sequence does; Odd where pydicom shall look.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        left = os.fstat(handle).st_size - start
        data = os.pread(handle, left, start) if left > 0 else b""
    finally:
        os.close(handle)
    parts: list[bytes] = []
    place = 0
    while data[place : place + 4] == _ITEM:
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8
        if place + length > len(data):
            raise UnusableFile(Reason.TRUNCATED_PIXELS, "the file ends inside a fragment")
        parts.append(data[place : place + length])
        place += length
    if len(data) - place < 4:
        raise UnusableFile(Reason.TRUNCATED_PIXELS, "the file ends between fragments")
    if data[place : place + 4] != _END or len(parts) < 2 or len(parts[0]) > 4:
        raise UnusualHeader
    return b"".join(parts[1:])
