"""Charts of an evaluation: every cell has its place and its shade."""

import numpy as np

from ddptrain.reporting.charts import MOST_CELLS, NAMES, RIGHT, TOP, matrix, reliability


def test_a_cell_is_as_dark_as_its_part_of_the_row() -> None:
    out = matrix(np.array([[0, 4], [0, 0]]), ["a", "b"], ["a", "b"])
    corners = [tuple(out[TOP + 40 * i + 1, NAMES + 40 * j + 1].tolist()) for i in (0, 1) for j in (0, 1)]
    white = (255, 255, 255)
    assert corners == [white, RIGHT, white, white]


def test_many_classes_are_shown_without_names() -> None:
    count = MOST_CELLS + 1
    out = matrix(np.eye(count, dtype=int), ["c"] * count, ["c"] * count)
    side = out.shape[0] // count
    assert out.shape == (side * count, side * count, 3)
    assert tuple(out[-1, -1].tolist()) == RIGHT


def test_a_bar_is_as_high_as_what_is_right() -> None:
    """Of two bins the right one has half of its answers right; the left one has none, and no bar."""
    out = reliability(np.array([np.nan, 0.5]), np.array([0, 4]), 0.1)
    column = (out[34:354, 40 + 240] == RIGHT).all(-1)
    assert abs(int(column.sum()) - 160) <= 3
    assert not (out[34:354, 40 + 80] == RIGHT).all(-1).any()
