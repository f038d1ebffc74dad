from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.training.kept_between_rounds import MemoryInFolder, MemoryInProcess, SiteMemory
from client.training.local_model import open_local_model
from client.training.local_round import train_round
from common.data.weights import Weights
from common.messages.wire import SiteUpdate
from common.platform.errors import StateDamaged
from tests.client.local_runs import config_of, image_config_of, request_of, site_of
from tests.server.hospitals import same_bits

Make = Callable[[Path], SiteMemory]
BOTH = pytest.mark.parametrize("make", [lambda _: MemoryInProcess(), MemoryInFolder])
SCAFFOLD = "aggregation: {rule: scaffold}"
HEAD = "personalisation: {method: personal_head}"


def tensors(value: float) -> Weights:
    return {"layer": torch.full((2,), value)}


def value_of(memory: SiteMemory, run: str, round_number: int) -> float | None:
    kept = memory.recall(run, round_number)
    return float(kept["layer"][0]) if kept else None


@BOTH
def test_nothing_is_recalled_before_anything_was_kept(make: Make, tmp_path: Path) -> None:
    memory = make(tmp_path)
    assert memory.recall("run", 0) == {}
    memory.keep("run", 3, tensors(3))
    assert memory.recall("run", 2) == {}
    assert memory.recall("other", 3) == {}


@BOTH
@pytest.mark.parametrize("missed", [0, 1, 2, 7])
def test_a_site_that_missed_rounds_goes_on_from_its_last(
    make: Make, tmp_path: Path, missed: int
) -> None:
    memory = make(tmp_path)
    memory.keep("run", 1, tensors(1))
    memory.keep("run", 2, tensors(2))
    assert value_of(memory, "run", 2 + missed) == 2


@BOTH
def test_a_round_that_was_kept_already_starts_from_the_same_again(
    make: Make, tmp_path: Path
) -> None:
    memory = make(tmp_path)
    memory.keep("run", 1, tensors(1))
    for _ in range(3):  # rounds 2 and 3 were missed, 4 is asked for again and again
        assert value_of(memory, "run", 3) == 1
        memory.keep("run", 4, tensors(4))


@BOTH
def test_a_coordinator_that_goes_back_one_saved_round_finds_what_it_started_from(
    make: Make, tmp_path: Path
) -> None:
    memory = make(tmp_path)
    for number in range(1, 7):
        memory.keep("run", number, tensors(number))
    # Round 6 was under way; the state after 5 is damaged, so 5 is done again from 4.
    assert value_of(memory, "run", 4) == 4


@BOTH
def test_a_round_done_anew_forgets_the_later_ones_of_the_history_that_was_left(
    make: Make, tmp_path: Path
) -> None:
    memory = make(tmp_path)
    for number in (1, 2, 3):
        memory.keep("run", number, tensors(number))
    memory.keep("run", 2, tensors(20))
    # The site misses round 3 this time.
    assert value_of(memory, "run", 3) == 20


@BOTH
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(taken=st.lists(st.booleans(), min_size=1, max_size=12))
def test_memory_agrees_with_one_that_forgets_nothing(
    make: Make, tmp_path_factory: pytest.TempPathFactory, taken: list[bool]
) -> None:
    memory, everything = make(tmp_path_factory.mktemp("memory")), dict[int, float]()
    for number, here in enumerate(taken, 1):
        before = [everything[n] for n in sorted(everything) if n < number]
        assert value_of(memory, "run", number - 1) == (before[-1] if before else None)
        if here:
            memory.keep("run", number, tensors(number))
            everything[number] = number


@BOTH
def test_runs_do_not_mix(make: Make, tmp_path: Path) -> None:
    memory = make(tmp_path)
    memory.keep("run", 1, tensors(1))
    memory.keep("run-2", 1, tensors(2))
    assert value_of(memory, "run", 5) == 1
    assert value_of(memory, "run-2", 5) == 2


