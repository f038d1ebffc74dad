from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.platform.errors import StateDamaged
from server.rounds.journal import Journal, verify


def written(path: Path, lines: int = 3) -> bytes:
    path.unlink(missing_ok=True)
    journal = Journal(path, clock=lambda: "2026-01-01T00:00:00+00:00")
    for number in range(1, lines + 1):
        journal.write("round", {"round": number, "updates": ["é", "b"], "score": 0.5})
    return path.read_bytes()


def test_a_journal_reads_back_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    written(path)
    Journal(path).write("round", {"round": 4})
    assert Journal(path).rounds() == {1, 2, 3, 4}
    assert verify(path) == json.loads(path.read_text().splitlines()[-1])["hash"]


def test_every_line_tells_when_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.write("begun", {})
    assert json.loads(journal.path.read_text())["at"].endswith("+00:00")


def test_a_fact_cannot_pass_for_the_event_or_the_chain(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.write("round", {"round": 1, "event": "begun", "previous": "0", "hash": "0"})
    journal.write("round", {"round": 2})
    verify(journal.path)
    assert journal.rounds() == {1, 2}


@given(st.data())
def test_a_crash_while_writing_loses_the_torn_line_alone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    content = written(path)
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    journal = Journal(path)
    assert journal.rounds() == set(range(1, whole + 1))
    journal.write("round", {"round": whole + 1})
    verify(path)


@given(st.data())
def test_any_byte_that_is_changed_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    content = bytearray(written(path))
    at = data.draw(st.integers(0, len(content) - 2))
    flip = data.draw(st.integers(1, 255))
    content[at] ^= flip
    path.write_bytes(content)
    with pytest.raises(StateDamaged, match=r"line \d"):
        verify(path)


@pytest.mark.parametrize("change", ["remove", "swap", "repeat"])
def test_lines_that_are_removed_moved_or_repeated_are_found(tmp_path: Path, change: str) -> None:
    path = tmp_path / "j.jsonl"
    first, second, third = written(path).splitlines(keepends=True)
    lines = {
        "remove": [first, third],
        "swap": [second, first, third],
        "repeat": [first, second, second, third],
    }[change]
    path.write_bytes(b"".join(lines))
    with pytest.raises(StateDamaged, match="Keep the file as evidence"):
        Journal(path)
