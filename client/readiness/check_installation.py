"""Check that our own code runs, and that the key is readable by its owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import common.platform.doctor_finding
from client.readiness.check_finding import Finding, Subject
from common.messages.signing_key import fingerprint, load_private, public_text


def packages(_subject: Subject) -> Iterator[Finding]:
    """Look whether `common` is ours."""
    import client

    yield from common.platform.doctor_finding.packages(client)


def key(subject: Subject) -> Iterator[Finding]:
    """Look who may read the home and the key in it."""
    home = subject.home
    faults = [fault for path in (home.folder, home.key) for fault in _readable(home.folder, path)]
    yield from faults
    if not faults and home.key.exists():
        detail = fingerprint(public_text(load_private(home.key)))
        yield Finding(check="key", state="ok", detail=detail)


def _readable(folder: Path, path: Path) -> Iterator[Finding]:
    try:
        status = path.stat()
    except OSError:
        return  # not joined yet, which was said before
    if status.st_uid != os.geteuid():
        yield Finding(
            check="key",
            state="wrong",
            detail=f"{path} belongs to another user than this one",
            fix=f"Become that user, or type as root: chown -R {os.geteuid()} {folder}",
        )
    elif stat.S_IMODE(status.st_mode) & 0o077:
        yield Finding(
            check="key",
            state="wrong",
            detail=f"others may look into {path} (mode {stat.S_IMODE(status.st_mode):o})",
            fix=f"chmod {'700' if path.is_dir() else '600'} {path}",
        )
