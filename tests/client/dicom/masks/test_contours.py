"""Contours of one region on one slice: parts, holes, islands, and what is refused."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from client.dicom.masks import contours
from client.dicom.masks.contours import region_of
from client.dicom.reasons import Reason, UnusableFile

SHAPE = (24, 24)
Points = NDArray[np.float64]


def square(low: float, high: float, *, aside: float = 0.0) -> Points:
    corners = [[low, low], [low, high], [high, high], [high, low]]
    return np.array(corners, float) + np.array([0.0, aside])


def filled(low: float, high: float, *, aside: float = 0.0) -> NDArray[np.bool_]:
    rows, columns = np.indices(SHAPE)
    inner = (low <= rows) & (rows < high) & (low + aside <= columns) & (columns < high + aside)
    return np.asarray(inner)


def region(*outlines: Points, exclusive: bool = False) -> NDArray[np.bool_]:
    return region_of(outlines, [exclusive] * len(outlines), SHAPE)


OUTER, HOLE, ISLAND = square(1.5, 20.5), square(4.5, 16.5), square(7.5, 12.5)


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_ring_in_a_ring_is_a_hole_and_one_in_that_an_island(*, exclusive: bool) -> None:
    expected = filled(1.5, 20.5) & ~filled(4.5, 16.5)
    for outlines in permutations((OUTER, HOLE)):
        assert np.array_equal(region(*outlines, exclusive=exclusive), expected)
    expected |= filled(7.5, 12.5)
    for outlines in permutations((OUTER, HOLE, ISLAND)):
        assert np.array_equal(region(*outlines, exclusive=exclusive), expected)


def test_contours_that_cross_enclose_what_either_does_unless_they_are_exclusive() -> None:
    """Their overlap was taken out once: 110 pixels for 119."""
    one, other = square(2, 10), square(6.5, 14.5)
    either = filled(2, 10) | filled(6.5, 14.5)
    both = filled(2, 10) & filled(6.5, 14.5)
    assert both.any()
    for outlines in permutations((one, other)):
        assert np.array_equal(region(*outlines), either)
        assert np.array_equal(region(*outlines, exclusive=True), either & ~both)
    across, down = np.array([1.0, 4.0]), np.array([4.0, 1.0])
    bars = [square(3.5, 9.5) * across - [0, 9], square(3.5, 9.5) * down - [9, 0]]
    plus = region(bars[0]) | region(bars[1])
    assert np.array_equal(region(*bars), plus)


def test_a_hole_in_one_of_two_crossing_parts_stays_and_in_both_is_one_hole() -> None:
    one, other = square(1.5, 12.5), square(9.5, 20.5)
    in_one, in_both = square(3.5, 6.5), square(10.2, 11.8)
    either = filled(1.5, 12.5) | filled(9.5, 20.5)
    assert np.array_equal(region(one, other, in_one), either & ~filled(3.5, 6.5))
    assert np.array_equal(region(in_both, one, other), either & ~filled(10.2, 11.8))


def test_parts_that_touch_are_both_there_and_a_hole_may_touch_the_border() -> None:
    left, right = square(2.5, 8.5), square(2.5, 8.5, aside=6)
    assert np.array_equal(region(left, right), filled(2.5, 8.5) | filled(2.5, 8.5, aside=6))
    hole = square(1.5, 6.5)
    assert np.array_equal(region(OUTER, hole), filled(1.5, 20.5) & ~filled(1.5, 6.5))
    # Coordinates in millimetres are rounded, here to a hundredth of a voxel outwards.
    assert np.array_equal(region(OUTER, hole - 0.01), filled(1.5, 20.5) & ~filled(1.5, 6.5))


@pytest.mark.parametrize("again", [OUTER, np.roll(OUTER, 2, axis=0), OUTER[::-1], OUTER + 0.01])
def test_a_contour_that_stands_there_twice_is_there_once(again: Points) -> None:
    assert np.array_equal(region(OUTER, again), filled(1.5, 20.5))
    assert np.array_equal(region(OUTER, HOLE, again), filled(1.5, 20.5) & ~filled(4.5, 16.5))


@pytest.mark.parametrize("backwards", [False, True])
def test_a_keyhole_leaves_its_inside_out_whichever_way_it_leads(*, backwards: bool) -> None:
    inner = HOLE[::-1] if backwards else HOLE
    keyhole = np.concatenate([OUTER, OUTER[:1], inner, inner[:1]])
    assert np.array_equal(region(keyhole), filled(1.5, 20.5) & ~filled(4.5, 16.5))


def test_a_contour_that_goes_around_much_of_itself_twice_is_refused() -> None:
    twice = np.concatenate([square(1.5, 14.5), [[1.5, 8.5], [8.5, 8.5], [8.5, 1.5], [1.5, 1.5]]])
    with pytest.raises(UnusableFile) as caught:
        region(twice)
    assert caught.value.reason is Reason.MASK_UNUSABLE
    assert "crosses itself" in caught.value.detail
    eight = np.array([[2.5, 2.5], [18.5, 18.5], [18.5, 2.5], [2.5, 18.5]])
    assert region(eight).sum() > 100  # once in either sense


def test_a_loop_of_the_hand_is_no_hole() -> None:
    curl = [[10.5, 1.5], [10.5, 3.2], [12.2, 3.2], [12.2, 2.4], [9.5, 2.4], [9.5, 1.5]]
    drawn = np.concatenate([square(1.5, 21.5), curl])
    expected = filled(1.5, 21.5)
    expected[10, 2] = False  # between the way in and the way back
    assert np.abs(contours.windings(drawn, SHAPE)).max() == 2
    assert np.array_equal(region(drawn), expected)


def test_contours_of_both_types_on_one_slice_are_refused() -> None:
    with pytest.raises(UnusableFile, match="MASK_UNUSABLE"):
        region_of([OUTER, HOLE], [True, False], SHAPE)


def test_the_checks_turn_red_where_all_contours_are_combined_by_even_odd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def even_odd(outlines: list[Points], shape: tuple[int, int]) -> NDArray[np.bool_]:
        found = np.zeros(shape, bool)
        for outline in outlines:
            found ^= contours.enclosed(outline, shape)
        return found

    monkeypatch.setattr(contours, "_combined", even_odd)
    with pytest.raises(AssertionError):
        test_contours_that_cross_enclose_what_either_does_unless_they_are_exclusive()
    test_a_ring_in_a_ring_is_a_hole_and_one_in_that_an_island(exclusive=False)


def test_the_checks_turn_red_where_all_contours_are_united(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contours, "_within", lambda _inner, _outer: False)
    with pytest.raises(AssertionError):
        test_a_ring_in_a_ring_is_a_hole_and_one_in_that_an_island(exclusive=False)
