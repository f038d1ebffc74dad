"""Errors that a library raises on one file, image or row, turned into a refusal of it.

    UnusableFile                         as it is
    MemoryError                          TOO_LARGE
    errors of ours, of the disk, SQLite  as they are: they are no single image's
    anything else                        FAILED, with the error's class alone: what it says may
                                         hold values

Guarantee: where a site's files are prepared one by one, one of them ends the work of no other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from client.dicom.reasons import Reason, UnusableFile
from common.platform.errors import WardroundError


@contextmanager
def contained() -> Iterator[None]:
    """Raise nothing but UnusableFile, and what is no single image's fault."""
    try:
        yield
    except (UnusableFile, WardroundError, OSError, sqlite3.Error):
        raise
    except MemoryError as error:
        raise UnusableFile(Reason.TOO_LARGE, "it needs more memory than there is") from error
    except Exception as error:
        raise UnusableFile(Reason.FAILED, type(error).__name__) from error
