"""Tensors that stay packed: the same bits as unpacked, each frame read no more than it must be."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from common.data.weights import Weights
from common.messages.packed_weights import PackedWeights
from common.messages.packing import FRAME_VALUES, Encoding, layout_of, pack, unpack
from common.platform.errors import AnswerNotAdmitted

DRAW = torch.Generator().manual_seed(0)
WEIGHTS: Weights = {
    "first": torch.randn(3, 5, generator=DRAW),
    "long": torch.randn(FRAME_VALUES + 11, generator=DRAW),
    "empty": torch.zeros(0, 4),
    "one": torch.tensor(-0.5),
    "last": torch.randn(2, 2, generator=DRAW),
}


class Frames:
    """Frames on disk, as it were, and which were read."""

    def __init__(self, encoding: Encoding) -> None:
        self.all = list(pack(WEIGHTS, encoding))
        self.read: list[int] = []

    def __call__(self, number: int) -> bytes:
        self.read.append(number)
        return self.all[number]


def packed(frames: Frames, encoding: Encoding) -> PackedWeights:
    return PackedWeights(layout_of(WEIGHTS), frames.all, encoding, frames)


@pytest.mark.parametrize("encoding", ["raw", "lossless", "float16", "int8"])
def test_a_packed_tensor_has_the_bits_of_an_unpacked_one_in_whatever_order(
    encoding: Encoding,
) -> None:
    frames = Frames(encoding)
    found, expected = packed(frames, encoding), unpack(layout_of(WEIGHTS), frames.all, encoding)
    assert list(found) == list(WEIGHTS)
    for name in ("last", "first", "one", "long", "empty", "first"):
        assert torch.equal(found[name], expected[name])
        assert found.shapes[name] == tuple(found[name].shape)
    flat = [value.reshape(-1) for value in expected.values()]
    assert found.norm == math.sqrt(sum(float(torch.dot(value, value)) for value in flat))


def test_in_the_order_of_its_layout_each_frame_is_unpacked_once() -> None:
    frames = Frames("lossless")
    list(packed(frames, "lossless").values())
    assert frames.read == [0, 1]


@pytest.mark.parametrize(
    "change",
    [lambda f: f[:-1], lambda f: [*f, f[-1]], lambda f: [*f[:-1], f[-1][:-1]], lambda f: f[::-1]],
    ids=["fewer", "more", "torn", "turned round"],
)
def test_frames_that_are_not_the_tensors_are_refused_before_any_is_used(
    change: Callable[[list[bytes]], list[bytes]],
) -> None:
    frames = Frames("lossless")
    with pytest.raises(AnswerNotAdmitted):
        PackedWeights(layout_of(WEIGHTS), change(frames.all), "lossless", frames)
