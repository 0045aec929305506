"""Predictions survive being packed, whatever they hold, and say which of them cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from ddptrain.errors import RunFailed
from ddptrain.tasks.packed import PackedPredictions


def example(index: int) -> dict[str, np.ndarray]:
    """Rows, a scalar, a picture whose size is its own, and a text."""
    r = np.random.default_rng(index)
    boxes = r.random((index % 3, 4)).astype(np.float32)
    return {"boxes": boxes, "loss": np.float64(index), "mask": np.full((index, 2), index), "name": np.array(f"n{index}")}


def test_a_mapping_of_what_was_packed() -> None:
    given = {i: example(i) for i in (5, 0, 3, 7)}
    packed = PackedPredictions.pack(given)
    assert list(packed) == [0, 3, 5, 7]
    assert len(packed) == 4
    for index, prediction in given.items():
        assert packed[index].keys() == prediction.keys()
        for name, value in prediction.items():
            assert packed[index][name].dtype == np.asarray(value).dtype
            assert np.array_equal(packed[index][name], value), name
    with pytest.raises(KeyError):
        packed[1]


def test_parts_in_any_order_are_one() -> None:
    parts = [PackedPredictions.pack({i: example(i) for i in numbers}) for numbers in ((4, 1), (), (2, 0, 3))]
    joined = PackedPredictions.join(parts)
    assert list(joined) == [0, 1, 2, 3, 4]
    assert all(np.array_equal(joined[i]["boxes"], example(i)["boxes"]) for i in joined)
    column = joined.column("boxes")
    assert column is not None
    samples, boxes = column.rows()
    assert samples.tolist() == [4, 1, 2, 2]
    assert boxes.shape == (4, 4)
    assert sorted(joined.numbers("loss").tolist()) == [0, 1, 2, 3, 4]
    assert joined.column("nothing") is None
    assert joined.numbers("nothing").tolist() == []


def test_of_no_sample() -> None:
    assert list(PackedPredictions.pack({})) == []
    assert list(PackedPredictions.join([PackedPredictions.pack({}), PackedPredictions.pack({})])) == []


def test_an_object_is_refused_by_name() -> None:
    with pytest.raises(RunFailed, match="predict: boxes of a prediction is a dict; return NumPy arrays"):
        PackedPredictions.pack({0: {"boxes": {"x": 1}}})
