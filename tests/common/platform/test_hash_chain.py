from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.platform.errors import StateDamaged
from common.platform.hash_chain import GENESIS, ChainedLog, hashes, lines, newest_first, verify

ROOT = Path(__file__).parents[3]
#: Appends lines until the file may not grow, then gives it room again and appends one more.
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from common.platform.hash_chain import ChainedLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = ChainedLog(Path(sys.argv[1]))
written = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    while True:
        log.append({"number": written})
        written += 1
except OSError as error:
    print(written, error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append({"number": written})
"""


def written(path: Path, count: int = 4) -> bytes:
    path.unlink(missing_ok=True)
    log = ChainedLog(path, clock=lambda: "2026-01-01T00:00:00+00:00")
    for number in range(count):
        log.append({"number": number, "text": "é \n", "list": [1, None, {"a": 0.1}]})
    return path.read_bytes()


def test_a_log_reads_back_what_was_written_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    written(path)
    told = ChainedLog(path).append({"number": 4})
    assert [line["number"] for line in lines(path)] == [0, 1, 2, 3, 4]
    assert verify(path) == told == list(hashes(path))[-1]


def test_a_log_without_a_line_ends_where_every_log_begins(tmp_path: Path) -> None:
    assert verify(tmp_path / "none.jsonl") == GENESIS
    assert ChainedLog(tmp_path / "none.jsonl").head == GENESIS


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_copy_put_in_place_of_an_open_log_is_gone_on_with(tmp_path: Path, count: int) -> None:
    """Whoever puts a backup back beside a running daemon must not find a broken chain."""
    copy = written(tmp_path / "copy.jsonl", count)
    path = tmp_path / "log.jsonl"
    written(path)
    log = ChainedLog(path)
    log.append({"number": "before"})
    path.write_bytes(copy + b'{"torn')
    log.append({"number": "after"})
    assert [line["number"] for line in lines(path)] == [*range(count), "after"]
    assert verify(path) == log.head


def test_a_log_that_was_removed_while_open_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = ChainedLog(path)
    log.append({"number": 0})
    path.unlink()
    log.append({"number": 1})
    assert verify(path) == log.head


def test_nothing_is_added_to_a_broken_chain_put_in_place_of_an_open_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    written(path)
    log = ChainedLog(path)
    broken = path.read_bytes().replace(b'"number": 1', b'"number": 9')
    path.write_bytes(broken)
    with pytest.raises(StateDamaged, match="line 2 does not fit"):
        log.append({"number": 4})
    assert path.read_bytes() == broken


def test_two_equal_lines_have_two_hashes(tmp_path: Path) -> None:
    log = ChainedLog(tmp_path / "log.jsonl", clock=lambda: "now")
    assert log.append({"a": 1}) != log.append({"a": 1})


def test_facts_cannot_take_the_place_of_the_chain(tmp_path: Path) -> None:
    log = ChainedLog(tmp_path / "log.jsonl")
    log.append({"at": "never", "previous": "f" * 64, "hash": "f" * 64})
    log.append({"number": 2})
    verify(log.path)
    assert next(lines(log.path))["at"] != "never"


def test_what_json_does_not_have_is_not_written(tmp_path: Path) -> None:
    log = ChainedLog(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        log.append({"number": float("nan")})
    assert not log.path.exists() or log.path.read_bytes() == b""


@given(st.data())
def test_a_crash_while_writing_costs_the_torn_line_alone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    content = written(path)
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    log = ChainedLog(path)
    assert [line["number"] for line in lines(path)] == list(range(whole))
    log.append({"number": whole})
    assert verify(path) == log.head


@given(st.data())
def test_any_byte_that_is_changed_or_put_in_or_taken_out_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    content = bytearray(written(path))
    at = data.draw(st.integers(0, len(content) - 2))
    match data.draw(st.sampled_from(("change", "insert", "remove"))):
        case "change":
            content[at] ^= data.draw(st.integers(1, 255))
        case "insert":
            content.insert(at, data.draw(st.integers(0, 255)))
        case _:
            del content[at]
    path.write_bytes(content)
    with pytest.raises(StateDamaged, match=r"line \d"):
        verify(path)


#: Each line is a number: the place it was written at; text stands for what was put in.
CHANGES: dict[str, tuple[int | bytes, ...]] = {
    "removed": (0, 2, 3),
    "removed at the front": (1, 2, 3),
    "moved": (1, 0, 2, 3),
    "repeated": (0, 1, 1, 2, 3),
    "not JSON": (0, b'{"number": NaN}\n', 2, 3),
    "nested beyond reading": (0, b"[" * 100_000 + b"\n", 2, 3),
    "another kind": (0, b"[]\n", 2, 3),
    "an empty line": (0, b"\n", 1, 2, 3),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_lines_that_were_removed_moved_or_put_in_are_found(
    tmp_path: Path, change: tuple[int | bytes, ...]
) -> None:
    path = tmp_path / "log.jsonl"
    parts = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join(parts[c] if isinstance(c, int) else c for c in change))
    with pytest.raises(StateDamaged, match="Keep the file as evidence"):
        verify(path)
    with pytest.raises(StateDamaged):
        ChainedLog(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"number": 1', b'"number":  1'),  # the same content, written otherwise
        (b'"number": 1', b'"number": 2, "number": 1'),  # a key twice: readers differ in what counts
        (b'"number": 1', b'"number": 1.0'),
        (b"}\n", b"} \n"),
        (b"}\n", b"}\r\n"),
    ],
)
def test_a_line_that_is_written_otherwise_is_found_though_it_says_the_same(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    path = tmp_path / "log.jsonl"
    content = written(path)
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(StateDamaged, match=r"line \d"):
        verify(path)


def test_a_reader_beside_the_writer_sees_whole_lines_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    content = written(path)
    path.write_bytes(content[:-5])
    verify(path)
    assert len(list(lines(path))) == 3
    assert path.read_bytes() == content[:-5]


@pytest.mark.processes
@pytest.mark.parametrize("room", range(300, 520, 20))
def test_a_full_disk_leaves_a_sound_log_that_goes_on_when_there_is_room(
    tmp_path: Path, room: int
) -> None:
    path = tmp_path / "log.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(room)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    count = int(done.stdout.split()[0])
    assert "large" in done.stdout
    assert [line["number"] for line in lines(path)] == list(range(count + 1))
    verify(path)


@given(
    st.lists(st.text(max_size=30), max_size=6),
    st.integers(1, 200),
    st.sampled_from([b"", b"torn", b"{"]),
)
def test_lines_from_the_end_are_the_lines_turned_round(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], block: int, torn: bytes
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    log = ChainedLog(path)
    for text in texts:
        log.append({"text": text})
    path.write_bytes((path.read_bytes() if path.exists() else b"") + torn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.platform.hash_chain._BLOCK_BYTES", block)
        assert list(newest_first(path)) == list(lines(path))[::-1]
