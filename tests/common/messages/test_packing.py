from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.data.weights import Weights
from common.messages.packing import FRAME_VALUES, Encoding, layout_of, pack, unpack
from common.platform.errors import AnswerNotAdmitted

ENCODINGS: tuple[Encoding, ...] = ("raw", "lossless", "float16", "int8")
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
FINITE = st.floats(width=32, min_value=-60000, max_value=60000)


def there_and_back(weights: Weights, encoding: Encoding) -> dict[str, torch.Tensor]:
    return unpack(layout_of(weights), pack(weights, encoding), encoding)


@pytest.mark.parametrize("encoding", ["raw", "lossless"])
@given(values=st.lists(st.lists(FLOATS, max_size=5), max_size=4))
def test_every_bit_arrives(values: list[list[float]], encoding: Encoding) -> None:
    weights = {str(i): torch.tensor(v, dtype=torch.float32) for i, v in enumerate(values)}
    found = there_and_back(weights, encoding)
    assert list(found) == list(weights)
    for name, value in weights.items():
        assert torch.equal(found[name].view(torch.int32), value.view(torch.int32))


@given(values=hnp.arrays(np.float32, st.integers(0, 700), elements=FINITE))
def test_float16_errs_by_no_more_than_it_says(values: np.ndarray) -> None:
    found = there_and_back({"w": torch.from_numpy(values)}, "float16")["w"].numpy()
    allowed = np.maximum(np.abs(values) * 2.0**-11, 2.0**-25)
    assert (np.abs(found.astype(np.float64) - values) <= allowed).all()


@given(values=hnp.arrays(np.float32, st.integers(0, 700), elements=FINITE))
def test_int8_errs_by_no_more_than_it_says(values: np.ndarray) -> None:
    found = there_and_back({"w": torch.from_numpy(values)}, "int8")["w"].numpy()
    for start in range(0, values.size, 256):
        block = values[start : start + 256].astype(np.float64)
        # One part in a million on top: scale and product are themselves float32, whose steps
        # around 0 are 1.4e-45. The scale is off by half of one, and stands up to 127 times.
        allowed = np.abs(block).max() / 254 * (1 + 1e-6) + 128 * 1.5e-45 / 2
        assert np.abs(found[start : start + 256] - block).max() <= allowed


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_same_values_are_the_same_bytes(encoding: Encoding) -> None:
    weights = {"w": torch.randn(5000, generator=torch.Generator().manual_seed(0))}
    assert list(pack(weights, encoding)) == list(pack(weights, encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tensors_longer_than_a_frame_arrive(encoding: Encoding) -> None:
    long = torch.arange(FRAME_VALUES + 3, dtype=torch.float32).remainder(97).reshape(1, -1)
    weights = {"first": torch.ones(7), "long": long, "empty": torch.zeros(0, 3)}
    frames = list(pack(weights, encoding))
    assert len(frames) == 2
    found = unpack(layout_of(weights), frames, encoding)
    assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in weights.items()}
    assert torch.allclose(found["long"], long, atol=0.4)


def test_packing_saves_bytes() -> None:
    weights = {"w": torch.randn(300_000, generator=torch.Generator().manual_seed(0))}
    sizes = {e: sum(map(len, pack(weights, e))) / (4 * 300_000) for e in ENCODINGS}
    assert sizes["raw"] == 1.0
    assert sizes["lossless"] < 0.95
    assert sizes["float16"] < 0.5
    assert sizes["int8"] < 0.27


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_frames_that_do_not_fit_their_layout_are_refused(encoding: Encoding) -> None:
    weights = {"w": torch.ones(10)}
    frames = list(pack(weights, encoding))
    for layout, given_frames in (
        ([("w", [11])], frames),
        ([("w", [9])], frames),
        ([("w", [10])], [*frames, frames[0]]),
        ([("w", [10])], []),
        ([("w", [10])], [frames[0][:-1]]),
        ([("w", [10])], [b"\x00" * len(frames[0]) + b"x"]),
        ([("w", [-10])], frames),
        ([("w", [10**15])], frames),  # takes no memory for what did not come
    ):
        with pytest.raises(AnswerNotAdmitted):
            unpack(layout, given_frames, encoding)


def test_a_frame_that_would_swell_is_refused() -> None:
    import imagecodecs

    bomb = bytes(imagecodecs.zstd_encode(bytes(1 << 28), level=1))
    assert len(bomb) < 1 << 16
    with pytest.raises(AnswerNotAdmitted):
        unpack([("w", [1000])], [bomb], "lossless")


@pytest.mark.parametrize(
    ("encoding", "value"), [("float16", 70000.0), ("int8", float("nan")), ("int8", float("inf"))]
)
def test_a_value_that_has_no_place_in_an_encoding_is_refused(
    encoding: Encoding, value: float
) -> None:
    with pytest.raises(AnswerNotAdmitted):
        list(pack({"w": torch.tensor([value])}, encoding))


def test_only_float32_travels() -> None:
    with pytest.raises(AnswerNotAdmitted, match="float64"):
        list(pack({"w": torch.zeros(1, dtype=torch.float64)}, "raw"))
