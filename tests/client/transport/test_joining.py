from __future__ import annotations

import gzip
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from client.site.home import Home
from client.transport.coordinator import load_authority, load_coordinator
from client.transport.joining import _exchange, fetch_authority, join, state, wait_until_accepted
from common.messages.enrolment import Invite, JoinReply
from common.messages.signing_key import fingerprint
from common.platform.errors import ConfigurationError, TrustRefused, Unreachable, WardroundError
from server.enrolment.certificates import authority_hash, server_context
from tests.client.coordinators import Front, always, authority_in, front, served

pytestmark = pytest.mark.processes

SECRET = "A" * 43


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "site")


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front(tmp_path_factory.mktemp("coordinator")) as found:
        yield found


def invite_to(port: int, **changed: object) -> str:
    plain: dict[str, object] = {
        "address": f"127.0.0.1:{port}",
        "ca_sha256": "ab" * 32,
        "site": "north",
        "secret": SECRET,
        "expires": 4_000_000_000,
    }
    return Invite.model_validate(plain | changed).text()


def files(home: Home) -> set[str]:
    return {p.name for p in home.folder.iterdir()} if home.folder.is_dir() else set()


# --- what a site's admin does ----------------------------------------------------------------


def test_a_site_joins_is_pending_and_is_accepted_by_its_fingerprint(
    home: Home, tmp_path: Path
) -> None:
    with front(tmp_path / "c") as coordinator:
        reply = join(home, coordinator.invite())
        public = home.public_key.read_text().strip()
        assert (reply.state, reply.coordinator) == ("pending", "breast-study")
        assert reply.fingerprint == fingerprint(public)
        assert state(home).state == "pending"
        coordinator.accept("north", public)
        assert wait_until_accepted(home).state == "accepted"
        joined = load_coordinator(home)
        assert (joined.address, joined.site) == (coordinator.address, "north")
        assert load_authority(home, joined) == coordinator.folder.ca.read_text()


def test_the_private_key_is_made_here_for_its_owner_alone_and_nothing_of_it_is_sent(
    home: Home, tmp_path: Path
) -> None:
    with front(tmp_path / "c") as coordinator:
        line = coordinator.invite()
        join(home, line)
        state(home)
        sent = b"".join(body for _, _, body in coordinator.asked)
    assert stat.S_IMODE(home.key.stat().st_mode) == 0o600
    private = home.key.read_text().splitlines()[1:-1]
    assert b"PRIVATE" not in sent
    assert not any(line.encode() in sent for line in private)
    assert Invite.from_text(line).secret.encode() not in sent
    assert Invite.from_text(line).secret not in "".join(
        p.read_text() for p in home.folder.iterdir()
    )
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(home.public_key)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode != 0 or fingerprint(home.public_key.read_text().strip()) in shown.stdout


def test_the_same_command_again_goes_on_with_the_same_key(home: Home, tmp_path: Path) -> None:
    with front(tmp_path / "c") as coordinator:
        line = coordinator.invite()
        first = join(home, line)
        home.coordinator_json.unlink()  # as if killed before it was written
        assert join(home, line) == first
        coordinator.accept("north", home.public_key.read_text().strip())
        assert join(home, line).state == "accepted"


def test_a_key_that_was_revoked_is_put_aside_only_when_a_new_one_is_asked_for(
    home: Home, tmp_path: Path
) -> None:
    with front(tmp_path / "c") as coordinator:
        join(home, coordinator.invite())
        coordinator.enrolment.revoke("north")
        with pytest.raises(TrustRefused, match="revoked"):
            state(home)
        line = coordinator.invite()
        with pytest.raises(TrustRefused, match="Make a new key"):
            join(home, line)
        before = home.key.read_text()
        assert join(home, line, new_key=True).state == "pending"
        (aside,) = home.folder.glob("key.until-*")
        assert aside.read_text() == before
        assert home.key.read_text() != before
        assert stat.S_IMODE(aside.stat().st_mode) == 0o600


def test_a_site_that_has_not_joined_is_told_what_to_type(home: Home) -> None:
    with pytest.raises(ConfigurationError, match="wardround-site join INVITE --data FOLDER"):
        state(home)


# --- what the coordinator refuses ------------------------------------------------------------


