"""Backup of a coordinator's folder in one file, and a folder from it.

Guarantee: a backup that was made while the service and its runs went on restores to a coordinator
that starts: databases are as of one moment, and of each run a saved round is whole. It holds the
authority's key: whoever has the file can be the coordinator.

    a round is saved meanwhile        it is linked before it is read: what is linked stays
    a journal grows meanwhile         its last line may be torn, and is cut when it is opened
    killed while it is written        no file, or the whole file: it is renamed last
    killed while it is restored       no coordinator: the folder is renamed last
    there is a coordinator already    refused: its keys are what its sites trust
    a file of somebody else's         a name that is none of ours is refused, and nothing is written

What the coordinator did after the backup is known to the sites: docs/coordinator.md says what then
happens. Not in it: Flower's database, whose runs and messages are made anew, and logs.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from common.platform.errors import ConfigurationError, StateDamaged
from server.files.folder import Folder, RunFolder

_TOP = "coordinator"
_FILES = ("settings", "ca", "ca_key", "server", "server_key", "token", "notice")
_DATABASES = ("enrolment", "receipts")
#: A path of a backup: no other one is ever written.
_OURS = re.compile(rf"{_TOP}(/[A-Za-z0-9_][A-Za-z0-9._ -]*){{0,8}}")


def back_up(folder: Folder, target: Path) -> int:
    """Write a backup, for its owner alone; returns the number of runs in it."""
    folder.require()
    if target.exists():
        message = f"{target} is there already. Give another file, or remove it."
        raise ConfigurationError(message)
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with (
            open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file,
            tempfile.TemporaryDirectory(dir=folder.path, prefix=".backup-") as staging,
        ):
            with tarfile.open(fileobj=file, mode="w") as archive:
                _add(archive, folder, Path(staging))
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    return len(folder.run_names())


def restore(source: Path, folder: Folder) -> None:
    """Make a coordinator's folder from a backup; its service is not started."""
    if folder.path.exists() and any(folder.path.iterdir()):
        message = (
            f"{folder.path} is not empty. Give another --folder, or move it away first: what is in "
            "it may be newer than the backup."
        )
        raise ConfigurationError(message)
    part = folder.path.with_name(f".{folder.path.name}.{os.getpid()}.restoring")
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        check_backup(source)
        with tarfile.open(source) as archive:
            archive.extractall(part, filter="data")
        made = Folder(part / _TOP)
        if not made.settings.is_file() or not made.ca_key.is_file():
            message = f"{source} is no whole backup of a coordinator. Give another one."
            raise StateDamaged(message)
        made.path.chmod(0o700)
        made.path.replace(folder.path)  # over an empty folder, or none
    except (OSError, tarfile.TarError, EOFError) as error:
        message = (
            f"Cannot restore {source}: {error}. See that it is whole, and its disk is not full."
        )
        raise StateDamaged(message) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_backup(source: Path) -> None:
    """Raise ConfigurationError for what is no backup of a coordinator, by the names in it."""
    try:
        with tarfile.open(source) as archive:
            names = [
                member.name
                for member in archive
                if not (member.isfile() or member.isdir()) or not _OURS.fullmatch(member.name)
            ]
    except (tarfile.TarError, EOFError) as error:
        message = f"{source} is no whole backup of a coordinator: {error}. Give another one."
        raise StateDamaged(message) from error
    if names:
        message = f"{source} is no backup of a coordinator: it holds {names[0]!r}."
        raise ConfigurationError(message)


def _add(archive: tarfile.TarFile, folder: Folder, staging: Path) -> None:
    for name in _DATABASES:
        path: Path = getattr(folder, name)
        if path.exists():
            with _snapshot(path, staging) as copy:
                archive.add(copy, f"{_TOP}/{path.name}")
    for name in _FILES:
        path = getattr(folder, name)
        if path.exists():
            archive.add(path, f"{_TOP}/{path.name}")
    if folder.weights.is_dir():
        archive.add(folder.weights, f"{_TOP}/{folder.weights.name}")
    for name in folder.run_names():
        _add_run(archive, folder.run(name), f"{_TOP}/{folder.runs.name}/{name}", staging / name)


def _add_run(archive: tarfile.TarFile, run: RunFolder, top: str, staging: Path) -> None:
    staging.mkdir()
    if run.state.is_dir():
        for path in _linked(run.state, staging):
            archive.add(path, f"{top}/{run.state.name}/{path.name}")
    kept = (run.config, run.run, run.status, run.results, run.cohort, run.report, run.bundle)
    for path in kept:
        if path.exists():
            archive.add(path, f"{top}/{path.name}")
    if run.journal.exists():
        copy = staging / run.journal.name
        shutil.copyfile(run.journal, copy)  # it grows: its size must not change under the archive
        archive.add(copy, f"{top}/{run.journal.name}")


def _linked(state: Path, staging: Path) -> list[Path]:
    """Return saved rounds as they are now, linked; the run may save and remove others meanwhile."""
    while True:
        linked: list[Path] = []
        # Tensors are written before their facts and removed after them, so facts come first.
        for path in sorted(state.glob("[!.]*"), key=lambda p: p.suffix != ".json"):
            target = staging / path.name
            with suppress(FileNotFoundError):  # removed since it was listed
                target.hardlink_to(path)
                linked.append(target)
        facts = {path.stem for path in linked if path.suffix == ".json"}
        if facts <= {path.stem for path in linked if path.suffix != ".json"}:
            return sorted(linked)
        for path in linked:
            path.unlink()


@contextmanager
def _snapshot(path: Path, staging: Path) -> Iterator[Path]:
    """Yield a copy of a database as it stands between two of its transactions."""
    copy = staging / path.name
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        copy.chmod(0o600)
        yield copy
    except sqlite3.DatabaseError as error:
        message = f"{path} cannot be read: {error}. wardround-coordinator doctor says more."
        raise StateDamaged(message) from error