@BOTH
def test_memory_stays_small(make: Make, tmp_path: Path) -> None:
    memory = make(tmp_path)
    for number in range(1, 30):
        memory.keep("run", number, tensors(number))
    assert [value_of(memory, "run", number) for number in (26, 27, 28, 29)] == [None, 27, 28, 29]
    assert len(list(tmp_path.rglob("*.safetensors"))) in {0, 3}


def test_a_folder_survives_the_process(tmp_path: Path) -> None:
    MemoryInFolder(tmp_path).keep("run", 2, {"layer": torch.tensor([0.1, float("nan")])})
    found = MemoryInFolder(tmp_path).recall("run", 4)
    assert torch.equal(found["layer"].isnan(), torch.tensor([False, True]))
    assert float(found["layer"][0]) == float(torch.tensor(0.1))


def test_a_file_that_a_crash_left_half_written_is_no_round(tmp_path: Path) -> None:
    memory = MemoryInFolder(tmp_path)
    memory.keep("run", 1, tensors(1))
    (tmp_path / "run" / ".round-00002.safetensors.77.tmp").write_bytes(b"half")
    assert value_of(memory, "run", 2) == 1


def test_a_damaged_file_is_refused_by_name_and_nothing_older_is_taken_for_it(
    tmp_path: Path,
) -> None:
    memory = MemoryInFolder(tmp_path)
    for number in (1, 2):
        memory.keep("run", number, tensors(number))
    (tmp_path / "run" / "round-00002.safetensors").write_bytes(b"spoiled")
    with pytest.raises(StateDamaged, match="round-00002"):
        memory.recall("run", 2)


# --- in rounds -----------------------------------------------------------------------------


@BOTH
def test_scaffolds_control_outlives_a_missed_round(make: Make, tmp_path: Path) -> None:
    config = config_of(SCAFFOLD)
    missing = site_of(memory=make(tmp_path))
    local_model = open_local_model(config, 0)
    train_round(missing, local_model, request_of(config, 1))
    first = missing.memory.recall("run", 1)
    assert any(bool(value.any()) for value in first.values())
    answer = train_round(missing, local_model, request_of(config, 3))
    assert isinstance(answer, SiteUpdate)
    assert answer.control_delta is not None
    after = missing.memory.recall("run", 3)
    for name, change in answer.control_delta.items():
        assert torch.equal(change, after[f"control/{name}"] - first[f"control/{name}"])


@BOTH
@pytest.mark.parametrize("more", [SCAFFOLD, HEAD])
def test_a_round_asked_for_twice_after_a_missed_one_gives_the_same_bits(
    make: Make, tmp_path: Path, more: str
) -> None:
    config = image_config_of(more)
    here, local_model = (
        site_of(memory=make(tmp_path), image=(1, 16, 16)),
        open_local_model(config, 0),
    )
    train_round(here, local_model, request_of(config, 1))
    answers, kept = [], []
    for _ in range(2):
        answer = train_round(here, local_model, request_of(config, 4))
        assert isinstance(answer, SiteUpdate)
        answers.append(answer)
        kept.append(here.memory.recall("run", 4))
    assert same_bits(answers[0].delta, answers[1].delta)
    assert same_bits(answers[0].control_delta or {}, answers[1].control_delta or {})
    assert same_bits(kept[0], kept[1])


def test_a_personal_head_outlives_a_missed_round() -> None:
    config = image_config_of(HEAD)
    here, local_model = site_of(image=(1, 16, 16)), open_local_model(config, 0)
    assert local_model.local
    train_round(here, local_model, request_of(config, 1))
    kept = here.memory.recall("run", 1)
    local_model.load(request_of(config, 2).weights, here.memory.recall("run", 2))
    own = {name: local_model.trained[name] for name in local_model.local}
    assert same_bits(own, kept)
    assert not any(
        torch.equal(own[name], local_model.initial_local[name]) for name in local_model.local
    )
