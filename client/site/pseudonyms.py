"""The site's key for identifiers: pseudonyms, and further secrets derived from it.

Guarantee: without the key, which never leaves the home, an identifier cannot be tested against
a pseudonym, not even by somebody who knows all identifiers of the hospital. With it, the same
identifier always gives the same pseudonym, so that a patient's images stay together.

Not guaranteed: that two hospitals give one patient the same pseudonym. They do not.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.platform.errors import ConfigurationError, StateDamaged

_KEY_BYTES = 32
#: Dates go back by 1 to so many days: never 0, and never into a future that gives them away.
_MOST_DAYS = 3650


@dataclass(frozen=True, kw_only=True)
class Pseudonyms:
    """Keyed replacements for identifiers (HMAC-SHA256, RFC 2104)."""

    key: bytes = field(repr=False)  # 32 bytes

    def patient(self, identifier: str) -> str:
        """Return a PatientID's pseudonym: 100 bits in 20 letters and digits."""
        return "W" + base64.b32encode(self._digest("patient", identifier)[:13])[:20].decode()

    def uid(self, uid: str) -> str:
        """Return a UID's replacement: 2.25 and 128 bits (PS3.5 B.2)."""
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16], 'big')}"

    def days(self, identifier: str) -> int:
        """Return by how many days all dates of a patient go back."""
        return 1 + int.from_bytes(self._digest("days", identifier)[:8], "big") % _MOST_DAYS

    def secret(self, purpose: str) -> bytes:
        """Return 32 bytes for one purpose, the same whenever they are asked for."""
        return self._digest(purpose, "")

    def _digest(self, purpose: str, value: str) -> bytes:
        return hmac.digest(self.key, f"{purpose}\0{value}".encode(), hashlib.sha256)


def pseudonyms(path: Path) -> Pseudonyms:
    """Read the key, or make it once, readable by this user alone."""
    if not path.exists():
        _make(path)
    try:
        key = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as error:
        message = f"Cannot read the key for identifiers {path}: {error.strerror}."
        raise ConfigurationError(message) from error
    if len(key) != _KEY_BYTES:
        message = (
            f"The key for identifiers {path} has {len(key)} bytes, not {_KEY_BYTES}. Put it back "
            "from the backup; a new one would give every patient another pseudonym, and train "
            "models on patients who tested earlier ones."
        )
        raise StateDamaged(message)
    if mode & 0o077:
        message = (
            f"The key for identifiers {path} can be read by others. Type: chmod 600 {path}, and "
            "consider what they may have undone with it."
        )
        raise ConfigurationError(message)
    return Pseudonyms(key=key)


def _make(path: Path) -> None:
    """Write a new key whole or not at all; of two processes, one wins and both read its key."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with open(  # Path.open takes no mode for a new file
            temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)
        ) as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
    except OSError as error:
        message = f"Cannot write the key for identifiers {path}: {error.strerror}."
        raise ConfigurationError(message) from error
    finally:
        temporary.unlink(missing_ok=True)
