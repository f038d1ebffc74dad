"""Lines cut, slow, listened to; wrong certificates, clocks and releases; a site shut out."""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from client.transport.coordinator import load_coordinator
from server.enrolment.certificates import Authority, client_context, now, server_context
from server.files.coordinator_yaml import host_and_port
from server.files.folder import Folder
from tests.end_to_end.aftermath import bits, sound
from tests.end_to_end.cohorts import Size, table_config, write_tables
from tests.end_to_end.federation import Federation, RunAt, SiteAt, federation
from tests.end_to_end.link import Link, Tap
from tests.end_to_end.processes import python_with, until

pytestmark = pytest.mark.slow

NAMES = ("east", "west")
ROOT = Path(__file__).parents[2]
LONG = 120.0
#: 7 MB in three objects; the line is cut in the second.
LARGE = Size(hidden=(1500, 1500), steps=3)
CUT_AFTER = 4_500_000
ONE_OBJECT = 3_500_000
#: Bytes a second of an upload in which there is time to do something.
SLOW = 700_000.0
#: What proposals, pulls and beats of a run that begins again may add.
SMALL_CALLS = 300_000
#: Random moments at which the coordinator is killed in an upload.
MOMENTS = int(os.environ.get("UPLOAD_KILLS", "1"))
LAST = {"selection": "{rule: last}"}

#: wardround-site on a machine whose clock is an hour ahead.
AHEAD = """
import datetime, sys, time
real, seconds = datetime.datetime, time.time
class Ahead(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(hours=1)
datetime.datetime, time.time = Ahead, lambda: seconds() + 3600
from client.cli.app import main
main()
"""


