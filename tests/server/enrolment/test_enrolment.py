from __future__ import annotations

import re
import secrets
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.messages.enrolment import Invite, JoinRequest, StateRequest
from common.messages.signing_key import fingerprint, new_private_key, public_text
from common.platform.errors import ConfigurationError, StateDamaged, TrustRefused
from server.enrolment.registry import Enrolment


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def enrolment(tmp_path: Path, clock: Clock) -> Enrolment:
    return Enrolment(tmp_path / "enrolment.db", clock=clock)


def invite(enrolment: Enrolment, site: str = "north", hours: float = 24) -> Invite:
    return enrolment.invite(site, address="c.example:8443", ca_sha256="0" * 64, hours=hours)


def key() -> str:
    return public_text(new_private_key())


def states(enrolment: Enrolment) -> list[tuple[str, str]]:
    return [(site.name, site.state) for site in enrolment.sites()]


def test_a_site_is_pending_until_its_fingerprint_is_accepted(enrolment: Enrolment) -> None:
    private = new_private_key()
    joined = enrolment.join(JoinRequest.made(invite(enrolment), public_text(private)))
    assert (joined.name, joined.state) == ("north", "pending")
    assert joined.fingerprint == fingerprint(public_text(private))
    assert enrolment.accept("north", joined.fingerprint).state == "accepted"
    asked = enrolment.state_of(StateRequest.made("north", private))
    assert asked is not None
    assert asked.state == "accepted"
    assert states(enrolment) == [("north", "accepted")]


def test_another_fingerprint_is_not_accepted(enrolment: Enrolment) -> None:
    enrolment.join(JoinRequest.made(invite(enrolment), key()))
    with pytest.raises(TrustRefused, match="somebody else used the invitation"):
        enrolment.accept("north", fingerprint(key()))
    with pytest.raises(TrustRefused, match="has not joined"):
        enrolment.accept("south", fingerprint(key()))
    assert states(enrolment) == [("north", "pending")]


def test_an_invitation_works_once(enrolment: Enrolment) -> None:
    sent, first = invite(enrolment), key()
    enrolment.join(JoinRequest.made(sent, first))
    with pytest.raises(
        TrustRefused, match=re.escape(f"used already, by the key {fingerprint(first)[:12]}")
    ):
        enrolment.join(JoinRequest.made(sent, key()))
    assert [site.public_key for site in enrolment.sites()] == [first]


def test_of_many_joins_at_once_one_wins(enrolment: Enrolment) -> None:
    sent = invite(enrolment)

    def join(public_key: str) -> bool:
        try:
            enrolment.join(JoinRequest.made(sent, public_key))
        except TrustRefused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(join, [key() for _ in range(8)])) == 1
    assert states(enrolment) == [("north", "pending")]


def test_a_join_whose_answer_was_lost_gets_it_again(enrolment: Enrolment, clock: Clock) -> None:
    request = JoinRequest.made(invite(enrolment, hours=1), key())
    first = enrolment.join(request)
    clock.now += 2 * 3600
    assert enrolment.join(request) == first


def test_whoever_lacks_the_secret_does_not_join(enrolment: Enrolment) -> None:
    stolen = invite(enrolment).model_copy(update={"secret": secrets.token_urlsafe(32)})
    with pytest.raises(TrustRefused, match="No open invitation of north has this secret"):
        enrolment.join(JoinRequest.made(stolen, key()))
    with pytest.raises(TrustRefused, match="No open invitation of south has this secret"):
        enrolment.join(JoinRequest.made(stolen.model_copy(update={"site": "south"}), key()))
    assert enrolment.sites() == ()


def test_a_seen_join_is_of_no_use_for_another_key(enrolment: Enrolment) -> None:
    seen = JoinRequest.made(invite(enrolment), key())
    with pytest.raises(TrustRefused, match="has this secret"):
        enrolment.join(seen.model_copy(update={"public_key": key()}))


def test_wrong_tries_keep_nobody_with_the_secret_out(enrolment: Enrolment, clock: Clock) -> None:
    """A stranger who knows a site's name can try without end; the site joins all the same."""
    sent = invite(enrolment)
    guess = sent.model_copy(update={"secret": secrets.token_urlsafe(32)})
    for _ in range(5):
        with pytest.raises(TrustRefused, match="has this secret"):
            enrolment.join(JoinRequest.made(guess, key()))
    for wait in (0, 61):
        clock.now += wait
        with pytest.raises(TrustRefused, match="has this secret" if wait else "Too many wrong"):
            enrolment.join(JoinRequest.made(guess, key()))
    for _ in range(5):
        with pytest.raises(TrustRefused):
            enrolment.join(JoinRequest.made(guess, key()))
    assert enrolment.join(JoinRequest.made(sent, key())).state == "pending"


