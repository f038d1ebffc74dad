"""Leaving a federation, and changing the site's key, both signed with the key that is accepted.

    leave, killed before the key is gone     the same command again: the coordinator says the same
    leave, and nobody answers                `without_them` destroys the key all the same
    a new key, killed anywhere               the same command again names the same new key
    a coordinator from before the change     is told of it anew (`tell_again`)
    the coordinator revoked the old key      it names no other one: TrustRefused, all stays as it is

What was approved, charged, withdrawn and disclosed stays here after a site has left.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from client.site.home import Home
from client.transport.coordinator import Coordinator, load_authority, load_coordinator
from client.transport.joining import ask
from client.transport.proxy import site_way
from common.messages.enrolment import LEAVE_PATH, ROTATE_PATH, LeaveRequest, RotateRequest
from common.messages.signing_key import (
    fingerprint,
    load_private,
    new_private_key,
    private_text,
    public_text,
)
from common.platform.durable_files import replace_durably
from common.platform.errors import TrustRefused, Unreachable, WardroundError

#: Changes of the key that a coordinator is told of again, the last.
_MOST_TOLD = 5


def leave(home: Home, *, without_them: bool = False) -> Coordinator:
    """Leave the coordinator and destroy the key; returns who was left.

    Unreachable where nobody answers, TrustRefused where they do not know the key: then nothing was
    changed, unless `without_them`.
    """
    coordinator = load_coordinator(home)
    try:
        request = LeaveRequest.made(coordinator.site, load_private(home.key))
        _ask(home, coordinator, LEAVE_PATH, request.to_json())
    except (Unreachable, TrustRefused):
        if not without_them:
            raise
    for path in (home.key, home.next_key, *home.own.glob("key.until-*")):
        _destroy(path)
    for path in (home.inbox, home.kept, home.outbox, home.quarantine):
        shutil.rmtree(path, ignore_errors=True)
    for path in (home.public_key, home.rotations, home.coordinator_pem):
        path.unlink(missing_ok=True)
    aside = home.coordinator_json.with_name(f"coordinator.left-{time.strftime('%Y%m%d-%H%M%S')}")
    home.coordinator_json.rename(aside)  # last: with it, the site belongs
    return coordinator


def rotate(home: Home) -> str:
    """Change the key for a new one, which the old one names; returns its fingerprint."""
    coordinator, old = load_coordinator(home), load_private(home.key)
    if not home.next_key.exists():
        replace_durably(home.next_key, private_text(new_private_key()).encode(), mode=0o600)
    new = load_private(home.next_key)
    request = RotateRequest.made(coordinator.site, old, new)
    reply = _ask(home, coordinator, ROTATE_PATH, request.to_json())
    own = fingerprint(public_text(new))
    if reply != own:
        message = (
            f"The coordinator answered about the key {reply}, the new one is {own}. Call them."
        )
        raise TrustRefused(message)
    kept = [*_rotations(home), request][-_MOST_TOLD:]
    replace_durably(home.rotations, b"".join(one.to_json() + b"\n" for one in kept))
    home.next_key.replace(home.key)  # the old one is gone with it
    replace_durably(home.public_key, f"{public_text(new)}\n".encode())
    return own


def tell_again(home: Home) -> bool:
    """Tell a coordinator that does not know the key of its changes; True where it took one."""
    coordinator, took = load_coordinator(home), False
    for request in _rotations(home):
        with suppress(TrustRefused, Unreachable):
            _ask(home, coordinator, ROTATE_PATH, request.to_json())
            took = True
    return took


def _rotations(home: Home) -> list[RotateRequest]:
    try:
        lines = home.rotations.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(WardroundError):
            found.append(RotateRequest.parse(line))
    return found


def _ask(home: Home, coordinator: Coordinator, path: str, body: bytes) -> str:
    """Return the fingerprint that the coordinator answers about."""
    authority = load_authority(home, coordinator)
    way = site_way(home, coordinator.address)
    return ask(coordinator.address, authority, way, path, body).fingerprint


def _destroy(path: Path) -> None:
    """Overwrite a secret, then remove it; a disk that copies on write may keep it all the same."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
