from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.governance.disclosures import (
    Disclosure,
    Disclosures,
    RecordsMark,
    last_mark,
    listed,
    verify,
)
from common.platform.errors import StateDamaged

ROOT = Path(__file__).parents[3]
#: Records until it is killed, and says so after each line.
UNTIL_KILLED = """
import sys
from pathlib import Path
from client.governance.disclosures import Disclosure, Disclosures
log, number = Disclosures(Path(sys.argv[1])), 0
while True:
    number += 1
    log.record(Disclosure(
        kind="update", to="c", run="r", round=number, bytes=1, sha256=f"{number:064x}"
    ))
    print(number, flush=True)
"""


def told(number: int = 1, **changed: object) -> Disclosure:
    plain = Disclosure(
        kind="update",
        to="north-coordinator",
        run="breast-1",
        round=number,
        bytes=1000 + number,
        sha256=f"{number:064x}",
        epsilon=0.5 * number,
    )
    return replace(plain, **changed)  # type: ignore[arg-type]  # fields by name


def written(path: Path, count: int = 5) -> list[bytes]:
    path.unlink(missing_ok=True)
    log = Disclosures(path, clock=lambda: "2026-01-01T00:00:00+00:00")
    for number in range(1, count + 1):
        log.record(told(number))
    return path.read_bytes().splitlines(keepends=True)


def test_each_message_is_one_line_that_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "disclosures.jsonl"
    log = Disclosures(path)
    log.record(told(1))
    log.record(told(2, kind="refusal", epsilon=None))
    Disclosures(path).record(told(3))
    assert [line.disclosure for line in listed(path)] == [
        told(1),
        told(2, kind="refusal", epsilon=None),
        told(3),
    ]
    assert verify(path).messages == 3
    assert verify(path).head == listed(path)[-1].hash


def test_a_request_that_waits_a_week_for_approval_is_a_few_lines_and_none_is_lost(
    tmp_path: Path,
) -> None:
    path, now = tmp_path / "disclosures.jsonl", [0.0]
    log = Disclosures(path, seconds=lambda: now[0])
    week = range(0, 7 * 86_400, 30)
    for second in week:
        now[0] = float(second)
        log.record(told(kind="refusal", epsilon=None))
    log.close()
    assert len(listed(path)) <= 1 + 9 + 7 + 1
    assert verify(path).messages == len(week)
    log.record(told(2, kind="refusal", epsilon=None))  # another reason is a line at once
    assert listed(path)[-1].disclosure.sha256 == told(2).sha256


def test_a_message_that_leaves_again_is_marked_even_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "disclosures.jsonl"
    Disclosures(path).record(told(1))
    log = Disclosures(path)
    log.record(told(1))
    log.record(told(2))
    log.record(told(1))
    log.record(told(1))
    assert [line.again for line in listed(path)] == [False, True, False]
    log.close()
    assert [line.again for line in listed(path)] == [False, True, False, True]
    assert [line.times for line in listed(path)] == [1, 1, 1, 2]
    assert verify(path).messages == 5


@pytest.mark.parametrize("kind", ["refusal", "standing"])
def test_a_coordinator_that_asks_ever_something_else_fills_no_disk(
    tmp_path: Path, kind: str
) -> None:
    path, now = tmp_path / "disclosures.jsonl", [0.0]
    log = Disclosures(path, seconds=lambda: now[0])
    for number in range(6000):
        now[0] = number / 10
        log.record(told(number, kind=kind, epsilon=None))
    log.record(told(7000))  # what tells something of patients has its line
    assert listed(path)[-1].disclosure == told(7000)
    log.close()
    assert len(listed(path)) < 530
    assert verify(path).messages == 6001


def test_the_newest_mark_is_found_without_reading_the_whole_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disclosures.jsonl"
    assert last_mark(path) is None
    log, mark = Disclosures(path), RecordsMark(charges=3, hash="a" * 64, withdrawals="sealed")
    log.record(told(1, records=replace(mark, charges=2)))
    log.record(told(2, records=mark))
    log.record(told(3, kind="refusal", epsilon=None))
    monkeypatch.setattr("common.platform.hash_chain._BLOCK_BYTES", 64)
    with path.open("ab") as file:
        file.write(b"torn")
    assert last_mark(path) == mark
    path.write_bytes(path.read_bytes().replace(b'"records": {', b'"records": {"x": 1}, "y": {', 2))
    with pytest.raises(StateDamaged):
        last_mark(path)


def test_a_line_holds_what_left_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "disclosures.jsonl"
    (line,) = written(path, 1)
    assert set(json.loads(line)) == {
        "kind",
        "to",
        "run",
        "round",
        "bytes",
        "sha256",
        "epsilon",
        "again",
        "at",
        "previous",
        "hash",
    }


def test_a_site_that_told_nothing_has_a_sound_log(tmp_path: Path) -> None:
    assert listed(tmp_path / "none.jsonl") == ()
    assert verify(tmp_path / "none.jsonl").messages == 0


FIELDS = ("kind", "to", "run", "round", "bytes", "sha256", "epsilon", "again", "at")


@pytest.mark.parametrize("name", FIELDS)
def test_a_line_in_which_anything_was_changed_is_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / "disclosures.jsonl"
    lines = written(path)
    body = json.loads(lines[2])
    changed = {"round": 9, "bytes": 1, "epsilon": 0.001, "again": True}
    body[name] = changed.get(name, "x" * 64)
    lines[2] = json.dumps(body, sort_keys=True).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(StateDamaged, match="line 3"):
        verify(path)


@pytest.mark.parametrize(
    "change", [(0, 1, 3, 4), (1, 2, 3, 4), (0, 0, 1, 2, 3, 4), (0, 2, 1, 3, 4)]
)
def test_lines_that_were_removed_put_in_or_moved_are_found(
    tmp_path: Path, change: tuple[int, ...]
) -> None:
    path = tmp_path / "disclosures.jsonl"
    lines = written(path)
    path.write_bytes(b"".join(lines[place] for place in change))
    with pytest.raises(StateDamaged, match=r"line \d"):
        verify(path)


def test_a_log_that_was_cut_at_its_end_shows_against_a_hash_that_was_written_down(
    tmp_path: Path,
) -> None:
    path = tmp_path / "disclosures.jsonl"
    lines = written(path)
    head = verify(path).head
    assert verify(path, head).messages == verify(path, head[:12].upper()).messages == 5
    path.write_bytes(b"".join(lines[:-1]))
    verify(path)  # the chain alone cannot show it
    with pytest.raises(StateDamaged, match="lines were cut off"):
        verify(path, head)


@given(st.data())
def test_a_crash_while_a_line_is_written_costs_that_line_alone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "disclosures.jsonl"
    content = b"".join(written(path, 3))
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    Disclosures(path).record(told(9))
    assert [line.disclosure.round for line in listed(path)] == [*range(1, whole + 1), 9]
    verify(path)


@pytest.mark.processes
def test_a_line_is_on_disk_before_anybody_is_told_so_whatever_kills_the_daemon(
    tmp_path: Path,
) -> None:
    path = tmp_path / "disclosures.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", UNTIL_KILLED, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    heard = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0].splitlines()
    said = int((rest or heard)[-1])
    Disclosures(path)
    assert verify(path).messages in {said, said + 1}


def test_a_sound_chain_of_something_else_is_no_list_of_disclosures(tmp_path: Path) -> None:
    from common.platform.hash_chain import ChainedLog

    log = ChainedLog(tmp_path / "log.jsonl")
    log.append({"event": "round"})
    with pytest.raises(StateDamaged, match="line 1 is no disclosure"):
        listed(log.path)
