"""Flower in our process: what it does not do, and what of it may be lost."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flwr.common.constant import SubStatus
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.corestate import sql_corestate
from sqlalchemy.exc import OperationalError

from common.messages.signing_key import new_private_key, public_text
from common.platform.errors import LinkDown, StateDamaged, TrustRefused
from server.service import task_leases
from server.service.superlink import FlowerRun, SuperLink
from tests.server.service.calls.test_object_files import large, tree_of

ROOT = Path(__file__).parents[3]

#: Everything that a coordinator does with Flower, in a process that notes what leaves it.
PROGRAM = """
import sys
noted = []
watched = {"socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen",
           "os.posix_spawn", "os.exec", "os.system", "os.fork"}
sys.addaudithook(lambda event, facts: noted.append((event, facts)) if event in watched else None)
from pathlib import Path
from server.service.superlink import FlowerRun, SuperLink
from tests.server.service.calls.test_object_files import large, tree_of
from common.messages.signing_key import new_private_key, public_text
link = SuperLink(Path(sys.argv[1]))
key = public_text(new_private_key())
link.register("north", key)
link.stop_run(link.start_run("demo").number)
link.unregister(key)
link.start_run("demo-2")
link.stop_all_runs()
import flwr.supercore.telemetry
print(flwr.supercore.telemetry.FLWR_TELEMETRY_ENABLED, noted)
"""


@pytest.mark.processes
def test_flower_calls_nobody_and_starts_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "superlink.db")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(home), "FLWR_TELEMETRY_ENABLED": "1"},
    )
    assert done.stdout == "0 []\n"
    assert list(home.rglob("*")) == []  # no ~/.flwr either


def test_a_lost_database_costs_no_site_its_place(tmp_path: Path) -> None:
    path = tmp_path / "superlink.db"
    key = public_text(new_private_key())
    first = SuperLink(path).register("north", key)
    assert SuperLink(path).register("north", key) == first
    for file in tmp_path.glob("superlink.db*"):
        file.unlink()
    assert SuperLink(path).register("north", key).site == "north"


def test_a_damaged_database_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "superlink.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StateDamaged, match=r"superlink\.db cannot be used: .* Move it away"):
        SuperLink(path)


def test_flower_takes_no_revoked_key_back(tmp_path: Path) -> None:
    link, key = SuperLink(tmp_path / "superlink.db"), public_text(new_private_key())
    link.register("north", key)
    link.unregister(key)
    link.unregister(key)  # twice does no harm
    with pytest.raises(TrustRefused, match="needs a new key"):
        link.register("north", key)


def test_only_the_service_can_take_a_runs_task(tmp_path: Path) -> None:
    link = SuperLink(tmp_path / "superlink.db")
    run = link.start_run("demo")
    found = link.state.get_run_info(run_ids=[run.number])[0]
    assert found.primary_task_id is not None
    assert link.state.claim_task(found.primary_task_id) is None
    assert link.state.get_task_by_token(run.token) is not None
    link.stop_run(run.number)
    assert link.state.get_task_by_token(run.token) is None


def test_a_run_whose_process_stands_still_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine may sleep for a day: its supervisor alone knows whether the process lives."""
    link = SuperLink(tmp_path / "superlink.db")
    started = link.start_run("demo")
    task = link.state.get_task_by_token(started.token)
    assert task is not None
    later(monkeypatch, days=1)
    assert link.state.activate_task(task.task_id)  # a process may begin slowly, too
    later(monkeypatch, days=2)
    assert link.state.acknowledge_task_heartbeat(task.task_id)
    later(monkeypatch, days=3)
    assert link.state.get_task_by_token(started.token) is not None
    link.stop_run(started.number)
    assert link.state.get_task_by_token(started.token) is None


def test_a_database_that_cannot_be_written_now_is_no_end_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = SuperLink(tmp_path / "superlink.db")
    started = link.start_run("demo")

    def full(*_: object) -> bool:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    for name in ("store_fab", "stop_run"):
        monkeypatch.setattr(link.state, name, full)
    with pytest.raises(
        LinkDown, match=r"superlink\.db cannot be written: database or disk is full"
    ):
        link.start_run("demo")
    with pytest.raises(LinkDown, match="disk is full"):
        link.stop_run(started.number)


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Let Flower see another time."""
    at = datetime.now(UTC) + timedelta(days=days)
    for module in (sql_corestate, task_leases):
        monkeypatch.setattr(module, "now", lambda: at)


def announced(link: SuperLink, run: FlowerRun, tree: ObjectTree) -> tuple[str, list[str]]:
    """Begin an upload, as a site's answer does; returns its session and what is wanted."""
    session = link.state.start_session(run.number)
    return session, link.state.preregister_object_tree(tree, session)


def test_an_upload_that_is_cut_for_a_day_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = SuperLink(tmp_path / "superlink.db")
    run = link.start_run("demo")
    tree, contents = tree_of(large(1), large(2))
    session, wanted = announced(link, run, tree)
    first, *others = wanted
    assert link.state.store_object(run.number, session, first, contents[first])
    later(monkeypatch, days=1)
    assert link.state.get_object(run.number, others[-1]) == b""  # not given up
    for name in others:
        assert link.state.store_object(run.number, session, name, contents[name])
    assert {n: link.state.get_object(run.number, n) for n in contents} == contents


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_run_that_goes_on_is_sent_nothing_twice_and_leaves_nothing(
    tmp_path: Path, way: str
) -> None:
    link = SuperLink(tmp_path / "superlink.db")
    run = link.start_run("demo")
    tree, contents = tree_of(large(1), large(2))
    session, wanted = announced(link, run, tree)
    for name in wanted[:2]:
        assert link.state.store_object(run.number, session, name, contents[name])
    if way == "stopped":
        link.stop_run(run.number)
    else:  # the service with it
        link = SuperLink(tmp_path / "superlink.db")
        link.stop_all_runs()
    again = link.start_run("demo")
    session, left = announced(link, again, tree)
    assert left == wanted[2:]
    for name in left:
        assert link.state.store_object(again.number, session, name, contents[name])
    assert {n: link.state.get_object(again.number, n) for n in contents} == contents
    task = link.state.get_task_by_token(again.token)
    assert task is not None
    link.state.activate_task(task.task_id)
    link.state.finish_task(task.task_id, SubStatus.COMPLETED, "")
    link.stop_run(again.number)
    assert list((tmp_path / "objects").iterdir()) == []
    assert len(link.state.object_store) == 0


def test_what_a_run_was_sent_that_does_not_go_on_is_forgotten_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = SuperLink(tmp_path / "superlink.db")
    run, other = link.start_run("demo"), link.start_run("other")
    tree, contents = tree_of(large(1))
    session, wanted = announced(link, run, tree)
    for name in wanted:
        link.state.store_object(run.number, session, name, contents[name])
    link.stop_run(run.number)
    link.stop_run(other.number)
    assert len(list((tmp_path / "objects").iterdir())) == 1
    later(monkeypatch, days=1.1)
    SuperLink(tmp_path / "superlink.db").stop_all_runs()
    assert list((tmp_path / "objects").iterdir()) == []