def test_an_expired_invitation_is_refused_with_whom_to_ask(home: Home, coordinator: Front) -> None:
    with pytest.raises(TrustRefused, match=r"has expired. Ask the coordinator for a new one"):
        join(home, coordinator.invite("late", hours=-1.0))


def test_an_invitation_works_for_one_key(coordinator: Front, tmp_path: Path) -> None:
    line = coordinator.invite("once")
    join(Home(tmp_path / "one"), line)
    with pytest.raises(TrustRefused, match=r"was used already.*tell the coordinator at once"):
        join(Home(tmp_path / "two"), line)


def test_a_stolen_invitation_without_its_secret_is_refused(home: Home, coordinator: Front) -> None:
    with pytest.raises(TrustRefused, match="No open invitation of stolen has this secret"):
        join(home, coordinator.invite("stolen", secret=SECRET))


@pytest.mark.parametrize("line", ["", "hello", "wardround-invite-1-AAAA", "wardround-invite-2-AA"])
def test_what_is_no_invitation_is_refused_before_anything_is_made(home: Home, line: str) -> None:
    with pytest.raises(TrustRefused):
        join(home, line)
    assert files(home) == set()


# --- whom the site refuses -------------------------------------------------------------------


def test_another_authority_is_refused_before_anything_is_sent_or_made(
    home: Home, coordinator: Front
) -> None:
    before = len(coordinator.asked)
    with pytest.raises(TrustRefused, match=r"somebody may be between you.*do not go on; call them"):
        join(home, coordinator.invite("other", ca_sha256="cd" * 32))
    assert [(method, body) for method, _, body in coordinator.asked[before:]] == [("GET", b"")]
    assert files(home) == set()


def test_somebody_between_who_shows_the_right_certificate_but_is_another_is_refused(
    home: Home, tmp_path: Path
) -> None:
    """They pass the authority's public certificate on and serve with a key of their own."""
    real = authority_in(tmp_path / "real")
    thief = authority_in(tmp_path / "thief")
    with front(tmp_path / "c", folder=thief, authority=real.ca.read_bytes()) as between:
        line = between.invite(ca_sha256=authority_hash(real.ca.read_bytes()))
        with pytest.raises(TrustRefused, match="Somebody may be between you"):
            join(home, line)
        assert [method for method, _, _ in between.asked] == ["GET"]
    assert not home.coordinator_json.exists()


def test_of_what_came_only_the_certificate_that_was_hashed_is_trusted(
    home: Home, tmp_path: Path
) -> None:
    """A second certificate behind the right one would be an authority, too."""
    real = authority_in(tmp_path / "real")
    thief = authority_in(tmp_path / "thief")
    both = real.ca.read_bytes() + thief.ca.read_bytes()
    with front(tmp_path / "c", folder=thief, authority=both) as between:
        line = between.invite(ca_sha256=authority_hash(real.ca.read_bytes()))
        kept = fetch_authority(Invite.from_text(line))
        assert kept == real.ca.read_text()
        with pytest.raises(TrustRefused, match="Somebody may be between you"):
            join(home, line)


def test_a_coordinator_with_another_name_than_the_address_is_refused(
    home: Home, tmp_path: Path
) -> None:
    folder = authority_in(tmp_path / "c", hosts=("elsewhere.example",))
    with (
        front(tmp_path, folder=folder, host="127.0.0.2") as found,
        pytest.raises(TrustRefused, match="names other hosts than this address"),
    ):
        join(home, found.invite())


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (600, "expired.*clock is right.*started again"),
        (-3, "not yet valid.*Set this machine's clock"),
    ],
)
def test_a_certificate_out_of_its_time_is_refused_with_the_clock_in_mind(
    home: Home, tmp_path: Path, days: int, said: str
) -> None:
    folder = authority_in(tmp_path / "c", days=days)
    with (
        front(tmp_path, folder=folder) as found,
        pytest.raises(TrustRefused, match=f"(?s)is not accepted: .*{said}"),
    ):
        join(home, found.invite())


def test_older_tls_is_refused(home: Home, tmp_path: Path) -> None:
    folder = authority_in(tmp_path / "c")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder.server_key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        front(tmp_path, folder=folder, context=context) as found,
        pytest.raises(TrustRefused, match=r"does not speak TLS 1.3"),
    ):
        join(home, found.invite())


