"""A coordinator moves and renews its authority; what else is sent in its name moves nobody."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.app import app
from client.readiness.doctor import examine
from client.site.home import Home
from client.transport.coordinator import load_authority, load_coordinator
from client.transport.joining import join, state
from client.transport.moving import follow, keep_notice, look_for_notice, pending
from common.messages.enrolment import Invite, JoinRequest
from common.messages.notice import Notice
from common.platform.errors import TrustRefused, Unreachable
from server.enrolment.certificates import (
    Authority,
    authority_hash,
    certificate_pem,
    now,
    server_context,
)
from server.enrolment.moving import AUTHORITY_RENEWAL, move, notice_of, renew
from server.files.coordinator_yaml import load_settings, new_settings, write_settings
from server.files.folder import Folder
from tests.client.coordinators import Front, authority_in, front

pytestmark = pytest.mark.processes


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Front]:
    folder = authority_in(tmp_path / "coordinator")
    with front(folder.path, folder=folder) as found:
        write_settings(folder.settings, new_settings("study", found.address))
        yield found


@pytest.fixture
def home(tmp_path: Path, coordinator: Front) -> Home:
    home = Home(tmp_path / "site")
    join(home, coordinator.invite())
    coordinator.accept("north", home.public_key.read_text().strip())
    return home


def address(home: Home) -> str:
    return load_coordinator(home).address


def said(home: Home, notice: Notice) -> str:
    done = CliRunner().invoke(app, ["move", notice.text(), "--home", str(home.folder)])
    assert done.exit_code == 0, done.output
    return done.output


def signed(coordinator: Front, where: str, number: int = 1 << 40) -> Notice:
    authority = Authority.load(coordinator.folder)
    pem = certificate_pem(authority.certificate).decode()
    return Notice(number=number, address=where, certificate=pem).signed(authority.key)


def test_a_site_follows_its_coordinator_and_never_an_older_notice(
    home: Home, coordinator: Front
) -> None:
    old = address(home)
    assert look_for_notice(home) is None
    with front(coordinator.folder.path, folder=coordinator.folder) as there:
        away = move(coordinator.folder, there.address, now())
        moved = look_for_notice(home)  # asked at the old address
        assert moved is not None
        assert address(home) == there.address
        assert state(home).state == "accepted"
        back = move(coordinator.folder, old, now())
        assert look_for_notice(home) is not None
        assert address(home) == old
        # The first notice, sent again by whoever kept it.
        assert not keep_notice(home, away)
        assert "not newer" in said(home, away)
        assert (follow(home), address(home)) == (None, old)
        assert back.number > away.number


def test_a_signed_notice_of_a_strangers_address_moves_nobody_and_sends_nothing(
    home: Home, coordinator: Front, tmp_path: Path
) -> None:
    before = home.coordinator_json.read_bytes()
    with front(tmp_path / "stranger") as stranger:  # with an authority of its own
        shutil.copy(coordinator.folder.enrolment, stranger.folder.enrolment)
        notice = signed(coordinator, stranger.address)
        assert "does not answer there yet" in said(home, notice)
        assert follow(home) is None
        assert home.coordinator_json.read_bytes() == before
        assert pending(home) == stranger.address
        assert stranger.asked == []
    assert state(home).state == "accepted"  # where it was


def test_a_server_of_the_authority_that_does_not_know_the_site_is_not_followed(
    home: Home, coordinator: Front, tmp_path: Path
) -> None:
    shutil.copytree(coordinator.folder.path, tmp_path / "copy")
    copy = Folder(tmp_path / "copy")
    copy.enrolment.unlink()
    with front(copy.path, folder=copy) as there:
        keep_notice(home, signed(coordinator, there.address))
        assert follow(home) is None
        own = home.public_key.read_text().strip()
        invite = Invite.from_text(there.invite())
        there.enrolment.join(JoinRequest.made(invite, own))  # pending there
        assert follow(home) is None
    assert state(home).state == "accepted"


@pytest.mark.parametrize("lie", ["other authority", "address", "certificate", "unsigned", "number"])
def test_a_notice_that_the_authority_did_not_sign_is_refused(
    home: Home, coordinator: Front, tmp_path: Path, lie: str
) -> None:
    good = signed(coordinator, "coordinator.example:8443")
    other = Authority.load(authority_in(tmp_path / "other"))
    pem = certificate_pem(other.certificate).decode()
    bad = {
        "other authority": good.model_copy(update={"certificate": pem}).signed(other.key),
        "address": good.model_copy(update={"address": "stranger.example:8443"}),
        "certificate": good.model_copy(update={"certificate": pem}),
        "unsigned": good.model_copy(update={"signature": ""}),
        "number": good.model_copy(update={"number": good.number + 1}),
    }[lie]
    with pytest.raises(TrustRefused, match="not the coordinator's that this site joined"):
        keep_notice(home, bad)
    own_key = signed(coordinator, "x.example:1").model_copy(update={"certificate": pem})
    with pytest.raises(TrustRefused, match="of another key"):
        keep_notice(home, own_key.signed(Authority.load(coordinator.folder).key))
    assert not home.notice.exists()
    assert pending(home) == ""


def test_a_site_that_was_away_is_told_at_the_old_address_which_leads_to_the_new_one(
    home: Home, coordinator: Front
) -> None:
    """The server's certificate still names the old host."""
    move(coordinator.folder, "127.0.0.2:8443", now())
    assert renew(coordinator.folder, load_settings(coordinator.folder.settings)) == ["server"]
    with front(coordinator.folder.path, folder=coordinator.folder, host="127.0.0.2") as there:
        there_now = f"127.0.0.2:{there.port}"
        notice = move(coordinator.folder, there_now, now())
        assert look_for_notice(home) is not None
        assert address(home) == there_now
        assert notice_of(coordinator.folder) == notice
        old = replace(load_coordinator(home), address=coordinator.address)
        old.note(home)  # the old name still leads here: TLS holds for both
        assert state(home).state == "accepted"


