"""Files that hold a secret; one that other users can read is refused."""

from __future__ import annotations

import stat
from pathlib import Path

from common.platform.errors import ConfigurationError


def read_secret(path: Path, what: str) -> str:
    """Return the secret in a file, stripped; ConfigurationError when others can read it."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"Cannot read {what} in {path}: {error}. Put it there as one line."
        raise ConfigurationError(message) from error
    _refuse_shared(path, mode, what)
    if not text or "\n" in text:
        message = f"{path} holds {'nothing' if not text else 'several lines'}, expected {what}."
        raise ConfigurationError(message)
    return text


def refuse_readable(path: Path, what: str) -> None:
    """ConfigurationError when others can read a secret's file; OSError when there is none."""
    _refuse_shared(path, path.stat().st_mode, what)


def _refuse_shared(path: Path, mode: int, what: str) -> None:
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        message = f"Others can read {path}, which holds {what}. Type: chmod 600 {path}"
        raise ConfigurationError(message)
