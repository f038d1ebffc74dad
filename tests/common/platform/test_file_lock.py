from __future__ import annotations

import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common.platform.file_lock import FileLock, Taken, is_held

ROOT = Path(__file__).parents[3]
HOLDS = """
import sys
from pathlib import Path
from common.platform.file_lock import FileLock
with FileLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_holds_it_alone_or_several_share_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with FileLock(path):
        for shared in (False, True):
            with pytest.raises(Taken):
                FileLock(path, shared=shared)
    with FileLock(path, shared=True), FileLock(path, shared=True), pytest.raises(Taken):
        FileLock(path)
    FileLock(path).close()


def test_a_new_file_is_for_its_user_alone_and_a_known_one_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    FileLock(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("kept")
    FileLock(path, mode=0o666).close()
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("kept", 0o600)


def test_whoever_waits_gets_it_next(tmp_path: Path) -> None:
    path, got = tmp_path / "lock", threading.Event()

    def wait() -> None:
        with FileLock(path, waits=True):
            got.set()

    held = FileLock(path)
    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not got.is_set()
    held.close()
    assert got.wait(30)
    waiting.join()


@pytest.mark.processes
def test_whether_somebody_holds_it_is_seen_and_goes_with_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not path.exists()
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_held(path)
        with pytest.raises(Taken):
            FileLock(path)
        process.kill()
    assert not is_held(path)
    FileLock(path).close()
