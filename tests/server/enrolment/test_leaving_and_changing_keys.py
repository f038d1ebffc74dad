"""Keys that have left, were revoked or replaced stay out, whatever they sign."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from common.messages.enrolment import Invite, JoinRequest, LeaveRequest, RotateRequest, StateRequest
from common.messages.signing_key import fingerprint, new_private_key, public_text, sign
from common.platform.errors import TrustRefused
from server.enrolment.registry import Enrolment


@pytest.fixture
def enrolment(tmp_path: Path) -> Enrolment:
    return Enrolment(tmp_path / "enrolment.db")


def invite(enrolment: Enrolment, site: str = "north") -> Invite:
    return enrolment.invite(site, address="c.example:8443", ca_sha256="0" * 64, hours=24)


def accepted(enrolment: Enrolment, site: str = "north") -> ec.EllipticCurvePrivateKey:
    key = new_private_key()
    enrolment.join(JoinRequest.made(invite(enrolment, site), public_text(key)))
    enrolment.accept(site, fingerprint(public_text(key)))
    return key


def keys(enrolment: Enrolment) -> dict[str, str]:
    return {site.public_key: site.state for site in enrolment.sites()}


def test_a_site_that_leaves_is_out_for_good_and_may_be_invited_again(enrolment: Enrolment) -> None:
    key = accepted(enrolment)
    request = LeaveRequest.made("north", key)
    assert enrolment.leave(request).state == "left"
    assert enrolment.leave(request).state == "left"  # the answer may have been lost
    with pytest.raises(TrustRefused, match="has left and stays so"):
        enrolment.join(JoinRequest.made(invite(enrolment), public_text(key)))
    again = new_private_key()
    enrolment.join(JoinRequest.made(invite(enrolment), public_text(again)))
    assert keys(enrolment) == {public_text(key): "left", public_text(again): "pending"}


def test_nobody_else_lets_a_site_leave(enrolment: Enrolment) -> None:
    key, other = accepted(enrolment), accepted(enrolment, "south")
    signed = LeaveRequest.made("north", other)
    asked = StateRequest.made("north", key)  # seen on its way, and sent as another message
    for request in (
        signed,
        signed.model_copy(update={"public_key": public_text(key)}),
        LeaveRequest.model_validate(asked.model_dump()),
        LeaveRequest.made("south", key),
    ):
        with pytest.raises(TrustRefused):
            enrolment.leave(request)
    assert set(keys(enrolment).values()) == {"accepted"}


def test_a_revoked_key_stays_revoked_and_does_not_leave(enrolment: Enrolment) -> None:
    key = accepted(enrolment)
    enrolment.revoke("north")
    with pytest.raises(TrustRefused, match="does not belong here"):
        enrolment.leave(LeaveRequest.made("north", key))
    assert keys(enrolment) == {public_text(key): "revoked"}


def test_the_old_key_names_the_new_one_and_is_good_for_nothing_then(enrolment: Enrolment) -> None:
    old, new = accepted(enrolment), new_private_key()
    request = RotateRequest.made("north", old, new)
    assert enrolment.rotate(request).fingerprint == fingerprint(public_text(new))
    assert enrolment.rotate(request).public_key == public_text(new)  # the answer may have been lost
    assert keys(enrolment) == {public_text(old): "replaced", public_text(new): "accepted"}
    with pytest.raises(TrustRefused, match="is replaced, so it names no other"):
        enrolment.rotate(RotateRequest.made("north", old, new_private_key()))
    enrolment.revoke("north")
    with pytest.raises(TrustRefused, match="was replaced and stays so"):
        enrolment.join(JoinRequest.made(invite(enrolment), public_text(old)))


def test_an_old_change_of_keys_that_is_sent_again_brings_no_key_back(enrolment: Enrolment) -> None:
    first, second, third = accepted(enrolment), new_private_key(), new_private_key()
    early = RotateRequest.made("north", first, second)
    enrolment.rotate(early)
    enrolment.rotate(RotateRequest.made("north", second, third))
    with pytest.raises(TrustRefused, match="known here already"):
        enrolment.rotate(early)
    back = RotateRequest.made("north", third, first)  # not even the owner of all takes it back
    with pytest.raises(TrustRefused, match="known here already"):
        enrolment.rotate(back)
    assert keys(enrolment)[public_text(third)] == "accepted"


@pytest.mark.parametrize("how", ["revoked", "left", "pending"])
def test_a_key_that_is_not_accepted_names_no_other(enrolment: Enrolment, how: str) -> None:
    old = new_private_key() if how == "pending" else accepted(enrolment)
    match how:
        case "revoked":
            enrolment.revoke("north")
        case "left":
            enrolment.leave(LeaveRequest.made("north", old))
        case _:
            enrolment.join(JoinRequest.made(invite(enrolment), public_text(old)))
    before = keys(enrolment)
    with pytest.raises(TrustRefused, match=f"is {how}, so it names no other"):
        enrolment.rotate(RotateRequest.made("north", old, new_private_key()))
    assert keys(enrolment) == before


def test_a_change_of_keys_that_lacks_a_signature_or_is_of_others_is_refused(
    enrolment: Enrolment,
) -> None:
    old, new, thief = accepted(enrolment), new_private_key(), new_private_key()
    south = accepted(enrolment, "south")
    good = RotateRequest.made("north", old, new)
    stolen = RotateRequest.made("north", thief, new)
    # Of the old key's name and the thief's own new key, signed with that alone.
    mine = public_text(thief)
    content = "\n".join(("wardround-rotate-1", "north", public_text(old), mine)).encode()
    forged = good.model_copy(
        update={
            "new_key": mine,
            "signature": sign(thief, content).hex(),
            "new_signature": sign(thief, content).hex(),
        }
    )
    for request in (
        forged,
        stolen,
        stolen.model_copy(update={"public_key": public_text(old)}),
        good.model_copy(update={"new_signature": stolen.signature}),
        good.model_copy(update={"new_key": public_text(thief)}),
        RotateRequest.made("south", old, new),
        RotateRequest.made("north", old, south),  # a key of another site
    ):
        with pytest.raises(TrustRefused):
            enrolment.rotate(request)
    assert not {public_text(new), mine} & set(keys(enrolment))
    assert keys(enrolment)[public_text(old)] == "accepted"


def test_the_list_of_an_earlier_release_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "enrolment.db"
    known, gone = public_text(new_private_key()), public_text(new_private_key())
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE sites (public_key TEXT PRIMARY KEY, site TEXT NOT NULL, state TEXT NOT "
            "NULL CHECK (state IN ('pending', 'accepted', 'revoked')), since REAL NOT NULL) STRICT;"
            "CREATE UNIQUE INDEX one_key_a_site ON sites (site) WHERE state <> 'revoked';"
        )
        rows = [(known, "north", "accepted", 1.5), (gone, "north", "revoked", 0.5)]
        connection.executemany("INSERT INTO sites VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    for _ in range(2):
        found = Enrolment(path)
        assert keys(found) == {known: "accepted", gone: "revoked"}
        assert [site.since for site in found.sites()] == [0.5, 1.5]
    assert found.revoke("north").public_key == known
