from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.metrics.intervals import Estimate
from common.platform.errors import RunFailed, StateDamaged
from common.privacy.plan import LedgerHead
from server.rounds.round_record import RoundRecord, record_from_json
from server.rounds.run_state import RunState, RunStore
from tests.server.hospitals import same_bits


def state_of(number: int, *, best_round: int = 0) -> RunState:
    def tensors(seed: int) -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(seed)
        return {"b/kernel": torch.randn(3, 2, generator=draw), "a": torch.randn(4, generator=draw)}

    def record(of: int) -> RoundRecord:
        return RoundRecord(round=of, updates=("a", "b"), left_out={"c": "silent"}, score=1 / of)

    return RunState(
        run="r1",
        round=number,
        seed=7,
        fingerprint="f",
        weights=tensors(number),
        server={"m/a": torch.randn(4)},
        average=tensors(100 + number),
        best=tensors(100 + best_round) if best_round else {},
        best_round=best_round,
        best_score=0.5 if best_round else None,
        history=tuple(record(n) for n in range(1, number + 1)),
    )


def equal(left: RunState | None, right: RunState) -> bool:
    assert left is not None
    parts = ("weights", "server", "average", "best")
    bits = all(same_bits(getattr(left, p), getattr(right, p)) for p in parts)
    return bits and bare(left) == bare(right)


def bare(state: RunState) -> RunState:
    """Return the state without its tensors, which `==` does not compare."""
    return replace(state, weights={}, server={}, average={}, best={})


def filled(folder: Path, best: tuple[int, ...] = (1, 1, 3, 3, 3)) -> list[RunState]:
    shutil.rmtree(folder, ignore_errors=True)
    store = RunStore(folder)
    states = [state_of(n, best_round=b) for n, b in enumerate(best, 1)]
    for state in states:
        store.save(
            replace(state, settled=False, best_round=0, best={}, best_score=None)
            if state.best_round == state.round
            else state
        )
        store.save(state)
    return states


def test_a_state_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    states = filled(tmp_path)
    assert equal(RunStore(tmp_path).load(), states[-1])


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    assert RunStore(tmp_path / "absent").load() is None


def test_disk_holds_the_last_two_rounds_and_the_best(tmp_path: Path) -> None:
    filled(tmp_path, best=(1, 2, 2, 2, 2, 2, 2))
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {f"round-{n:05d}.{end}" for n in (2, 6, 7) for end in ("json", "safetensors")}