def test_older_tls_is_refused_even_for_what_only_its_hash_makes_trusted(tmp_path: Path) -> None:
    folder = authority_in(tmp_path / "c")
    context = server_context(folder)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        front(tmp_path, folder=folder, context=context) as found,
        pytest.raises(TrustRefused, match=r"TLS 1\.3"),
    ):
        fetch_authority(Invite.from_text(found.invite()))


def test_an_answer_beyond_any_coordinators_is_not_read_to_its_end(
    home: Home, tmp_path: Path
) -> None:
    folder = authority_in(tmp_path / "c")
    pem = folder.ca.read_bytes()
    with served(always(200, pem + b"\n" * 200_000), server_context(folder)) as port:
        line = invite_to(port, ca_sha256=authority_hash(pem))
        with pytest.raises(TrustRefused, match="more than a coordinator would"):
            join(home, line)


def test_a_compressed_answer_is_not_unpacked() -> None:
    """A few kilobytes may hold what fills any memory."""
    packed = gzip.compress(b"0" * 4096)

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, content=iter([packed]))

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        _, content, _ = _exchange(client, "c.example:1", "GET", "/")
    assert content == packed


def test_a_server_without_tls_is_refused(home: Home) -> None:
    with served(always(200, b"hello"), None) as port, pytest.raises(TrustRefused, match=r"TLS 1.3"):
        join(home, invite_to(port))


@pytest.mark.parametrize("body", [b"hello", b"", b"x" * 200_000])
def test_a_server_that_is_no_coordinator_is_refused(
    home: Home, tmp_path: Path, body: bytes
) -> None:
    context = server_context(authority_in(tmp_path / "c"))
    with (
        served(always(200, body), context) as port,
        pytest.raises(TrustRefused, match="Compare the address"),
    ):
        join(home, invite_to(port))


def test_an_answer_about_another_key_is_refused(home: Home, tmp_path: Path) -> None:
    folder = authority_in(tmp_path / "c")
    reply = JoinReply(state="pending", coordinator="c", fingerprint="SHA256:another")
    pem = folder.ca.read_bytes()

    async def app(scope: dict[str, object], _receive: object, send: object) -> None:
        body = pem if scope["method"] == "GET" else reply.to_json()
        await always(200, body)(scope, _receive, send)  # type: ignore[arg-type]  # ASGI's own

    with served(app, server_context(folder)) as port:  # type: ignore[arg-type]  # ASGI's own
        line = invite_to(port, ca_sha256=authority_hash(pem))
        with pytest.raises(TrustRefused, match=r"about the key SHA256:another.*do not go on"):
            join(home, line)


def test_a_changed_authority_on_disk_is_noticed(home: Home, tmp_path: Path) -> None:
    with front(tmp_path / "c") as coordinator:
        join(home, coordinator.invite())
    other = authority_in(tmp_path / "other")
    home.coordinator_pem.write_bytes(other.ca.read_bytes())
    with pytest.raises(TrustRefused, match=r"coordinator\.pem is not the certificate"):
        state(home)


# --- when nobody answers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "Cannot reach the coordinator at 127.0.0.1:1: .*Ask them whether it runs"),
        ("no-such-host.invalid:443", "Cannot reach the coordinator at no-such-host.*(DNS|name)"),
    ],
)
def test_a_coordinator_that_is_not_there_is_told_with_what_to_look_at(
    home: Home, address: str, said: str
) -> None:
    with pytest.raises(Unreachable, match=said):
        join(home, invite_to(1, address=address))
    assert files(home) == set()


def test_every_refusal_ends_in_something_to_do(home: Home, coordinator: Front) -> None:
    said: list[str] = []
    for line in (
        "hello",
        coordinator.invite("e", hours=-1.0),
        coordinator.invite("f", secret=SECRET),
        coordinator.invite("g", ca_sha256="cd" * 32),
        invite_to(1),
    ):
        with pytest.raises(WardroundError) as caught:
            join(home, line)
        said.append(str(caught.value))
    verbs = ("Ask", "ask", "Copy", "call them", "Compare", "Set")
    assert all(any(verb in text for verb in verbs) for text in said), said
