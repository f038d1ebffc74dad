from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.metrics.small_cells import counted, ends, joined, patients_in, releasable

SMALLEST = st.integers(1, 7)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), SMALLEST)
def test_no_small_class_is_told_nor_had_by_subtraction(counts: list[int], smallest: int) -> None:
    held = np.array(counts, np.float64)
    told = releasable(held, smallest)
    assert ((held[told] == 0) | (held[told] >= smallest)).all()
    rest = held[~told].sum()
    # All that is known of those held back is their sum; when nobody is left to hide among, all are.
    assert rest == 0 or rest >= smallest or not (held[told] > 0).any()


def test_what_need_not_be_held_back_is_told() -> None:
    assert releasable(np.array([38.0, 2.0]), 5).tolist() == [False, False]
    assert releasable(np.array([38.0, 0.0]), 5).all()
    assert releasable(np.array([30.0, 2.0, 8.0]), 5).tolist() == [True, False, False]
    assert releasable(np.array([30.0, 2.0, 4.0]), 5).tolist() == [True, False, False]


@st.composite
def owned(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, owners and values; several rows of some patients."""
    size = draw(st.integers(1, 40))
    rows = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    owner = np.array(draw(st.lists(st.integers(0, 25), min_size=size, max_size=size)))
    value = np.array(draw(st.lists(st.integers(0, 9), min_size=size, max_size=size)), np.float64)
    return rows, owner, value


@given(owned(), SMALLEST)
def test_neither_counted_patients_nor_the_others_are_few(
    made: tuple[np.ndarray, np.ndarray, np.ndarray], smallest: int
) -> None:
    rows, owner, value = made
    kept = counted(rows, owner, value, smallest)
    assert not (kept & ~rows).any()
    inside = patients_in(owner, kept)
    outside = len(np.unique(owner)) - inside
    assert inside == 0 or (inside >= smallest and (outside == 0 or outside >= smallest))


def test_those_left_out_are_spread_over_the_values() -> None:
    rows = np.r_[np.ones(100, bool), np.zeros(2, bool)]
    value = np.arange(102.0)
    gone = np.flatnonzero(rows & ~counted(rows, np.arange(102), value, 5))
    assert gone.tolist() == [16, 50, 83]


@given(owned(), SMALLEST)
def test_each_range_holds_the_smallest_cell_of_patients_and_bins_in_order(
    made: tuple[np.ndarray, np.ndarray, np.ndarray], smallest: int
) -> None:
    _, owner, value = made
    bins = value.astype(np.int64)
    ranges = joined(bins, owner, smallest)
    if (ranges < 0).any():
        assert (ranges < 0).all()
        assert len(np.unique(owner)) < smallest
        return
    assert sorted(set(ranges)) == list(range(ranges.max() + 1))
    assert all(patients_in(owner, ranges == n) >= smallest for n in range(ranges.max() + 1))
    order = np.argsort(bins, kind="stable")
    assert (np.diff(ranges[order]) >= 0).all()
    last = ends(bins, ranges, 9)
    first = np.r_[0, last[:-1] + 1]
    assert (np.diff(last) > 0).all()
    assert last[-1] == 9
    assert ((first[ranges] <= bins) & (bins <= last[ranges])).all()


def test_ends_lie_between_patients_not_at_one() -> None:
    bins = np.array([0, 1, 2, 10, 11, 12])
    ranges = joined(bins, np.arange(6), 3)
    assert ends(bins, ranges, 20).tolist() == [5, 20]


def test_images_of_one_patient_do_not_fill_a_range() -> None:
    assert (joined(np.arange(50), np.zeros(50, np.int64), 2) == -1).all()
