"""A file that holds a secret: read only where no other user can."""

from __future__ import annotations

import stat
from pathlib import Path

from common.errors import ConfigurationError


def read_secret(path: Path, what: str) -> str:
    """Return the secret in a file, stripped; ConfigurationError when others can read it."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"Cannot read {what} in {path}: {error}. Put it there as one line."
        raise ConfigurationError(message) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        message = f"Others can read {path}, which holds {what}. Type: chmod 600 {path}"
        raise ConfigurationError(message)
    if not text or "\n" in text:
        message = f"{path} holds {'nothing' if not text else 'several lines'}, expected {what}."
        raise ConfigurationError(message)
    return text