def test_an_authority_is_renewed_for_the_same_key_and_sites_take_it_without_a_call(
    home: Home, coordinator: Front
) -> None:
    folder, line = coordinator.folder, coordinator.invite("south")
    settings = load_settings(folder.settings)
    assert renew(folder, settings) == []
    before = Authority.load(folder).certificate
    early = replace(Authority.load(folder), certificate=before)
    # A certificate with a month left, of the same key, takes the place of the one joined.
    early.renewed(now() - timedelta(days=3620)).save(folder, beside=early)
    assert join(Home(home.folder.parent / "south"), line).state == "pending"
    assert "authority" in renew(folder, settings)
    after = Authority.load(folder).certificate
    assert after.not_valid_after_utc - now() > AUTHORITY_RENEWAL
    assert after.public_key() == before.public_key()
    taken = look_for_notice(home)
    assert taken is not None
    assert load_authority(home, taken) == certificate_pem(after).decode()
    assert taken.fingerprint == authority_hash(certificate_pem(before))  # as it was joined
    assert state(home).state == "accepted"
    assert [f.state for f in examine(home) if f.check == "certificate"] == ["ok", "ok"]


def test_a_site_that_slept_until_its_authoritys_certificate_ended_still_takes_the_next(
    tmp_path: Path,
) -> None:
    folder = authority_in(tmp_path / "coordinator", days=3660)  # ended ten days ago
    write_settings(folder.settings, new_settings("study", "127.0.0.1:8443"))
    ended = folder.ca.read_text()
    renewed = renew(folder, load_settings(folder.settings))
    assert renewed == ["authority", "server"]
    with front(folder.path, folder=folder, context=server_context(folder)) as found:
        home = Home(tmp_path / "site")
        join(home, found.invite())
        found.accept("north", home.public_key.read_text().strip())
        load_coordinator(home).save(home, ended)
        slept = replace(
            load_coordinator(home), fingerprint=authority_hash(ended.encode()), number=0, renewed=""
        )
        slept.save(home, ended)
        with pytest.raises((TrustRefused, Unreachable), match="expired"):
            state(home)
        move(folder, found.address, now())
        assert look_for_notice(home) is not None
        assert state(home).state == "accepted"
