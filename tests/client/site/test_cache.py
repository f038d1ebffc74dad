from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from client.dicom.pixels.pixel_store import PixelStore
from client.site.cache import Cache, file_key, key_of
from tests.client.dicom_files import noise

ROOT = Path(__file__).parents[3]


def test_arrays_come_back_as_they_were_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new")
    for number, array in enumerate((noise(3, 4), np.zeros((0, 5), np.float32), np.float64(3.5))):
        cache.keep_array(f"k{number}", np.asarray(array))
        found = cache.array(f"k{number}")
        assert found is not None
        assert found.dtype == np.asarray(array).dtype
        assert np.array_equal(found, array)
    assert cache.array("unknown") is None


def test_a_kept_array_goes_to_torch_without_a_copy_and_changes_do_not_reach_the_file(
    tmp_path: Path,
) -> None:
    cache = Cache(tmp_path)
    cache.keep_array("k", np.ones(5, np.float32))
    found = cache.array("k")
    assert found is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.from_numpy(found)[0] = 7.0
    again = cache.array("k")
    assert again is not None
    assert (again == 1).all()


@pytest.mark.parametrize("place", ["head", "middle", "end", "cut", "empty"])
def test_a_damaged_array_is_forgotten(tmp_path: Path, place: str) -> None:
    cache = Cache(tmp_path)
    cache.keep_array("k", noise(64, 64))
    path = tmp_path / "k.npy"
    content = bytearray(path.read_bytes())
    at = {"head": 3, "middle": len(content) // 2, "end": len(content) - 1}.get(place)
    if at is not None:
        content[at] ^= 0xFF
    path.write_bytes({"cut": content[:500], "empty": b""}.get(place, bytes(content)))
    assert cache.array("k") is None
    assert not path.exists()
    cache.keep_array("k", noise(2, 2))
    assert cache.array("k") is not None


def test_facts_come_back_and_damaged_ones_are_forgotten(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.keep_facts("k", {"a": [1, "x"]})
    assert cache.facts("k") == {"a": [1, "x"]}
    (tmp_path / "k.json").write_text('{"a": [1,')
    assert cache.facts("k") is None
    assert not (tmp_path / "k.json").exists()


def test_a_files_key_follows_content_time_and_size_but_not_its_place(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"x" * 10000)
    two.write_bytes(b"x" * 10000)
    os.utime(one, ns=(5, 5))
    os.utime(two, ns=(5, 5))
    first = file_key(one)
    assert first == file_key(two)
    os.utime(two, ns=(5, 6))
    assert first != file_key(two)
    one.write_bytes(b"x" * 9999 + b"y")
    os.utime(one, ns=(5, 5))
    assert first != file_key(one)


def test_keys_tell_their_parts_apart() -> None:
    assert key_of("a", "b") != key_of("ab")
    assert key_of({"x": 1, "y": 2}) == key_of({"y": 2, "x": 1})


def test_objects_come_back_as_they_were_kept(tmp_path: Path) -> None:
    objects = {
        "grey": noise(2, 5, 7),
        "signed": noise(1, 3, 3).astype(np.int16),
        "color": noise(1, 3, 5, 3, dtype="uint8", top=255),
        "float": np.ones((1, 2, 2), np.float64),
    }
    with PixelStore(tmp_path) as store:
        for key, values in objects.items():
            store.keep(key, f'"{key}"', values)
        store.keep("header", '"h"', None)
    for _ in range(2):
        with PixelStore(tmp_path) as store:
            for key, values in objects.items():
                entry = store.find(key)
                assert entry is not None
                assert entry.stored is not None
                assert entry.facts == f'"{key}"'
                assert entry.stored.dtype == values.dtype
                assert np.array_equal(entry.stored, values)
            header = store.find("header")
            assert header is not None
            assert header.stored is None
            assert store.find("unknown") is None


def fill(folder: Path) -> None:
    with PixelStore(folder) as store:
        store.keep("k", '"f"', noise(1, 64, 64))


def test_a_flipped_bit_in_a_shard_is_seen_and_the_object_is_written_again(tmp_path: Path) -> None:
    fill(tmp_path)
    (shard,) = tmp_path.glob("*.shard")
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    with PixelStore(tmp_path) as store:
        assert store.find("k") is None
    fill(tmp_path)
    with PixelStore(tmp_path) as store:
        assert store.find("k") is not None


def test_a_lost_shard_and_a_broken_index_cost_only_time(tmp_path: Path) -> None:
    fill(tmp_path)
    (shard,) = tmp_path.glob("*.shard")
    shard.unlink()
    with PixelStore(tmp_path) as store:
        assert store.find("k") is None
    fill(tmp_path)
    (tmp_path / "index.sqlite").write_bytes(b"no database " * 500)
    with PixelStore(tmp_path) as store:
        assert store.find("k") is None
    fill(tmp_path)
    with PixelStore(tmp_path) as store:
        assert store.find("k") is not None


@pytest.mark.processes
def test_an_index_never_names_what_a_crash_kept_from_being_written(tmp_path: Path) -> None:
    """Killed at any moment, the store opens again and every row it has is whole."""
    code = (
        "import sys, numpy as np; from pathlib import Path;"
        "from client.dicom.pixels.pixel_store import PixelStore;"
        "store = PixelStore(Path(sys.argv[1]));\n"
        "print('ready', flush=True)\n"
        "for n in range(10**6):\n"
        "    store.keep(str(n), str(n), np.full((1, 64, 64), n % 60000, np.uint16))\n"
        "    if n % 7 == 0: store.flush(); print(n, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    written = -1
    for line in process.stdout:
        if line.strip().isdigit():
            written = int(line)
        if written > 50:
            break
    process.kill()
    process.communicate()
    with PixelStore(tmp_path) as store, sqlite3.connect(tmp_path / "index.sqlite") as index:
        keys = [key for (key,) in index.execute("SELECT key FROM objects")]
        assert len(keys) > written
        for key in keys:
            entry = store.find(key)
            assert entry is not None
            assert entry.stored is not None
            assert (entry.stored == int(key) % 60000).all()
    index.close()


@pytest.mark.processes
def test_two_processes_may_fill_one_store_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path;"
        "from client.dicom.pixels.pixel_store import PixelStore;"
        "from client.site.cache import Cache\n"
        "with PixelStore(Path(sys.argv[1])) as store:\n"
        "    for n in range(12):\n"
        "        store.keep(str(n), str(n), np.full((1, 32, 32), n, np.uint16)); store.flush()\n"
        "        Cache(Path(sys.argv[1])).keep_array('a', np.full(9999, n % 2))\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(2)
    ]
    assert [process.wait() for process in running] == [0, 0]
    with PixelStore(tmp_path) as store:
        for number in range(12):
            entry = store.find(str(number))
            assert entry is not None
            assert entry.stored is not None
            assert (entry.stored == number).all()
    found = Cache(tmp_path).array("a")
    assert found is not None
    assert len(np.unique(found)) == 1
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_a_killed_process_left_is_swept_after_a_day(tmp_path: Path) -> None:
    (tmp_path / "old.tmp").write_bytes(b"x")
    os.utime(tmp_path / "old.tmp", (0, 0))
    (tmp_path / "young.tmp").write_bytes(b"x")
    with PixelStore(tmp_path):
        assert [path.name for path in tmp_path.glob("*.tmp")] == ["young.tmp"]
