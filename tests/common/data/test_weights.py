from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from common.data.weights import add_scaled, load_weights, safetensors_parts, save_weights, step_onto


@pytest.mark.parametrize("metadata", [{}, {"run": "abc"}])
def test_a_file_in_parts_is_the_one_that_safetensors_writes(metadata: dict[str, str]) -> None:
    weights = {
        "b/weight": torch.arange(6.0).reshape(2, 3),
        "a": torch.tensor(1.5),
        "c": torch.zeros(0, 3),
        "bb": torch.ones(1),
    }
    assert b"".join(safetensors_parts(weights, metadata)) == save(weights, metadata=metadata)


def test_safetensors_reads_every_kind_of_tensor_back_as_it_was() -> None:
    kinds = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.uint8,
        torch.bool,
    )
    tensors = {f'"ü"/{kind}': torch.ones(3, dtype=kind) for kind in kinds}
    found = load(b"".join(safetensors_parts(tensors)))
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_tensors_that_do_not_lie_in_one_piece_are_saved_as_they_are_read(tmp_path: Path) -> None:
    turned = torch.arange(6.0).reshape(2, 3).T
    save_weights(tmp_path / "w", {"turned": turned})
    assert torch.equal(load_weights(tmp_path / "w")["turned"], turned)


def test_a_step_in_the_memory_of_the_change_has_the_bits_of_one_beside_it() -> None:
    draw = torch.Generator().manual_seed(0)
    base = {name: torch.randn(5, 7, generator=draw) for name in ("a", "b", "c")}
    change = {name: torch.randn(5, 7, generator=draw) for name in ("a", "c")}
    memory = {name: value.data_ptr() for name, value in change.items()}
    before = {name: value.clone() for name, value in base.items()}
    expected = add_scaled(base, change, 0.3)
    found = step_onto(change, base, 0.3)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in base)
    assert {name: found[name].data_ptr() for name in change} == memory
    assert all(torch.equal(base[name], before[name]) for name in base)
