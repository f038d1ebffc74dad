from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.data import kept_items
from common.data.kept_items import (
    ItemFiles,
    ItemGone,
    KeptItems,
    held,
    in_memory,
    is_whole,
    joined_items,
    pieces,
    read_item,
    read_part,
    taken,
    write_item,
)

ROOT = Path(__file__).parents[3]


def made(
    folder: Path, count: int = 7, shape: tuple[int, ...] = (2, 5, 4), seed: int = 0
) -> ItemFiles:
    values = np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)
    names = tuple(f"p{number % 3}/{number}.npy" for number in range(count))
    for name, value in zip(names, values, strict=True):
        write_item(folder / name, value)
    return ItemFiles(folder=folder, names=names, item=torch.Size(shape), kind=torch.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 4, 5, 6), (0,)])
def test_an_item_of_32_bits_comes_back_to_the_bit(
    tmp_path: Path, dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    value = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    write_item(tmp_path / "a.npy", value)
    found = read_item(tmp_path / "a.npy")
    assert found.dtype == dtype
    assert np.array_equal(found, value)


@given(
    low=st.floats(-1e4, 1e4, width=32),
    reach=st.floats(2**-10, 2**16, width=32),
    seed=st.integers(0, 9),
)
def test_16_bits_move_a_value_by_half_a_step_and_the_lowest_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, low: float, reach: float, seed: int
) -> None:
    path = tmp_path_factory.mktemp("item") / "a.npy"
    draw = np.random.default_rng(seed).random((3, 40))
    value = (low + reach * draw).astype(np.float32)
    value[0, :9] = value.min()
    write_item(path, value, bits=16)
    found = read_item(path)
    spread = float(value.max()) - float(value.min())
    rounding = float(np.spacing(np.abs(value).max()))
    assert np.abs(found.astype(float) - value).max() <= spread / 65535 / 2 * 1.01 + 2 * rounding
    assert (found[value == value.min()] == value.min()).all()


def test_16_bits_take_half_the_room_and_an_even_image_stays_itself(tmp_path: Path) -> None:
    write_item(
        tmp_path / "a.npy", np.random.default_rng(0).random((1, 64, 64)).astype("f4"), bits=16
    )
    assert (tmp_path / "a.npy").stat().st_size == 2 * 64 * 64 + 128 + 16
    write_item(tmp_path / "b.npy", np.full((1, 4, 4), 0.3, np.float32), bits=16)
    assert np.array_equal(read_item(tmp_path / "b.npy"), np.full((1, 4, 4), 0.3, np.float32))


@pytest.mark.parametrize("place", ["head", "middle", "end", "cut", "empty"])
def test_a_damaged_item_is_seen_and_removed(tmp_path: Path, place: str) -> None:
    path = tmp_path / "a.npy"
    write_item(path, np.ones((8, 8), np.float32))
    assert is_whole(path)
    content = bytearray(path.read_bytes())
    at = {"head": 3, "middle": 200, "end": len(content) - 13}.get(place)
    if at is not None:
        content[at] ^= 0xFF
    path.write_bytes({"cut": content[:300], "empty": b""}.get(place, bytes(content)))
    assert not is_whole(path)
    assert not path.exists()
    assert not is_whole(path)


def test_a_part_is_the_part_of_the_whole(tmp_path: Path) -> None:
    value = np.random.default_rng(0).standard_normal((1, 20, 30, 40)).astype(np.float32)
    for bits in (16, 32):
        write_item(tmp_path / "v.npy", value, bits=bits)
        part = (slice(0, 1), slice(3, 9), slice(10, 30), slice(0, 40))
        assert np.array_equal(
            read_part(tmp_path / "v.npy", part), read_item(tmp_path / "v.npy")[part]
        )


@pytest.mark.parametrize(
    "index",
    [
        torch.tensor([3, 0, 3]),
        torch.tensor([[1, 2], [6, 0]]),
        torch.tensor([], dtype=torch.int64),
        slice(None),
        slice(1, 6, 2),
        4,
    ],
    ids=str,
)
def test_items_in_files_are_indexed_as_a_tensor_is(
    tmp_path: Path, index: torch.Tensor | slice | int
) -> None:
    files = made(tmp_path)
    tensor = in_memory(files)
    assert files.shape == tensor.shape
    assert files.dtype == tensor.dtype
    assert torch.equal(files[index], tensor[index])


def test_what_is_taken_of_files_is_not_read_until_it_is_asked_for(tmp_path: Path) -> None:
    files = made(tmp_path)
    tensor, chosen = in_memory(files), torch.tensor([5, 1, 1])
    some = taken(files, chosen)
    assert isinstance(some, KeptItems)
    both = joined_items([some, tensor, files])
    assert isinstance(both, KeptItems)
    expected = torch.cat([tensor[chosen], tensor, tensor])
    assert torch.equal(in_memory(both), expected)
    assert torch.equal(in_memory(taken(both, torch.tensor([9, 2, 16]))), expected[[9, 2, 16]])
    assert torch.equal(torch.cat(list(pieces(both))), expected)
    assert isinstance(joined_items([tensor, tensor]), torch.Tensor)
    again = pickle.loads(pickle.dumps(files))  # noqa: S301 - as Ray passes sites on
    assert torch.equal(in_memory(again), tensor)
    (tmp_path / files.names[1]).unlink()
    assert torch.equal(some[:1], tensor[5:6])
    with pytest.raises(ItemGone, match="withdrawn"):
        in_memory(some)


def test_few_items_are_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = made(tmp_path)
    assert isinstance(held(files), torch.Tensor)
    monkeypatch.setattr(kept_items, "IN_MEMORY_BYTES", 4 * 7 * 40 - 1)
    assert held(files) is files


@pytest.mark.processes
def test_a_killed_writer_leaves_a_whole_item_or_none(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from common.data.kept_items import write_item\n"
        "print('on', flush=True)\n"
        "for n in range(10**9):\n"
        "    write_item(Path(sys.argv[1]) / f'{n % 3}.npy', np.full(200_000, n, np.float32))\n"
    )
    for moment in (0.0, 0.013, 0.031):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path in tmp_path.glob("*.npy"):
            if not path.name.startswith("."):
                values: NDArray[np.generic] = read_item(path)
                assert len(np.unique(values)) == 1
                assert is_whole(path)
