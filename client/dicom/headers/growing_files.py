"""Files that are cut off, told apart from files that are still being written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.reading.files import File
from client.dicom.reasons import Reason

#: A file that ends too early and was written this short a time ago may still be growing.
_FRESH_SECONDS = 3.0
#: So long such files are watched, all of them together.
_WATCHED_SECONDS = 0.2
_CUT = frozenset({Reason.EMPTY_FILE, Reason.TRUNCATED_PIXELS, Reason.NOT_DICOM, Reason.NO_PIXELS})


def watched(
    files: Sequence[File], found: list[Instance | Quarantined]
) -> list[Instance | Quarantined]:
    """Return what was found, with PARTIAL_WRITE for files that changed since they were read."""
    now = time.time()
    fresh = [
        place
        for place, (file, one) in enumerate(zip(files, found, strict=True))
        if isinstance(one, Quarantined)
        and one.reason in _CUT
        and abs(now - file.mtime_ns / 1e9) < _FRESH_SECONDS
    ]
    if fresh:
        time.sleep(_WATCHED_SECONDS)
    for place in fresh:
        file = files[place]
        with contextlib.suppress(OSError):
            status = file.path.stat()
            if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
                found[place] = _growing(found[place])
    return found


def _growing(one: Instance | Quarantined) -> Quarantined:
    """Return the file as one that grows, still its patient's where its header says whose."""
    if isinstance(one, Instance):
        return Quarantined(reason=Reason.PARTIAL_WRITE, what=str(one.path), patient=one.patient)
    return replace(one, reason=Reason.PARTIAL_WRITE, detail="")