def test_an_expired_or_replaced_invitation_is_refused_with_its_reason(
    enrolment: Enrolment, clock: Clock
) -> None:
    first = invite(enrolment)
    second = invite(enrolment, hours=1)
    assert enrolment.invited() == {"north": second.expires}
    with pytest.raises(TrustRefused, match="has this secret"):
        enrolment.join(JoinRequest.made(first, key()))
    clock.now += 3600
    with pytest.raises(TrustRefused, match="has expired"):
        enrolment.join(JoinRequest.made(second, key()))
    assert enrolment.invited() == {}


def test_a_revoked_key_never_comes_back(enrolment: Enrolment) -> None:
    old = key()
    joined = enrolment.join(JoinRequest.made(invite(enrolment), old))
    enrolment.accept("north", joined.fingerprint)
    with pytest.raises(TrustRefused, match="enrolled already"):
        invite(enrolment)
    assert enrolment.revoke("north").state == "revoked"
    again = invite(enrolment)
    with pytest.raises(TrustRefused, match="was revoked and stays so"):
        enrolment.join(JoinRequest.made(again, old))
    enrolment.join(JoinRequest.made(again, key()))
    assert states(enrolment) == [("north", "revoked"), ("north", "pending")]


def test_revoking_voids_an_open_invitation(enrolment: Enrolment) -> None:
    sent = invite(enrolment)
    with pytest.raises(TrustRefused, match="invitation is void"):
        enrolment.revoke("north")
    with pytest.raises(TrustRefused, match="has this secret"):
        enrolment.join(JoinRequest.made(sent, key()))
    with pytest.raises(TrustRefused, match="no site 'east'"):
        enrolment.revoke("east")


def test_one_key_is_one_site(enrolment: Enrolment) -> None:
    mine = key()
    enrolment.join(JoinRequest.made(invite(enrolment), mine))
    with pytest.raises(TrustRefused, match="belongs to another site"):
        enrolment.join(JoinRequest.made(invite(enrolment, "south"), mine))


def test_a_site_invited_again_before_it_was_accepted_brings_a_new_key(enrolment: Enrolment) -> None:
    enrolment.join(JoinRequest.made(invite(enrolment), key()))
    second = key()
    enrolment.join(JoinRequest.made(invite(enrolment), second))
    assert states(enrolment) == [("north", "revoked"), ("north", "pending")]
    assert enrolment.accept("north", fingerprint(second)).public_key == second


def test_only_the_keys_owner_learns_its_state(enrolment: Enrolment) -> None:
    private = new_private_key()
    enrolment.join(JoinRequest.made(invite(enrolment), public_text(private)))
    forged = StateRequest.made("north", new_private_key()).model_copy(
        update={"public_key": public_text(private)}
    )
    with pytest.raises(TrustRefused, match="not signed"):
        enrolment.state_of(forged)
    assert enrolment.state_of(StateRequest.made("south", private)) is None
    assert enrolment.state_of(StateRequest.made("north", new_private_key())) is None


@pytest.mark.parametrize("name", ["", "North", "../north", "a b", "-x", "x" * 64, "nörd"])
def test_a_name_that_is_none_is_refused(enrolment: Enrolment, name: str) -> None:
    with pytest.raises(ConfigurationError, match="no name for a site"):
        invite(enrolment, name)


def test_the_secrets_can_be_read_by_their_owner_only(enrolment: Enrolment, tmp_path: Path) -> None:
    invite(enrolment)
    assert stat.S_IMODE((tmp_path / "enrolment.db").stat().st_mode) == 0o600


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "enrolment.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StateDamaged, match=r"enrolment\.db cannot be used"):
        Enrolment(tmp_path / "enrolment.db")


def test_a_site_has_one_key_even_for_a_hand_in_the_table(
    enrolment: Enrolment, tmp_path: Path
) -> None:
    enrolment.join(JoinRequest.made(invite(enrolment), key()))
    with closing(sqlite3.connect(tmp_path / "enrolment.db")) as connection:
        row = ("INSERT INTO sites VALUES (?, 'north', 'accepted', 0, NULL)", (key(),))
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(*row)
