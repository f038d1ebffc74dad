"""Registry of sites: invited, pending, accepted; revoked, left, replaced.

    invite      a new secret for a site; the one before is void
    join        the secret's holder brings a public key        -> pending
    accept      the admin gives the fingerprint of that key    -> accepted
    revoke      the site's key is refused from now on, for good -> revoked
    leave       the key's owner says so; likewise for good     -> left
    rotate      the accepted key's owner names another key     -> replaced, the new one accepted

Guarantee: a key that was revoked, has left or was replaced is never accepted again, and no message
that it signed, then or now, brings another key in.

    an old rotation sent again         what it names was replaced since: refused
    the same rotation sent again       the same answer: the first one may have been lost
    a revoked key names a new one      refused
    a rotation to a key known here     refused, whoever's it is

Invitations are made and judged in server/enrolment/invitations.py. Only the coordinator's SQLite
file decides; Flower's list of nodes is derived from it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from pydantic import TypeAdapter, ValidationError

from common.messages.enrolment import (
    Invite,
    JoinRequest,
    LeaveRequest,
    RotateRequest,
    SiteName,
    StateRequest,
)
from common.messages.signing_key import fingerprint
from common.platform.errors import ConfigurationError, StateDamaged, TrustRefused
from common.platform.sqlite_file import connected, explained, transaction
from server.enrolment.certificates import authority_hash
from server.enrolment.invitations import (
    SCHEMA,
    fault_of_invitation,
    new_invitation,
    open_invitations,
    use_invitation,
    void_invitation,
)
from server.files.coordinator_yaml import Settings
from server.files.folder import Folder

State = Literal["pending", "accepted", "revoked", "left", "replaced"]
#: Of sites that belong, or may come to; of the others only the key is remembered.
_CURRENT = ("pending", "accepted")
_LEAVING = (*_CURRENT, "left")

_PATIENCE_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sites (
  public_key TEXT PRIMARY KEY,
  site TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'accepted', 'revoked', 'left', 'replaced')),
  since REAL NOT NULL,
  replaced_by TEXT
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_key_a_site ON sites (site)
WHERE state IN ('pending', 'accepted');
"""
#: The table of the releases in which nobody left and no key was replaced becomes today's.
_FROM_BEFORE = """
DROP INDEX one_key_a_site;
ALTER TABLE sites RENAME TO sites_before;
"""
_TAKE_OVER = """
INSERT INTO sites (public_key, site, state, since)
SELECT public_key, site, state, since FROM sites_before;
DROP TABLE sites_before;
"""


@dataclass(frozen=True, kw_only=True)
class EnrolledSite:
    """A site's key and where it stands."""

    name: str
    public_key: str
    state: State
    since: float  # seconds since 1970

    @property
    def belongs(self) -> bool:
        """Whether it is, or may become, a site of this coordinator."""
        return self.state in _CURRENT

    @property
    def fingerprint(self) -> str:
        """What both admins read to each other."""
        return fingerprint(self.public_key)

    def facts(self) -> dict[str, object]:
        """Return what commands show; nobody can copy the fingerprint that is to be compared."""
        shown = "" if self.state == "pending" else self.fingerprint
        return {"name": self.name, "fingerprint": shown, "state": self.state, "since": self.since}


