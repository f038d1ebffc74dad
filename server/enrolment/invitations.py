"""Invitations: a secret for one site, which works for one key and until it expires.

An invitation is a row of the registry's SQLite file; what is called here runs in the
transaction of its caller, server/enrolment/registry.py.
"""

from __future__ import annotations

import secrets
import sqlite3

from common.messages.enrolment import Invite, JoinRequest
from common.messages.signing_key import fingerprint

#: After so many wrong proofs they are no longer written down for a while. Guessing 256 bits is
#: hopeless, and a stranger who knows a site's name can neither void its invitation nor delay it.
_TRIES = 5
_REST_SECONDS = 60
SCHEMA = """
CREATE TABLE IF NOT EXISTS invitations (
  site TEXT PRIMARY KEY,
  secret TEXT NOT NULL,
  expires INTEGER NOT NULL,
  used_by TEXT,
  failures INTEGER NOT NULL DEFAULT 0,
  rests_until REAL NOT NULL DEFAULT 0
) STRICT;
"""


def new_invitation(
    connection: sqlite3.Connection, site: str, *, address: str, ca_sha256: str, expires: float
) -> Invite:
    """Return a new invitation, good until `expires` (s since 1970); an earlier one is void."""
    invite = Invite(
        site=site,
        address=address,
        ca_sha256=ca_sha256,
        secret=secrets.token_urlsafe(32),
        expires=int(expires),
    )
    void_invitation(connection, site)
    connection.execute(
        "INSERT INTO invitations (site, secret, expires) VALUES (?, ?, ?)",
        (site, invite.secret, invite.expires),
    )
    return invite


def void_invitation(connection: sqlite3.Connection, site: str) -> bool:
    """Void a site's invitation; returns whether there was one."""
    return bool(connection.execute("DELETE FROM invitations WHERE site = ?", (site,)).rowcount)


def open_invitations(connection: sqlite3.Connection, now: float) -> dict[str, int]:
    """Return the sites whose invitation is open, and when it expires."""
    rows = connection.execute(
        "SELECT site, expires FROM invitations WHERE used_by IS NULL AND expires > ? ORDER BY site",
        (now,),
    ).fetchall()
    return {str(site): int(expires) for site, expires in rows}


def fault_of_invitation(
    connection: sqlite3.Connection, request: JoinRequest, now: float
) -> str | None:
    """Return why a join is refused; only the secret's holder is told more than that."""
    site = request.site
    again = f"Ask the coordinator for a new one: wardround-coordinator invite {site}"
    row = connection.execute(
        "SELECT secret, expires, used_by, failures, rests_until FROM invitations WHERE site = ?",
        (site,),
    ).fetchone()
    wrong = f"No open invitation of {site} has this secret. {again}"
    if row is None:
        return wrong
    secret, expires, used_by, failures, rests_until = row
    if not request.proves(secret):
        if now < rests_until:  # nothing is written; the right proof is taken all the same
            return f"Too many wrong tries to join as {site}. Try again in {_REST_SECONDS} s."
        rests = now + _REST_SECONDS if failures + 1 >= _TRIES else 0
        connection.execute(
            "UPDATE invitations SET failures = ?, rests_until = ? WHERE site = ?",
            (0 if rests else failures + 1, rests, site),
        )
        return wrong
    if used_by is None and now >= expires:
        return f"The invitation of {site} has expired. {again}"
    if used_by not in {None, request.public_key}:
        return (
            f"The invitation of {site} was used already, by the key {fingerprint(used_by)}. "
            f"If that is not yours, tell the coordinator at once. {again}"
        )
    return None


def use_invitation(connection: sqlite3.Connection, request: JoinRequest) -> None:
    """Note the key that an invitation was used by; it works for no other one."""
    connection.execute(
        "UPDATE invitations SET used_by = ? WHERE site = ?", (request.public_key, request.site)
    )
