"""Checks that a coordinator is ready, and for each fault what to do."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing

from common.platform.doctor_finding import Finding, State, packages
from common.platform.errors import WardroundError
from common.platform.file_lock import FileLock, Taken
from server.enrolment.certificates import RENEWAL, now, read_certificate
from server.files.coordinator_yaml import Settings, host_and_port, load_settings
from server.files.folder import Folder

_GIB = 1 << 30
_LITTLE_GIB = 5.0
_CLOCK_SLACK_SECONDS = 120.0


def examine(folder: Folder) -> Iterator[Finding]:
    """Yield a finding for each check; a check that fails stops none of the others."""
    folder.require()
    settings: Settings | None = None
    try:
        settings = load_settings(folder.settings)
        detail = f"{settings.name} at {settings.address}"
        yield Finding(check="coordinator.yaml", state="ok", detail=detail)
    except WardroundError as error:
        yield _wrong("coordinator.yaml", error)
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("packages", _packages),
        ("permissions", lambda: _permissions(folder)),
        ("certificate", lambda: _certificates(folder)),
        ("clock", lambda: _clock(folder)),
        ("disk", lambda: _disk(folder)),
        ("databases", lambda: _databases(folder)),
    ]
    if settings is not None:
        known = settings
        checks.append(("ports", lambda: _ports(folder, known)))
        checks.append(("name", lambda: _name(known)))
    for name, check in checks:
        try:
            yield from check()
        except WardroundError as error:
            yield _wrong(name, error)
        except OSError as error:
            fix = "See that this user may use it."
            detail = f"{error.filename}: {error.strerror}"
            yield Finding(check=name, state="wrong", detail=detail, fix=fix)


def _packages() -> Iterator[Finding]:
    import server

    yield from packages(server)


def _permissions(folder: Folder) -> Iterator[Finding]:
    secret = [folder.path, folder.ca_key, folder.server_key, folder.token, folder.enrolment]
    faults = []
    for path in (p for p in secret if p.exists()):
        found = path.stat()
        if found.st_uid != os.geteuid():
            faults.append((f"{path} belongs to another user", f"chown -R {os.geteuid()} {path}"))
        elif stat.S_IMODE(found.st_mode) & 0o077:
            mode = "700" if path.is_dir() else "600"
            faults.append((f"others may look into {path}", f"chmod {mode} {path}"))
    for detail, fix in faults:
        yield Finding(check="permissions", state="wrong", detail=detail, fix=fix)
    if not faults:
        yield Finding(check="permissions", state="ok", detail="keys are their owner's alone")


def _certificates(folder: Folder) -> Iterator[Finding]:
    again = "wardround-coordinator start renews it (or kill -HUP the running service)."
    for what, path, fix in (
        ("authority", folder.ca, again),
        ("certificate", folder.server_key, again),
    ):
        end = read_certificate(path).not_valid_after_utc
        left, detail = end - now(), f"{path} is valid until {end:%Y-%m-%d}"
        if left.total_seconds() <= 0:
            yield Finding(check=what, state="wrong", detail=f"{path} has expired", fix=fix)
        elif left < RENEWAL:
            yield Finding(check=what, state="note", detail=detail, fix=fix)
        else:
            yield Finding(check=what, state="ok", detail=detail)


def _clock(folder: Folder) -> Iterator[Finding]:
    """Look for files from the future: they show a clock that was set back."""
    fix = "Set the clock, e.g. timedatectl set-ntp true."
    started = read_certificate(folder.ca).not_valid_before_utc
    newest = max(path.stat().st_mtime for path in folder.path.iterdir())
    ahead = newest - now().timestamp()
    if now() < started or ahead > _CLOCK_SLACK_SECONDS:
        detail = f"it is {now():%Y-%m-%d %H:%M} UTC here, before files in {folder.path} were made"
        yield Finding(check="clock", state="wrong", detail=detail, fix=fix)
        return
    yield Finding(check="clock", state="ok", detail=f"{now():%Y-%m-%d %H:%M} UTC")


def _disk(folder: Folder) -> Iterator[Finding]:
    free = shutil.disk_usage(folder.path).free / _GIB
    detail = f"{free:.1f} GiB free in {folder.path}"
    if free < 1:
        fix = f"Free some: {folder.runs}/RUN of runs that are exported may be deleted."
        yield Finding(check="disk", state="wrong", detail=detail, fix=fix)
    else:
        yield Finding(check="disk", state="ok" if free >= _LITTLE_GIB else "note", detail=detail)


def _databases(folder: Folder) -> Iterator[Finding]:
    fixes = {
        folder.database: "Stop the service and move it away: a new one is made, nothing else lost.",
        folder.enrolment: "Put the last copy back, or invite the sites again.",
    }
    for path, fix in fixes.items():
        if not path.exists():
            continue
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                said = str(connection.execute("PRAGMA quick_check").fetchone()[0])
        except sqlite3.DatabaseError as error:
            said = str(error)
        state: State = "ok" if said == "ok" else "wrong"
        yield Finding(
            check="database", state=state, detail=f"{path}: {said}", fix="" if said == "ok" else fix
        )


def _ports(folder: Folder, settings: Settings) -> Iterator[Finding]:
    try:
        FileLock(folder.lock).close()
    except Taken:
        yield Finding(check="service", state="ok", detail="it runs")
        return
    yield Finding(
        check="service", state="note", detail="it does not run", fix="wardround-coordinator start"
    )
    for what, address in (("listen", settings.listen), ("operator", settings.operator)):
        host, port = host_and_port(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                bound.bind((host, port))
            except OSError as error:
                yield Finding(
                    check="ports",
                    state="wrong",
                    detail=f"{address}: {error.strerror}",
                    fix=f"Stop the program that has it (ss -ltnp), or change {what} in "
                    f"{folder.settings}.",
                )
            else:
                yield Finding(check="ports", state="ok", detail=f"{address} is free")


def _name(settings: Settings) -> Iterator[Finding]:
    host, _ = host_and_port(settings.address)
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        yield Finding(
            check="name",
            state="note",
            detail=f"this machine cannot resolve {host}",
            fix="Sites must: ask who runs the network's DNS, or use the machine's IP address.",
        )
    else:
        yield Finding(check="name", state="ok", detail=f"{host} resolves")


def _wrong(check: str, error: WardroundError) -> Finding:
    problem, _, fix = str(error).partition(". ")
    return Finding(check=check, state="wrong", detail=problem, fix=fix or "see there")
