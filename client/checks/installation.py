"""Whether it is our code that runs, and whether the key is for its owner alone."""

from __future__ import annotations

import importlib.metadata
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from client.checks.finding import Finding, Subject
from common.identity import fingerprint, load_private, public_text
from common.release import RELEASE, bundle_hash


def packages(_subject: Subject) -> Iterator[Finding]:
    """Look whether `common` is ours: another package of that name would run in our place."""
    import client
    import common

    ours, theirs = (Path(p.__file__ or "").resolve().parent for p in (client, common))
    others = set(importlib.metadata.packages_distributions().get("common", [])) - {"wardround"}
    if ours.parent == theirs.parent and not others:
        detail = f"Wardround {RELEASE}, code {bundle_hash()[:16]}"
        yield Finding(check="packages", state="ok", detail=detail)
        return
    who = f", also of {', '.join(sorted(others))}" if others else ""
    yield Finding(
        check="packages", state="wrong",
        detail=f"`common` is {theirs}{who}; expected {ours.parent / 'common'} of wardround alone",
        fix="Install Wardround in a virtual environment of its own.",
    )  # fmt: skip


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
            check="key", state="wrong", detail=f"{path} belongs to another user than this one",
            fix=f"Become that user, or type as root: chown -R {os.geteuid()} {folder}",
        )  # fmt: skip
    elif stat.S_IMODE(status.st_mode) & 0o077:
        yield Finding(
            check="key", state="wrong",
            detail=f"others may look into {path} (mode {stat.S_IMODE(status.st_mode):o})",
            fix=f"chmod {'700' if path.is_dir() else '600'} {path}",
        )  # fmt: skip
