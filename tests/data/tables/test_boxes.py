"""The flat table against a plain list of lists."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.boxes import AnnotationTable


def make(rows_per_image: list[int], paths: list[str] | None = None) -> AnnotationTable:
    """A table whose row i has the box (i, i, i + 1, i + 1), label i % 3 and area i."""
    n, m = len(rows_per_image), sum(rows_per_image)
    corner = np.arange(m, dtype=np.float32)[:, None]
    return AnnotationTable(
        name="d",
        root="r",
        names=("a", "b", "c"),
        paths=Paths.pack(paths or [f"images/{i}.jpg" for i in range(n)]),
        sizes=np.full((n, 2), 1000, np.int32) + np.arange(n, dtype=np.int32)[:, None],
        offsets=np.concatenate([[0], np.cumsum(rows_per_image)]).astype(np.int64),
        boxes=corner + np.array([[0, 0, 1, 1]], np.float32),
        labels=np.arange(m, dtype=np.int32) % 3,
        ignore=np.zeros(m, bool),
        crowd=np.zeros(m, bool),
        area=np.arange(m, dtype=np.float32),
    )


def as_lists(table: AnnotationTable) -> list[tuple]:
    return [(table.path(i), table.sizes[i].tolist(), table.area[table.rows(i)].tolist()) for i in range(len(table))]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), max_size=20))
def test_paths_come_back(paths: list[str]) -> None:
    table = make([0] * len(paths), paths)
    assert [table.path(i) for i in range(len(table))] == paths


def test_paths_that_are_not_utf8_come_back() -> None:
    path = b"bild_\xe4.jpg".decode("utf-8", "surrogateescape")
    assert make([0], [path]).path(0) == path


@given(st.data(), st.lists(st.integers(0, 4), max_size=8))
def test_keep_rows(data: st.DataObject, rows: list[int]) -> None:
    table = make(rows)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=sum(rows), max_size=sum(rows))), bool)
    expected = [(p, s, [a for a in areas if keep[int(a)]]) for p, s, areas in as_lists(table)]
    assert as_lists(table.keep_rows(keep)) == expected


@given(st.data(), st.lists(st.integers(0, 4), max_size=8))
def test_keep_images(data: st.DataObject, rows: list[int]) -> None:
    table = make(rows)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), bool)
    kept = table.keep_images(keep)
    assert as_lists(kept) == [x for x, k in zip(as_lists(table), keep) if k]
    assert len(kept.boxes) == len(kept.labels) == len(kept.ignore) == len(kept.crowd) == kept.offsets[-1]


def test_image_of_rows() -> None:
    assert make([2, 0, 1]).image_of_rows().tolist() == [0, 0, 2]


def test_no_index_beyond_the_ends() -> None:
    for index in (-1, 1):
        with pytest.raises(IndexError):
            make([1]).path(index)
        with pytest.raises(IndexError):
            make([1]).rows(index)


def test_columns_are_frozen_and_flat() -> None:
    table = make([1, 2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.name = "other"  # type: ignore[misc]
    columns = [getattr(table, f.name) for f in dataclasses.fields(table)]
    assert all(c is None or isinstance(c, (str, tuple, np.ndarray, Paths)) for c in columns)
    assert all(c.dtype != object for c in columns if isinstance(c, np.ndarray))


@pytest.mark.parametrize("cells", [1, 7, 2**24])
def test_images_that_show_a_class_are_counted_once(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddptrain.data.tables.boxes._CELLS", cells)  # so few that images are counted in parts
    counts = [4, 0, 1, 7, 2, 0]
    table, group = make(counts), np.array([0, 1, 1, 0, 1, 1])
    table.ignore[[0, 5]] = table.crowd[6] = True
    expected = np.zeros((2, 3), np.int64)
    for image in range(len(counts)):
        rows = table.rows(image)
        for label in set(table.labels[rows][table.learned()[rows]].tolist()):
            expected[group[image], label] += 1
    assert table.samples_by_group(group, 2).tolist() == expected.tolist()
    assert table.samples_by_class().tolist() == expected.sum(0).tolist()
    assert make([]).samples_by_class().tolist() == [0, 0, 0]
