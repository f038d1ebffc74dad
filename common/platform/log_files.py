"""Log files: whole lines, for their owner alone, rotated."""

from __future__ import annotations

import logging
import os
import sys
from io import FileIO, TextIOBase
from logging.handlers import RotatingFileHandler
from pathlib import Path


class _WholeLines(TextIOBase):
    """A file to which a line is added whole or not at all, and at once."""

    def __init__(self, path: Path) -> None:
        def private(name: str, flags: int) -> int:
            return os.open(name, flags, 0o600)

        self._file = FileIO(path, "a", opener=private)

    def write(self, text: str) -> int:
        """Add text; what a full disk took of it is cut off again."""
        start, rest = self._file.seek(0, os.SEEK_END), memoryview(text.encode())
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(start)
            raise
        return len(text)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move as a file does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in bytes."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file; nothing is pending."""
        self._file.close()
        super().close()


class LogFile(RotatingFileHandler):
    """A file that only its owner reads: a site's log may hold paths of images."""

    def __init__(self, path: Path, largest: int, old_files: int) -> None:
        self._complained = False
        super().__init__(
            path, maxBytes=largest, backupCount=old_files, encoding="utf-8", delay=True
        )

    def _open(self) -> _WholeLines:  # type: ignore[override]  # it is a text file all the same
        return _WholeLines(Path(self.baseFilename))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Say once that the log cannot be written; a full disk must not end the work."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._complained:
            self._complained = True
            sys.stderr.write(
                f"Cannot write the log {self.baseFilename}: {error.strerror}. Work goes on, and "
                "lines are lost until there is room.\n"
            )
