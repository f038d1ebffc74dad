"""The line around what is drawn on a slice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from client.radiomics.outline import Points, outline_of


def enclosed(points: Points) -> float:
    """Return the area of a closed line by the shoelace formula, in pixels."""
    x, y = points.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_it_encloses_the_largest_piece_with_its_holes(drawn: np.ndarray) -> None:
    drawn[0, 0] = True
    pieces, count = ndimage.label(drawn)
    around = np.ones((3, 3))
    areas = [
        ndimage.binary_fill_holes(pieces == number, structure=around).sum()
        for number in range(1, count + 1)
    ]
    points = outline_of(drawn)
    assert enclosed(points) == max(areas)
    assert (points[0] == points[-1]).all()
    steps = np.diff(points, axis=0)
    assert ((steps == 0).sum(axis=1) == 1).all(), "it runs along the edges of pixels"


def test_a_rectangle_has_four_corners() -> None:
    drawn = np.zeros((6, 8), np.bool_)
    drawn[1:3, 2:7] = True
    corners = outline_of(drawn).tolist()
    assert len(corners) == 5
    assert {tuple(one) for one in corners} == {(2, 1), (7, 1), (7, 3), (2, 3)}


def test_a_line_of_many_corners_is_made_simpler_and_stays_where_it_is() -> None:
    rows, columns = np.mgrid[:700, :700]
    drawn = (rows - 350) ** 2 + (columns - 350) ** 2 < 300**2
    points = outline_of(drawn)
    assert len(points) == 401
    assert abs(enclosed(points) / drawn.sum() - 1) < 0.002
