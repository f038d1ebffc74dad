"""A site leaves, and changes its key, at the coordinator's real pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.app import app
from client.site.home import Home
from client.site.site_config import SiteConfig, write_site_config
from client.transport.coordinator import load_coordinator
from client.transport.joining import join, state
from client.transport.membership import leave, rotate, tell_again
from common.messages.signing_key import fingerprint
from common.platform.errors import ConfigurationError, TrustRefused, Unreachable
from tests.client.coordinators import Front, front

pytestmark = pytest.mark.processes


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Front]:
    with front(tmp_path / "coordinator") as found:
        yield found


@pytest.fixture
def home(tmp_path: Path, coordinator: Front) -> Home:
    home = Home(tmp_path / "site")
    join(home, coordinator.invite())
    coordinator.accept("north", home.public_key.read_text().strip())
    return home


def states(coordinator: Front) -> list[str]:
    return [site.state for site in coordinator.enrolment.sites()]


def test_a_site_leaves_its_key_is_destroyed_and_its_records_stay(
    home: Home, coordinator: Front
) -> None:
    for path in (home.ledger, home.withdrawals, home.disclosures, home.approvals):
        path.write_text("kept")
    secret = home.key.read_text()
    said = CliRunner().invoke(app, ["leave", "--yes", "--home", str(home.folder)])
    assert said.exit_code == 0, said.output
    assert "was told, and the key is destroyed" in said.output
    assert states(coordinator) == ["left"]
    left = [path for path in home.folder.rglob("*") if path.is_file()]
    assert not [path for path in left if secret in path.read_text(errors="replace")]
    assert home.ledger.read_text() == home.withdrawals.read_text() == "kept"
    with pytest.raises(ConfigurationError, match="has not joined"):
        state(home)
    join(home, coordinator.invite())  # with a new key
    assert states(coordinator) == ["left", "pending"]


def test_nothing_is_destroyed_where_nobody_could_be_told_unless_that_is_wanted(
    home: Home, coordinator: Front
) -> None:
    facts = home.coordinator_json.read_text()
    home.coordinator_json.write_text(facts.replace(coordinator.address, "127.0.0.1:1"))
    with pytest.raises(Unreachable):
        leave(home)
    assert home.key.exists()
    assert load_coordinator(home).site == "north"
    leave(home, without_them=True)
    assert not home.key.exists()
    assert states(coordinator) == ["accepted"]


def test_a_key_is_changed_without_a_call_and_the_old_one_is_gone(
    home: Home, coordinator: Front
) -> None:
    before = home.key.read_text()
    shown = rotate(home)
    assert shown == fingerprint(home.public_key.read_text().strip())
    assert home.key.read_text() != before
    assert home.key.stat().st_mode & 0o077 == 0
    assert state(home).state == "accepted"
    assert states(coordinator) == ["replaced", "accepted"]


def test_a_change_that_was_killed_anywhere_goes_on_with_the_same_new_key(
    home: Home, tmp_path: Path
) -> None:
    copy = shutil.copytree(home.folder, tmp_path / "killed")
    shown = rotate(home)
    killed = Home(copy)  # as it stands once the coordinator has heard, and the site not yet
    shutil.copy(home.key, killed.next_key)
    assert rotate(killed) == shown
    assert state(killed).state == "accepted"


def test_a_coordinator_from_before_a_change_is_told_of_it_again(
    home: Home, coordinator: Front, tmp_path: Path
) -> None:
    copy = shutil.copy(coordinator.folder.enrolment, tmp_path / "enrolment.db")
    rotate(home)
    rotate(home)
    shutil.copy(copy, coordinator.folder.enrolment)
    with pytest.raises(TrustRefused, match="has not joined with this key"):
        state(home)
    assert tell_again(home)
    assert state(home).state == "accepted"
    assert states(coordinator) == ["replaced", "replaced", "accepted"]


def test_a_revoked_key_neither_renews_itself_nor_is_told_of_again(
    home: Home, coordinator: Front
) -> None:
    rotate(home)
    coordinator.enrolment.revoke("north")
    with pytest.raises(TrustRefused, match="is revoked"):
        rotate(home)
    assert not tell_again(home)
    assert states(coordinator) == ["replaced", "revoked"]


# --- several federations -----------------------------------------------------------------------


def test_an_invitation_of_another_coordinator_never_takes_the_place_of_the_first(
    home: Home, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_site_config(home.site_yaml, SiteConfig(name="north", data=data))
    before = {path: path.read_bytes() for path in home.folder.iterdir() if path.is_file()}

    def typed(line: str, *words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["join", line, *words, "--home", str(home.folder)])
        return done.exit_code, " ".join(done.output.split())

    with front(tmp_path / "other") as other:
        status, said = typed(other.invite("north"))
        assert status == 2
        assert "the invitation is of another coordinator" in said
        assert other.enrolment.sites() == ()
        status, said = typed(other.invite("the-north"), "--federation", "lung")
        assert status == 0, said
        assert [site.name for site in other.enrolment.sites()] == ["the-north"]
        status, said = typed(other.invite("the-north"), "--federation", "another")
        assert status == 2
        assert "as its federation lung" in said
        assert typed(other.invite("the-north"), "--federation", "../out")[0] == 2
    assert {path: path.read_bytes() for path in before} == before
    assert [one.federation for one in home.joined()] == ["first", "lung"]
    assert home.of("lung").key.read_bytes() != home.key.read_bytes()
    with pytest.raises(ConfigurationError, match="--federation: first, lung"):
        home.one(None)
    with pytest.raises(ConfigurationError, match="no federation 'breast'"):
        home.one("breast")
    leave(home.of("lung"), without_them=True)
    assert home.one(None) == home
