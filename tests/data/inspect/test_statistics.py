"""Sizes in pixels of the file and of the input; ignore regions and crowds are not counted."""

from __future__ import annotations

import numpy as np

from ddptrain.data.inspect.statistics import EDGES, box_sizes, class_counts
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.boxes import AnnotationTable


def table() -> AnnotationTable:
    """Two images, 1280 x 720 and 320 x 640, with squares of side 20, 40 and 100, an ignore region and a crowd."""
    corners = np.array([[5, 5, 25, 25], [50, 50, 90, 90], [0, 0, 9, 9], [10, 10, 110, 110], [0, 0, 30, 30]], np.float32)
    return AnnotationTable(
        name="t",
        root=".",
        names=("car", "bus"),
        paths=Paths.pack(["a.jpg", "b.jpg"]),
        sizes=np.array([[1280, 720], [320, 640]], np.int32),
        offsets=np.array([0, 3, 5]),
        boxes=corners,
        labels=np.array([0, 1, -1, 1, 0], np.int32),
        ignore=np.array([False, False, True, False, False]),
        crowd=np.array([False, False, False, False, True]),
        area=np.ones(5, np.float32),
    )


def test_sizes() -> None:
    found = box_sizes(table(), 320)
    assert found.native.tolist() == [1, 1, 1]
    # in the input the sides are 5, 10 and 50
    assert found.network.tolist() == [2, 1, 0]
    assert found.below_8 == 1
    assert found.longest == 50
    assert found.sides.sum() == 3
    assert all(found.sides[np.searchsorted(EDGES, side)] for side in (5, 10, 50))


def test_classes() -> None:
    assert class_counts(table()).tolist() == [1, 2]


def test_a_table_without_boxes() -> None:
    empty = table().keep_rows(np.zeros(5, bool))
    found = box_sizes(empty, 320)
    assert (found.native.sum(), found.below_8, found.longest) == (0, 0, 0.0)
    assert class_counts(empty).tolist() == [0, 0]