@dataclass(frozen=True)
class Setting:
    """Two sites; a line of east's own lies between it and the coordinator."""

    federation: Federation
    link: Link

    @property
    def east(self) -> SiteAt:
        return self.federation.sites["east"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    path = tmp_path_factory.mktemp("links")
    with federation(path, write_tables(path / "data", NAMES)) as found:
        link = Link(host_and_port(found.coordinator.address))
        east = found.sites["east"]
        east.program.kill()
        east.call_at(link.address)
        found.start()
        yield Setting(found, link)
        link.close()


@pytest.fixture
def order(setting: Setting, tmp_path: Path) -> Callable[..., RunAt]:
    def start(name: str, rounds: int, size: Size, **more: str) -> RunAt:
        setting.link.heal()
        setting.federation.start()
        return setting.federation.coordinator.run(
            table_config(tmp_path, name, rounds=rounds, size=size, more=more)
        )

    return start


@pytest.fixture(scope="module")
def undisturbed(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int, int]:
    """Return the weights that a round ends in, and east's bytes up and down."""
    before = setting.link.up, setting.link.down
    folder = tmp_path_factory.mktemp("plain")
    path = table_config(folder, "undisturbed", rounds=1, size=LARGE, more=LAST)
    run = setting.federation.coordinator.run(path)
    run.end(LONG)
    state = sound(setting.federation, run, 1)
    return bits(state), setting.link.up - before[0], setting.link.down - before[1]


@pytest.mark.parametrize("way", ["upload", "download"])
def test_a_line_cut_in_an_exchange_goes_on_with_what_is_missing(
    setting: Setting, order: Callable[..., RunAt], undisturbed: tuple[str, int, int], way: str
) -> None:
    link = setting.link
    # What the undisturbed run was sent would not be fetched again.
    shutil.rmtree(setting.east.home.kept, ignore_errors=True)
    run = order(way, 1, LARGE, **LAST)
    before = link.up, link.down
    if way == "upload":
        link.cut_up_at = link.up + CUT_AFTER
    else:
        link.cut_down_at = link.down + CUT_AFTER
    until(lambda: link.is_cut, "the cut", pause=0.001)
    until(lambda: setting.east.status.get("state") == "offline", "east knows")
    link.heal()
    run.end(LONG)
    expected, up, down = undisturbed
    assert bits(sound(setting.federation, run, 1)) == expected
    # What was there of the second object goes twice, the first one does not.
    more = link.up - before[0] - up, link.down - before[1] - down
    assert max(more) < CUT_AFTER - 0.8 * ONE_OBJECT, more


@pytest.mark.parametrize("seed", range(MOMENTS))
def test_a_coordinator_that_is_killed_in_an_upload_is_sent_one_object_twice_at_most(
    setting: Setting, order: Callable[..., RunAt], undisturbed: tuple[str, int, int], seed: int
) -> None:
    link, coordinator = setting.link, setting.federation.coordinator
    expected, up, _ = undisturbed
    run = order(f"killed-{seed}", 1, LARGE, **LAST)
    before = link.up
    link.up_rate = SLOW
    moment = random.Random(seed).randrange(up // 10, up)
    until(lambda: link.up - before > moment, "the moment", pause=0.001)
    coordinator.program.kill()
    link.up_rate = 0.0
    coordinator.start()
    run.end(LONG)
    assert bits(sound(setting.federation, run, 1)) == expected
    assert link.up - before - up < ONE_OBJECT + SMALL_CALLS, (link.up - before, up)
    objects = coordinator.folder.database.with_name("objects")
    until(lambda: not list(objects.iterdir()), "no object is left of a run that is done")


def test_both_screens_say_how_far_a_long_upload_is(
    setting: Setting, order: Callable[..., RunAt]
) -> None:
    run = order("watched", 1, LARGE, **LAST)
    setting.link.up_rate = SLOW
    words = r"\d of \d+ MB, \d+ s left"
    until(lambda: re.search(words, str(setting.east.status.get("transfer"))), "the site says it")
    until(
        lambda: re.search(words, run.board["sites"]["east"].get("transfer", "")),
        "the coordinator says it",
    )
    setting.link.heal()
    run.end(LONG)
    assert run.board["sites"]["east"]["transfer"] == ""
    until(lambda: setting.east.status.get("transfer") == "", "nothing is under way")


def test_a_line_that_is_cut_for_longer_than_a_round_drops_the_site_which_rejoins(
    setting: Setting, order: Callable[..., RunAt]
) -> None:
    size = Size(hidden=(300, 300), steps=20, minutes=0.1)
    run = order("long-cut", 6, size, aggregation="{smallest_quorum: 1}")
    run.reach("training", 2)
    setting.link.cut()
    until(lambda: "east" in run_left_out(run), "east is left out")
    assert "east" in run.board["sentence"] or run.board["sites"]["east"]["state"] != "answered"
    setting.link.heal()
    run.end(LONG)
    history = sound(setting.federation, run, 6).history
    assert sorted(history[0].updates) == list(NAMES)
    assert ["west"] in [sorted(r.updates) for r in history]
    assert sorted(history[-1].updates) == list(NAMES)


def run_left_out(run: RunAt) -> set[str]:
    return {name for record in run.result().history for name in record.left_out}


@contextmanager
def alone(site: SiteAt) -> Iterator[SiteAt]:
    """Let the site's daemon begin anew, and again at the end as it was."""
    program, address = site.program, load_coordinator(site.home).address
    argv, more = list(program.argv), dict(program.more)
    program.kill()
    site.home.status.unlink(missing_ok=True)
    try:
        yield site
    finally:
        program.kill()
        site.home.status.unlink(missing_ok=True)
        program.argv, program.more = argv, more
        site.call_at(address)


@pytest.mark.parametrize("days", [-500, 0])
def test_an_expired_certificate_and_one_of_another_authority_are_not_accepted(
    setting: Setting, tmp_path: Path, days: int
) -> None:
    coordinator = setting.federation.coordinator
    other = Folder(tmp_path)
    if days:
        authority = Authority.load(coordinator.folder)
        authority.issue(other, ["127.0.0.1"], now() + timedelta(days=days))
    else:
        authority = Authority.create("breast-study", now())
        authority.issue(other, ["127.0.0.1"], now())
    tap = Tap(server_context(other), client_context(coordinator.folder), "127.0.0.1")
    between = Link(host_and_port(coordinator.address), tap)
    with alone(setting.east) as east:
        east.call_at(between.address)
        east.start()
        until(lambda: east.status.get("state") == "offline", "east says no")
        said = str(east.status["sentence"])
    between.close()
    assert ("certificate has expired" if days else "is not accepted") in said
    assert "Nothing of this site was sent" in said
    # What anybody may ask, and nothing of the site's: whether the coordinator moved.
    asked = bytes(between.said).lower()
    assert asked.count(b"\r\n\r\n") == asked.count(b"get /wardround/notice http/1.1\r\n")
    assert not any(word in asked for word in (b"flwr", b"wardround-", b"east", b"post "))


def test_a_site_whose_clock_is_an_hour_off_says_so(setting: Setting) -> None:
    with alone(setting.east) as east:
        words = list(east.program.argv)[1:]
        east.program.argv = [sys.executable, "-c", AHEAD, *words]
        east.start()
        until(lambda: east.status.get("state") == "offline", "east is not taken")
        assert re.search("clock is 360. s ahead", east.status["sentence"])
        assert "Set the clock" in east.status["sentence"]


def test_a_site_refuses_another_release_before_it_reads_anything(
    setting: Setting, order: Callable[..., RunAt], tmp_path: Path
) -> None:
    for package in ("client", "common", "server"):
        shutil.copytree(ROOT / package, tmp_path / "other" / package)
    with (tmp_path / "other" / "client" / "site.py").open("a") as file:
        file.write("# another release\n")
    with alone(setting.east) as east:
        worker_log = east.home.log / "worker.log"
        told = worker_log.read_text()
        python = python_with(tmp_path / "environment", tmp_path / "other")
        east.program.argv = [str(python), *east.program.argv]
        run = order("release", 2, Size(), aggregation="{smallest_quorum: 1}")
        run.end(LONG)
        assert run.board["sites"]["east"]["why"] == "the site runs another release of Wardround"
        assert worker_log.read_text() == told  # nobody's data were loaded
    assert [r.updates for r in sound(setting.federation, run, 2).history] == [("west",)] * 2


def test_a_site_that_is_revoked_in_a_run_is_out_and_the_others_go_on(
    setting: Setting, order: Callable[..., RunAt]
) -> None:
    size = Size(hidden=(300, 300), steps=20, minutes=0.5)
    run = order("revoked", 4, size, aggregation="{smallest_quorum: 1}")
    run.reach("training", 2)
    setting.federation.coordinator.type("sites", "revoke", "east")
    run.end(LONG)
    history = sound(setting.federation, run, 4).history
    assert sorted(history[0].updates) == list(NAMES)
    assert sorted(history[-1].updates) == ["west"]
    until(lambda: setting.east.status.get("state") == "offline", "east knows")
    assert "does not know this site's key" in setting.east.status["sentence"]