class Enrolment:
    """An SQLite file of invitations and sites; every method opens and closes it."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with closing(self._connect()) as connection, self._explained():
            connection.executescript(SCHEMA)
            if _is_of_before(connection):
                script = f"BEGIN IMMEDIATE; {_FROM_BEFORE} {_SCHEMA} {_TAKE_OVER} COMMIT;"
                connection.executescript(script)
            connection.executescript(_SCHEMA)

    def invite(self, site: str, *, address: str, ca_sha256: str, hours: float) -> Invite:
        """Return a new invitation; an earlier one for the same site is void."""
        _check_name(site)
        with self._writing() as connection:
            known = _current(connection, site)
            if known is not None and known.state == "accepted":
                message = (
                    f"{site} is enrolled already, with key {known.fingerprint}. To give it a new "
                    f"key, first: wardround-coordinator sites revoke {site}"
                )
                raise TrustRefused(message)
            return new_invitation(
                connection,
                site,
                address=address,
                ca_sha256=ca_sha256,
                expires=self._clock() + hours * 3600,
            )

    def join(self, request: JoinRequest) -> EnrolledSite:
        """Note the key of an invited site; TrustRefused says why not.

        The same request again, e.g. because the answer was lost, gets the same answer.
        """
        fingerprint(request.public_key)  # refuses what is no key
        refusal: str | None = None
        with self._writing() as connection:
            refusal = fault_of_invitation(connection, request, self._clock())
            refusal = refusal or _fault_of_key(connection, request)
            if refusal is None:
                self._note(connection, request)
            found = _of_key(connection, request.public_key)
        if refusal is not None or found is None:
            raise TrustRefused(refusal or f"{request.site} did not join.")
        return found

    def state_of(self, request: StateRequest) -> EnrolledSite | None:
        """Return where the asking site stands; None when its key is not known."""
        if not request.is_signed():
            message = f"The question is not signed with the key it names, of {request.site}."
            raise TrustRefused(message)
        with closing(self._connect()) as connection:
            found = _of_key(connection, request.public_key)
        return found if found is not None and found.name == request.site else None

    def accept(self, site: str, given: str) -> EnrolledSite:
        """Accept the pending key of a site if its fingerprint is the one given."""
        with self._writing() as connection:
            known = _current(connection, site)
            if known is None:
                message = f"{site} has not joined. Invite it: wardround-coordinator invite {site}"
                raise TrustRefused(message)
            if known.fingerprint != given.strip():
                message = (
                    f"{site} joined with another key than {given}. Let its admin read the "
                    "fingerprint again (there: wardround-site status). If it is the same again, "
                    f"somebody else used the invitation: wardround-coordinator sites revoke {site}"
                )
                raise TrustRefused(message)
            if known.state == "pending":
                self._move(connection, known.public_key, "accepted")
            return cast("EnrolledSite", _current(connection, site))

    def revoke(self, site: str) -> EnrolledSite:
        """Refuse a site's key for good and void its invitation."""
        with self._writing() as connection:
            known = _current(connection, site)
            gone = void_invitation(connection, site)
            if known is not None:
                self._move(connection, known.public_key, "revoked")
                return cast("EnrolledSite", _of_key(connection, known.public_key))
        told = "Its invitation is void." if gone else "`wardround-coordinator sites` lists them."
        message = f"There is no site {site!r} to revoke. {told}"
        raise TrustRefused(message)

    def leave(self, request: LeaveRequest) -> EnrolledSite:
        """Let a site go whose key's owner says so; the same request again changes nothing."""
        if not request.is_signed():
            message = f"That {request.site} leaves is not signed with the key it names."
            raise TrustRefused(message)
        with self._writing() as connection:
            known = _of_key(connection, request.public_key)
            if known is None or known.name != request.site or known.state not in _LEAVING:
                message = f"{request.site} does not belong here with this key."
                raise TrustRefused(message)
            if known.state != "left":
                void_invitation(connection, known.name)
                self._move(connection, known.public_key, "left")
            return cast("EnrolledSite", _of_key(connection, request.public_key))

    def rotate(self, request: RotateRequest) -> EnrolledSite:
        """Accept the key that an accepted key names in its place; returns the site with it."""
        fingerprint(request.new_key)  # refuses what is no key
        if not request.is_signed():
            message = f"The new key of {request.site} is not signed with both keys."
            raise TrustRefused(message)
        with self._writing() as connection:
            old = _of_key(connection, request.public_key)
            new = _of_key(connection, request.new_key)
            if old is None or old.name != request.site:
                message = f"{request.site} does not belong here with the old key."
                raise TrustRefused(message)
            if new is not None:
                if new.state == "accepted" and _successor_of(connection, old) == new.public_key:
                    return new
                raise TrustRefused("The new key is known here already. Make another one.")
            if old.state != "accepted":
                message = (
                    f"The old key of {old.name} is {old.state}, so it names no other. Ask the "
                    "coordinator for an invitation."
                )
                raise TrustRefused(message)
            self._move(connection, old.public_key, "replaced", by=request.new_key)
            connection.execute(
                "INSERT INTO sites (public_key, site, state, since) VALUES (?, ?, 'accepted', ?)",
                (request.new_key, old.name, self._clock()),
            )
            return cast("EnrolledSite", _of_key(connection, request.new_key))

    def sites(self) -> tuple[EnrolledSite, ...]:
        """Return every key ever seen, by site."""
        with closing(self._connect()) as connection, self._explained():
            rows = connection.execute(f"{_SELECT} ORDER BY site, since").fetchall()
        return tuple(map(_site, rows))

    def invited(self) -> dict[str, int]:
        """Return the sites whose invitation is open, and when it expires."""
        with closing(self._connect()) as connection, self._explained():
            return open_invitations(connection, self._clock())

    def _note(self, connection: sqlite3.Connection, request: JoinRequest) -> None:
        if _of_key(connection, request.public_key) is None:
            earlier = _current(connection, request.site)
            if earlier is not None:  # pending: the site was invited anew before it was accepted
                self._move(connection, earlier.public_key, "revoked")
            connection.execute(
                "INSERT INTO sites (public_key, site, state, since) VALUES (?, ?, 'pending', ?)",
                (request.public_key, request.site, self._clock()),
            )
        use_invitation(connection, request)

    def _move(
        self, connection: sqlite3.Connection, public_key: str, state: State, by: str | None = None
    ) -> None:
        connection.execute(
            "UPDATE sites SET state = ?, since = ?, replaced_by = ? WHERE public_key = ?",
            (state, self._clock(), by, public_key),
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with closing(self._connect()) as connection, self._explained(), transaction(connection):
            yield connection

    def _connect(self) -> sqlite3.Connection:
        with self._explained():
            return connected(self._path, patience_seconds=_PATIENCE_SECONDS, autocommit=True)

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self._explain)

    def _explain(self, error: sqlite3.DatabaseError) -> StateDamaged:
        return StateDamaged(
            f"The list of sites {self._path} cannot be used: {error}. See that its folder can be "
            "written, or put the last copy back."
        )