def test_the_same_weights_are_not_written_twice(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    state = state_of(1)
    store.save(replace(state, settled=False))
    tensors = tmp_path / "round-00001.safetensors"
    before = tensors.stat().st_ino
    store.save(replace(state, best=state.average, best_round=1, best_score=0.5))
    assert tensors.stat().st_ino == before
    loaded = RunStore(tmp_path).load()
    assert loaded is not None
    assert same_bits(loaded.best, state.average)


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_any_changed_byte_is_found_and_the_round_before_is_taken(tmp_path: Path, kind: str) -> None:
    states = filled(tmp_path)
    path = tmp_path / f"round-00005.{kind}"
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 1 + at % 255
        path.write_bytes(changed)
        told: list[str] = []
        found = RunStore(tmp_path).load(told.append)
        if told:
            assert equal(found, states[-2])
            assert str(path) in told[0]
            assert "Going back to the round before" in told[0]
        else:  # a space between two values of the JSON
            assert equal(found, states[-1])
            assert kind == "json"


DAMAGE: list[Callable[[Path], object]] = [
    lambda folder: (folder / "round-00005.json").write_text("{}"),
    lambda folder: (folder / "round-00005.json").write_text("[1]"),
    lambda folder: (folder / "round-00005.json").write_bytes(b"\xff\xfe"),
    lambda folder: (folder / "round-00005.safetensors").unlink(),
    lambda folder: (folder / "round-00005.safetensors").write_bytes(b""),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_whose_last_round_is_damaged_goes_on_from_the_one_before(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    states = filled(tmp_path)
    damage(tmp_path)
    told: list[str] = []
    store = RunStore(tmp_path)
    assert equal(store.load(told.append), states[-2])
    assert len(told) == 1
    store.save(states[-1])
    assert equal(RunStore(tmp_path).load(), states[-1])


def test_damaged_weights_of_the_best_round_are_found(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "round-00003.safetensors").write_bytes(b"")
    with pytest.raises(StateDamaged, match=r"round-00003.safetensors is damaged.*start a new run"):
        RunStore(tmp_path).load(lambda _text: None)


def test_when_no_round_can_be_read_the_message_says_what_to_do(tmp_path: Path) -> None:
    filled(tmp_path)
    for path in tmp_path.glob("*.json"):
        path.write_text("{")
    with pytest.raises(StateDamaged, match=f"restore {tmp_path} from a copy, or start a new run"):
        RunStore(tmp_path).load(lambda _text: None)


def test_a_new_run_does_not_write_over_another(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(RunFailed, match="already holds round 5 of a run"):
        RunStore(tmp_path).save(state_of(1))
    assert (tmp_path / "round-00005.json").exists()


def test_another_store_of_the_same_folder_goes_on_saving(tmp_path: Path) -> None:
    filled(tmp_path)
    after = state_of(6, best_round=3)
    RunStore(tmp_path).save(after)
    assert equal(RunStore(tmp_path).load(), after)


def test_a_state_whose_best_round_lies_elsewhere_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(StateDamaged, match="does not hold the best round, 3"):
        RunStore(tmp_path).save(state_of(6, best_round=3))


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    filled(tmp_path)
    torn = tmp_path / ".round-00006.json.123.tmp"
    torn.write_bytes(b"half")
    orphan = tmp_path / "round-00002.safetensors"
    orphan.write_bytes(b"")
    store = RunStore(tmp_path)
    store.load()
    store.save(state_of(6, best_round=3))
    assert not torn.exists()
    assert not orphan.exists()


def test_a_record_reads_back_from_json_with_what_is_unknown() -> None:
    record = RoundRecord(
        round=3,
        updates=("a",),
        left_out={"b": "silent"},
        faults=("c: late",),
        epsilon={"a": 1.5},
        delta={"a": 1e-3},
        ledgers={"a": LedgerHead(charges=3, hash="c" * 64)},
        score=None,
        seconds=9.0,
        metrics={"auroc": Estimate(value=0.8, low=math.nan, high=0.9, patients=12, bound=0.1)},
    )
    found = record_from_json(json.loads(json.dumps(record.to_json())))
    assert found.to_json() == record.to_json()
    assert math.isnan(found.metrics["auroc"].low)
    assert found.seconds == 0.0  # time is not part of a state


@pytest.mark.parametrize(
    "wrong",
    [
        {"round": "3"},
        {"updates": "a"},
        {"left_out": []},
        {"score": "low"},
        {"ledgers": {"a": {"charges": "3", "hash": "c"}}},
    ],
)
def test_a_record_of_another_shape_is_refused(wrong: dict[str, object]) -> None:
    content = dict(RoundRecord(round=1, updates=()).to_json()) | wrong
    with pytest.raises(TypeError, match="expected"):
        record_from_json(content)


def test_a_round_that_is_asked_for_again_after_a_restart_is_asked_in_the_same_bytes(
    tmp_path: Path,
) -> None:
    """Else no site would find the answer that it has given, and it would be charged twice."""
    weights = {"layer.weight": torch.ones(3, 2), "layer.bias": torch.ones(3), "a": torch.ones(1)}
    server = {"momentum/layer.weight": torch.ones(2), "momentum/a": torch.ones(9)}
    state = RunState(
        run="run",
        round=1,
        seed=0,
        fingerprint="f",
        weights=weights,
        server=server,
        average=dict(weights),
        best=dict(weights),
        best_round=1,
    )
    RunStore(tmp_path).save(state)
    found = RunStore(tmp_path).load()
    assert found is not None
    for part in ("weights", "server", "average", "best"):
        assert list(getattr(found, part)) == list(getattr(state, part))
