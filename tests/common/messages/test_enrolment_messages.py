from __future__ import annotations

import secrets
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.messages.enrolment import Invite, JoinReply, JoinRequest, StateRequest
from common.messages.signing_key import new_private_key, public_text
from common.platform.errors import TrustRefused

INVITE = Invite(
    address="coordinator.example:8443",
    ca_sha256="ab" * 32,
    site="north",
    secret=secrets.token_urlsafe(32),
    expires=2_000_000_000,
)


def test_an_invitation_is_one_line_that_reads_back() -> None:
    text = INVITE.text()
    assert text.startswith("wardround-invite-1-")
    assert len(text.split()) == 1
    assert Invite.from_text(text) == INVITE
    assert Invite.from_text(f"\n {text[:60]}\n{text[60:]} \n") == INVITE  # broken by a mail program


def test_an_invitations_secret_is_not_printed() -> None:
    assert INVITE.secret not in repr(INVITE)
    assert INVITE.secret not in str(INVITE)


@given(place=st.integers(19, len(INVITE.text()) - 1), letter=st.sampled_from(string.ascii_letters))
def test_a_changed_letter_is_noticed(place: int, letter: str) -> None:
    text = INVITE.text()
    changed = text[:place] + letter + text[place + 1 :]
    assume(changed != text)
    with pytest.raises(TrustRefused, match="cut or changed"):
        Invite.from_text(changed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no invitation"),
        ("hello", "is no invitation"),
        ("wardround-invite-2-AAAA", "another release"),
        ("wardround-invite-1-", "cut or changed"),
        (INVITE.text()[:-1], "cut or changed"),
        (INVITE.text() + ".", "cut or changed"),
        (INVITE.text() + "A", "cut or changed"),
        ("wardround-invite-1-\x00", "cut or changed"),
        ("wardround-invite-1-ä", "cut or changed"),
    ],
)
def test_what_is_no_invitation_is_refused_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(TrustRefused, match=said):
        Invite.from_text(text)


def test_only_the_secrets_holder_proves_and_only_for_one_site_and_key() -> None:
    key = public_text(new_private_key())
    request = JoinRequest.parse(JoinRequest.made(INVITE, key).to_json())
    assert request.proves(INVITE.secret)
    assert not request.proves(secrets.token_urlsafe(32))
    other = public_text(new_private_key())
    assert not request.model_copy(update={"public_key": other}).proves(INVITE.secret)
    assert not request.model_copy(update={"site": "south"}).proves(INVITE.secret)
    assert INVITE.secret.encode() not in request.to_json()


def test_only_the_keys_owner_asks_for_its_state() -> None:
    request = StateRequest.made("north", new_private_key())
    assert StateRequest.parse(request.to_json()).is_signed()
    other = public_text(new_private_key())
    assert not request.model_copy(update={"public_key": other}).is_signed()
    assert not request.model_copy(update={"site": "south"}).is_signed()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"site": "north"}',
        b'{"site": "North", "public_key": "", "proof": ""}',
        b'{"site": "../x", "public_key": "k", "proof": "' + b"0" * 64 + b'"}',
    ],
)
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(TrustRefused, match="does not fit"):
        JoinRequest.parse(content)


def test_a_reply_reads_back() -> None:
    reply = JoinReply(state="pending", coordinator="breast-study", fingerprint="SHA256:x")
    assert JoinReply.parse(reply.to_json()) == reply
