"""What tasks say on the page of a run, in numbers worked out by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddptrain.config import load_config
from ddptrain.metrics.pixel_confidence import Confidences
from ddptrain.reporting.run_page.parts import Bars, Chart, Matrix, Numbers, stored
from ddptrain.tasks.base import View
from ddptrain.tasks.build import build_task
from ddptrain.tasks.findings import findings_of
from ddptrain.tasks.logits.sections import contradictions, logits_sections
from ddptrain.tasks.logits.task import LogitsTask
from ddptrain.tasks.segmentation.sections import segmentation_sections

ROOT = Path(__file__).resolve().parents[2]


def classification(config: Path, overrides: list[str]) -> tuple[LogitsTask, list[Any]]:
    """The task, and logits by which all its samples are right: 3 for the class of the label, -3 for others."""
    task = build_task(load_config(config, overrides))
    assert isinstance(task, LogitsTask)
    return task, [{i: {"logits": np.where(row, 3.0, -3.0)} for i, row in enumerate(truth)} for truth in task.val_truth]


def test_a_sample_with_a_wrong_answer_is_a_contradiction(small_config: Callable[[str], Path]) -> None:
    task, answers = classification(small_config("classification"), [])
    assert contradictions(task, answers) == []
    first, second = (int(np.flatnonzero(task.val_truth[0][:, 0])[i]) for i in (0, 1))
    answers[0][first] = {"logits": np.log([0.2, 0.5, 0.3])}
    answers[0][second] = {"logits": np.log([0.1, 0.2, 0.7])}
    found = contradictions(task, answers)
    assert [(c.key.index, c.label, c.real, c.answer) for c in found] == [(second, 0, True, 2), (first, 0, True, 1)]
    assert [c.probability for c in found] == pytest.approx([0.1, 0.2])
    sections = {s.key: s.parts for s in logits_sections(task, answers, lambda key: f"file {key.index}")}
    (matrix,) = sections["confusion"]
    assert isinstance(matrix, Matrix)
    assert list(matrix.counts[0][1:]) == [1, 1]
    table = sections["errors"][1]
    assert isinstance(table, Numbers)
    assert [row[1:4] for row in table.rows] == [[f"file {second}", "disc", "stripes"], [f"file {first}", "disc", "square"]]


def test_of_several_classes_each_can_be_contradicted(small_config: Callable[[str], Path]) -> None:
    """The label denies the third class of a disc, of which the model is sure."""
    task, answers = classification(small_config("classification"), ["loss={name: bce}", "data.balance=none"])
    disc = int(np.flatnonzero(task.val_truth[0][:, 0])[0])
    answers[0][disc] = {"logits": np.array([3.0, -3.0, 4.0])}
    (found,) = contradictions(task, answers)
    assert (found.key.index, found.label, found.real, found.answer) == (disc, 2, False, 2)
    rows: Any = logits_sections(task, answers, str)[-1].parts[1]
    assert rows.rows[0][2] == "not stripes"


def test_pixels_by_class() -> None:
    """Of 10 pixels of each class 8 and 9 are right, all at a probability of 0.7; the others have 0.3."""
    histogram, answers = np.zeros((2, 2, 51), np.int64), np.zeros((3, 10))
    histogram[:, :, [15, 35]] = [[[9, 1], [2, 8]], [[8, 2], [1, 9]]]
    answers[:, 7] = 20, 14, 17
    found = Confidences(histogram, answers)
    confidence, confusion, errors = segmentation_sections(
        np.array([[8, 2], [1, 9]]), found, [("one", "a.png", 0.5)], ["a", "b"]
    )
    recalled, *over, bars = confidence.parts[1:]
    assert isinstance(recalled, Chart)
    assert isinstance(bars, Bars)
    assert [(min(c.x), c.y[0]) for c in recalled.lines] == [(0.8, pytest.approx(8 / 9)), (0.9, pytest.approx(9 / 11))]  # type: ignore[type-var]
    assert [part.marks[0][0] for part in over if isinstance(part, Chart)] == pytest.approx([0.7] * 3)
    assert bars.series["part that is right"][7] == 0.85
    assert bars.title == "calibration: expected error 0.150"
    by_class, _, largest = confusion.parts
    assert isinstance(by_class, Numbers)
    assert isinstance(largest, Numbers)
    assert by_class.rows[0] == ["a", 0.5, pytest.approx(8 / 11), pytest.approx(8 / 9), 0.8, pytest.approx(16 / 19)]
    assert largest.rows == [["a", "b", 0.2, pytest.approx(2 / 3)], ["b", "a", 0.1, pytest.approx(1 / 3)]]
    assert stored(errors)["parts"][1]["rows"] == [["one", "a.png", 0.5]]


def test_a_task_of_ones_own_adds_sections_as_the_docs_say() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "report.md").read_text(), re.S)
    names: dict[str, Any] = {}
    exec(code, names)
    view: View = names["CountView"]()
    found = findings_of(view, [{0: {"count": np.array(2)}, 1: {"count": np.array(5)}}], None, {"r2": 0.5}, {"step": 3})
    chart = found.sections[0].parts[0]
    assert isinstance(chart, Chart)
    assert list(chart.lines[0].y) == [2, 5]
    assert found.intervals == {}
