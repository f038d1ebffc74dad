from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.cli.app import app
from client.site.site_config import load_site_config
from tests.client.coordinators import Front, front
from tests.client.policies import run_of
from tests.client.terminals import RUNNER, Site, environment, started, wait_for

pytestmark = pytest.mark.processes

#: What a text that fails must hold: something to type, somebody to ask, or something to change.
NEXT_STEP = re.compile(
    r"wardround-|--\w+|[Gg]ive |[Aa]sk |[Ww]rite |[Cc]all |[Cc]opy |[Cc]ompare |Mount |Put |Save "
    r"|Edit |chmod|timedatectl|[Uu]se |Look |See |Did you mean|Type |Keep the file|expected"
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front(tmp_path_factory.mktemp("coordinator")) as found:
        yield found


# --- from nothing to a site that waits -------------------------------------------------------


def test_one_command_takes_a_site_from_nothing_to_waiting_to_be_accepted(
    site: Site, coordinator: Front, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(run_of().to_yaml())
    line = coordinator.invite("first")
    ended = site.types("join", line, "--data", site.data, "--approve", config)
    assert ended.status == 0, ended.text
    assert "read them this fingerprint" in ended.out
    assert re.search(r"sites accept first=SHA256:\S{43}\n", ended.out)
    assert ended.out.endswith("Next: wardround-site start\n")
    assert load_site_config(site.home.site_yaml).name == "first"
    assert site.decision(run_of()) == "approved"
    assert site.home.folder.stat().st_mode & 0o777 == 0o700


def test_an_invitation_may_lie_in_a_file_with_its_line_broken(
    site: Site, coordinator: Front, tmp_path: Path
) -> None:
    line = coordinator.invite("second")
    letter = tmp_path / "invite.txt"
    letter.write_text(f"{line[:60]}\r\n  {line[60:]}\r\n")
    assert site.types("join", letter, "--data", site.data).status == 0


def test_init_then_join_is_the_same_with_a_look_at_the_policy_between(
    site: Site, coordinator: Front
) -> None:
    ended = site.types("init", "third", "--data", site.data)
    assert (ended.status, "wardround-site join INVITE" in ended.out) == (0, True)
    assert "private_only: true" in site.home.site_yaml.read_text()
    assert site.types("join", coordinator.invite("third")).status == 0


def test_join_waits_for_the_acceptance_where_it_is_asked_to(
    tmp_path: Path, coordinator: Front
) -> None:
    site = Site(tmp_path)
    line = coordinator.invite("fourth")
    words = ["join", line, "--data", str(site.data), "--wait", "--home", str(site.home.folder)]
    process = started(words)
    wait_for(site.home.coordinator_json.exists)
    coordinator.accept("fourth", site.home.public_key.read_text().strip())
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "breast-study has accepted this site" in out


# --- when something is wrong -----------------------------------------------------------------


def broken_cases(site: Site, tmp_path: Path, coordinator: Front) -> list[tuple[object, ...]]:
    """Return commands that must fail, each for a reason of its own."""
    config = tmp_path / "wrong.yaml"
    config.write_text(run_of().to_yaml().replace("rounds", "ruonds"))
    return [
        ("join", "hello"),
        ("join", "wardround-invite-1-AAAA"),
        ("join", tmp_path / "none.txt"),
        ("join", coordinator.invite("x1")),
        ("join", coordinator.invite("x2"), "--data", tmp_path / "nowhere"),
        ("join", coordinator.invite("x3", hours=-1.0), "--data", site.data),
        ("join", coordinator.invite("x4", ca_sha256="cd" * 32), "--data", site.data),
        ("join", coordinator.invite("x5"), "--data", site.data, "--approve", config),
        ("join", coordinator.invite("x6"), "--data", site.data, "--approve", tmp_path / "no.yaml"),
        ("init", "North Wing", "--data", site.data),
        ("init", "north", "--data", tmp_path / "no" / "share"),
        ("status",),
        ("runs", "nothing"),
        ("approve", "nothing"),
        ("refuse", "nothing"),
        ("approve", config),
        ("budget",),
        ("pause",),
        ("resume",),
        ("index",),
        ("service",),
        ("doctor",),
        ("disclosures", "verify", "abc"),
        ("approve",),
        ("statsu",),
        ("status", "--jsn"),
    ]


def test_whatever_fails_says_what_to_do_next_and_ends_with_a_status(
    site: Site, coordinator: Front, tmp_path: Path
) -> None:
    for words in broken_cases(site, tmp_path, coordinator):
        ended = site.types(*words)
        assert ended.status != 0, words
        assert NEXT_STEP.search(ended.text), (words, ended.text)
        assert "Traceback" not in ended.text, words


def test_a_site_set_up_wrongly_is_told_by_every_command_that_reads_it(site: Site) -> None:
    site.set_up()
    site.home.site_yaml.write_text("name: north\ndata: /images\npolicy: {privat_only: true}\n")
    for words in ("status", "budget", "pause", "resume", "index", "service", "start"):
        ended = site.types(words)
        assert ended.status == 2, words
        assert "Did you mean private_only?" in ended.err


def test_a_second_invitation_for_another_site_is_refused_before_it_is_used(
    site: Site, coordinator: Front
) -> None:
    site.set_up()
    line = coordinator.invite("south")
    ended = site.types("join", line)
    assert (ended.status, "Write name: south there" in ended.err) == (2, True)
    site.set_up(name="south")
    ended = site.types("join", line, "--data", "/elsewhere")
    assert (ended.status, "leave --data out" in ended.err) == (2, True)
    assert site.types("join", line).status == 0


def test_every_command_says_in_its_help_what_it_does(site: Site) -> None:
    names = re.findall(r"│ (\w+)  ", RUNNER.invoke(app, ["--help"]).stdout)
    assert {"join", "start", "runs", "approve", "disclosures", "service"} <= set(names)
    for name in names:
        shown = RUNNER.invoke(app, [name, "--help"])
        assert shown.exit_code == 0
        assert re.search(r"^ [A-Z][^\n]{20,}", shown.stdout, re.MULTILINE), name
    del site


# --- as processes ----------------------------------------------------------------------------


def test_ctrl_c_while_waiting_to_be_accepted_keeps_what_was_done(
    tmp_path: Path, coordinator: Front
) -> None:
    site = Site(tmp_path)
    line = coordinator.invite("sixth")
    home = ["--home", str(site.home.folder)]
    process = started(["join", line, "--data", str(site.data), "--wait", *home])
    assert process.stdout is not None
    text = ""
    while "Ctrl-C ends" not in text:
        text += process.stdout.read(1)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in err) == (130, False)
    assert site.types("join", line).status == 0


def test_whatever_a_command_writes_is_for_its_user_alone(
    tmp_path: Path, coordinator: Front
) -> None:
    site = Site(tmp_path)
    home = ["--home", str(site.home.folder)]
    for words in (
        ["join", coordinator.invite("seventh"), "--data", str(site.data)],
        ["pause"],
        ["runs"],
    ):
        process = started([*words, *home])
        assert process.communicate(timeout=60)[1] == ""
    modes = {p.name: p.stat().st_mode & 0o077 for p in site.home.folder.rglob("*")}
    assert {"site.yaml", "key", "coordinator.pem", "approvals.db", "paused"} <= set(modes)
    assert set(modes.values()) == {0}


def test_exit_statuses_of_real_processes(tmp_path: Path) -> None:
    site = Site(tmp_path)
    home = ["--home", str(site.home.folder)]
    for words, status in (
        (["status", *home], 2),
        (["join", "north.invite", *home], 2),
        (["join", "wardround-invite-hello", *home], 6),
        (["statsu"], 2),
        (["--help"], 0),
        (["start", *home], 2),
        (["disclosures", "verify", "abc", *home], 5),
    ):
        process = started(words)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status, (words, err)
        assert "Traceback" not in err


def test_disclosures_takes_its_home_without_a_command_too(tmp_path: Path) -> None:
    asked = RUNNER.invoke(app, ["disclosures", "--home", str(tmp_path)])
    assert (asked.exit_code, asked.output) == (0, "Nothing has left this site yet.\n")
    # Else it would look at another home than was meant, and say that all is well there.
    other = RUNNER.invoke(app, ["disclosures", "--home", str(tmp_path), "verify"])
    assert other.exit_code == 2
    assert "Options belong behind verify" in other.output


def test_commands_that_only_look_start_without_torch() -> None:
    program = (
        "import sys, client.cli.app, client.cli.status, client.cli.join, "
        "client.cli.budget, client.cli.disclosures; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torch" not in done.stdout.split()