def invite_sites(
    folder: Folder, settings: Settings, enrolment: Enrolment, sites: Sequence[str], hours: float
) -> dict[str, str]:
    """Return the text of a new invitation for each site."""
    authority = authority_hash(folder.ca.read_bytes())
    behind = {"tunnel": settings.front is not None}
    invites = (
        enrolment.invite(site, address=settings.address, ca_sha256=authority, hours=hours)
        for site in sites
    )
    return {invite.site: invite.model_copy(update=behind).text() for invite in invites}


_SELECT = "SELECT site, public_key, state, since FROM sites"


def _current(connection: sqlite3.Connection, site: str) -> EnrolledSite | None:
    row = connection.execute(
        f"{_SELECT} WHERE site = ? AND state IN ('pending', 'accepted')", (site,)
    ).fetchone()
    return None if row is None else _site(row)


def _of_key(connection: sqlite3.Connection, public_key: str) -> EnrolledSite | None:
    row = connection.execute(f"{_SELECT} WHERE public_key = ?", (public_key,)).fetchone()
    return None if row is None else _site(row)


def _fault_of_key(connection: sqlite3.Connection, request: JoinRequest) -> str | None:
    known = _of_key(connection, request.public_key)
    if known is not None and known.state not in _CURRENT:
        how = {"revoked": "was revoked", "left": "has left"}.get(known.state, "was replaced")
        return (
            f"This key of {known.name} {how} and stays so. Make a new key and join again: "
            "wardround-site join INVITE --new-key"
        )
    if known is not None and known.name != request.site:
        return f"This key belongs to another site. Make a key of {request.site}'s own."
    return None


def _successor_of(connection: sqlite3.Connection, site: EnrolledSite) -> str | None:
    query = "SELECT replaced_by FROM sites WHERE public_key = ?"
    return cast("str | None", connection.execute(query, (site.public_key,)).fetchone()[0])


def _is_of_before(connection: sqlite3.Connection) -> bool:
    row = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'sites'").fetchone()
    return row is not None and "replaced_by" not in row[0]


def _site(row: tuple[str, str, str, float]) -> EnrolledSite:
    name, public_key, state, since = row
    assert state in get_args(State)  # noqa: S101 - the table's own CHECK
    return EnrolledSite(name=name, public_key=public_key, state=cast("State", state), since=since)


def _check_name(site: str) -> None:
    try:
        TypeAdapter(SiteName).validate_python(site)
    except ValidationError as error:
        message = (
            f"{site!r} is no name for a site: lower-case letters, digits and hyphens, at most 63, "
            "e.g. st-marys."
        )
        raise ConfigurationError(message) from error
