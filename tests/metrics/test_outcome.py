"""What an evaluation leaves behind comes back from its file as it was, and what is damaged is refused in a line."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import outcomes
import pytest

from ddptrain.errors import UserError
from ddptrain.metrics.matches import Matches
from ddptrain.metrics.outcome import FILE, BoxOutcome, CountOutcome, read_outcome, write_outcome

NAME = "a\udce9 b$.jpg"  # a byte that is not UTF-8


def test_boxes_come_back_as_they_were(tmp_path: Path) -> None:
    outcome = outcomes.boxes(0.8, 1)
    outcome = replace(outcome, images=(NAME, *outcome.images[1:]))
    write_outcome(tmp_path / FILE, outcome)
    back = read_outcome(tmp_path)
    assert isinstance(back, BoxOutcome)
    for f in fields(Matches):
        mine, theirs = getattr(outcome.matches, f.name), getattr(back.matches, f.name)
        assert np.array_equal(mine, theirs)
        assert np.asarray(mine).dtype == np.asarray(theirs).dtype
    assert (list(back.images), list(back.classes), dict(back.about)) == (
        list(outcome.images),
        list(outcome.classes),
        outcome.about,
    )
    assert back.metrics == pytest.approx(outcome.metrics, nan_ok=True)
    assert back.truth() == outcome.truth()
    keys = ("AP", "APs")
    assert str(back.intervals(keys, draws=200)) == str(outcome.intervals(keys, draws=200))
    assert (tmp_path / FILE).stat().st_size < 40 * len(outcome.matches.label) + 20000


def test_counts_come_back_and_give_their_metrics(tmp_path: Path) -> None:
    real = np.array([[2, 0, 0], [1, 1, 0], [0, 3, 0]])
    right, answers = np.array([[1, 0, 0], [1, 0, 0], [0, 3, 0]]), np.array([[1, 1, 0], [2, 0, 0], [0, 3, 0]])
    write_outcome(tmp_path / "mine.npz", outcomes.counts(right, real, answers, {"accuracy": 5 / 7}))
    back = read_outcome(tmp_path / "mine.npz")
    assert isinstance(back, CountOutcome)
    values = back.resample(np.array([[1, 0], [1, 2], [1, 0]], np.float32), back.keys)
    assert values["accuracy"] == pytest.approx([5 / 7, 2 / 4])
    # class 2 has no truth and counts in no mean
    assert values["f1"] == pytest.approx([(2 * 2 / 6 + 2 * 3 / 8) / 2, (2 * 2 / 6 + 0) / 2])


def test_what_is_not_an_outcome_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no evaluation.npz in it; ddptrain eval .* writes it"):
        read_outcome(tmp_path)
    with pytest.raises(UserError, match="no such run folder or file"):
        read_outcome(tmp_path / "nothing")
    write_outcome(tmp_path / FILE, outcomes.boxes(0.8, 1))
    whole = (tmp_path / FILE).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"PK nonsense", whole[:200] + b"\xff" * 300 + whole[500:]):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(UserError, match="not an evaluation of ddptrain, or damaged"):
            read_outcome(tmp_path)
    np.savez(tmp_path / FILE, a=np.zeros(3))
    with pytest.raises(UserError, match="not an evaluation of ddptrain, or damaged"):
        read_outcome(tmp_path)
    np.savez(tmp_path / FILE, head=np.frombuffer(b'{"format": 99}', np.uint8))
    with pytest.raises(UserError, match="of another version"):
        read_outcome(tmp_path)
