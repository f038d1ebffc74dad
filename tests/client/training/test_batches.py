from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.training.batches import batches
from common.data.sample import Batch, Patients

ITEMS = st.lists(st.integers(1, 6), min_size=1, max_size=12)


def marked(items: list[int]) -> Patients:
    """Return patients whose table says who and which item a row is."""
    owner = torch.repeat_interleave(torch.arange(len(items)), torch.tensor(items))
    return Patients(
        image=torch.zeros(len(owner), 0),
        table=torch.stack([owner.float(), torch.arange(len(owner)).float()], dim=1),
        target=torch.zeros(len(owner), 1),
        patient=owner,
        pseudonyms=tuple(str(i) for i in range(len(items))),
    )


def drawn(
    items: list[int], size: int, most: int, steps: int = 5, seed: int = 0
) -> tuple[Batch, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(batches(marked(items), size, most, steps, generator))


def owners(batch: Batch) -> list[int]:
    return [int(value) for value in batch.table[:, 0]]


def rows(batch: Batch) -> list[int]:
    return [int(value) for value in batch.table[:, 1]]


@given(ITEMS, st.integers(1, 15), st.integers(1, 7), st.integers(0, 2**31))
def test_a_batch_has_its_size_of_patients_none_of_them_twice(
    items: list[int], size: int, most: int, seed: int
) -> None:
    for batch in drawn(items, size, most, seed=seed):
        assert len(set(owners(batch))) == min(size, len(items))
        assert len(set(rows(batch))) == len(rows(batch))
        assert int(batch.patient.max()) + 1 == min(size, len(items))


@given(ITEMS, st.integers(1, 15), st.integers(1, 7), st.integers(0, 2**31))
def test_a_patients_items_are_never_parted_between_batches(
    items: list[int], size: int, most: int, seed: int
) -> None:
    for batch in drawn(items, size, most, seed=seed):
        told = owners(batch)
        for patient in set(told):
            assert told.count(patient) == min(most, items[patient])


@given(ITEMS, st.integers(1, 15), st.integers(1, 7), st.integers(0, 2**31))
def test_each_patient_weighs_the_same_however_many_items_there_are(
    items: list[int], size: int, most: int, seed: int
) -> None:
    for batch in drawn(items, size, most, seed=seed):
        total = torch.zeros(min(size, len(items))).index_add_(0, batch.patient, batch.weight)
        assert torch.allclose(total, torch.ones_like(total))
        # Rows of one owner have one position, and only they have it.
        pairs = set(zip(owners(batch), batch.patient.tolist(), strict=True))
        assert len(pairs) == len(total)


@given(ITEMS, st.integers(1, 15), st.integers(0, 2**31))
def test_every_patient_is_seen_once_before_any_is_seen_twice(
    items: list[int], size: int, seed: int
) -> None:
    seen: list[int] = []
    for batch in drawn(items, size, 1, steps=2 * len(items), seed=seed):
        seen += dict.fromkeys(owners(batch))
    count = len(items)
    whole = count // min(size, count) * min(size, count)
    assert len(set(seen[:whole])) == whole
    assert set(seen) == set(range(count))


def test_no_image_of_a_patient_is_left_out_for_ever() -> None:
    seen = {row for batch in drawn([6, 1, 3], 2, 2, steps=60) for row in rows(batch)}
    assert seen == set(range(10))


@pytest.mark.parametrize("size", ["all", 4, 99])
def test_all_patients_with_all_their_items_are_one_batch(size: int | str) -> None:
    patients, generator = marked([1, 2, 3, 1]), torch.Generator().manual_seed(0)
    chosen = "all" if size == "all" else int(size)
    for batch in batches(patients, chosen, 3, 2, generator):  # type: ignore[arg-type]  # "all"
        assert rows(batch) == list(range(7))


def test_so_many_batches_as_steps_are_drawn() -> None:
    for steps in (0, 1, 7):
        assert len(drawn([1, 2, 3], 2, 2, steps=steps)) == steps


def test_the_same_generator_gives_the_same_batches_and_another_gives_others() -> None:
    items = [1, 3, 2, 5, 1, 2, 4, 4]
    first, again, other = (
        [rows(batch) for batch in drawn(items, 3, 2, seed=seed)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    drawn([1, 3, 2, 5], 2, 2)
    assert torch.equal(before, torch.get_rng_state())
