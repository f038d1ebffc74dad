from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from common.platform.durable_files import replace_durably


def test_a_file_is_replaced_whole_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    replace_durably(path, b"one")
    replace_durably(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_a_private_file_is_private_whatever_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    replace_durably(path, b"new", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_crash_left_lends_its_permissions_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key"
    left = tmp_path / f".key.{os.getpid()}.tmp"
    left.touch()
    left.chmod(0o644)
    replace_durably(path, b"new", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder"):
        replace_durably(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_write_that_the_system_refuses_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="large") as caught:
            replace_durably(path, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
