"""Parts of a page survive their file, and curves keep their ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ddptrain.reporting.run_page.findings import Findings, read_findings, write_findings
from ddptrain.reporting.run_page.parts import (
    Bars,
    Chart,
    Line,
    Matrix,
    Numbers,
    Picture,
    Section,
    Text,
    line,
    restored,
    stored,
)

SECTION = Section(
    "a",
    "Title",
    [
        Text("words"),
        Numbers(["x"], [[1.5], [None]], "t", ["x"]),
        Chart("c", "x", "y", [Line("l", [0, 1], [None, 2])], [[0.5, "mark"]], [0, 1]),  # type: ignore[arg-type, list-item]
        Bars("b", ["g"], {"s": [0.5]}),
        Matrix("m", ["a"], [[3]], percent=True),
        Picture("p.jpg", "caption"),
    ],
)


def test_sections_come_back_from_json_as_they_were() -> None:
    read = restored(json.loads(json.dumps(stored(SECTION))))
    assert stored(read) == stored(SECTION)
    assert [type(part) for part in read.parts] == [type(part) for part in SECTION.parts]


def test_findings_come_back_and_what_is_not_a_number_is_none(tmp_path: Path) -> None:
    written = Findings({"step": 3, "weights": "best"}, {"AP": 0.5, "APl": float("nan")}, {"AP": (0.4, 0.6)}, [SECTION])
    write_findings(tmp_path / "new", written)
    read = read_findings(tmp_path / "new")
    assert read is not None
    assert (read.metrics, read.intervals) == ({"AP": 0.5, "APl": None}, {"AP": [0.4, 0.6]})
    assert [stored(section) for section in read.sections] == [stored(SECTION)]


def test_findings_of_another_version_and_none_are_none(tmp_path: Path) -> None:
    assert read_findings(tmp_path) is None
    write_findings(tmp_path, Findings(sections=[SECTION]))
    text = (tmp_path / "evaluation.json").read_text()
    (tmp_path / "evaluation.json").write_text(text.replace('"kind": "Bars"', '"kind": "Pie"'))
    assert read_findings(tmp_path) is None


def test_a_long_curve_keeps_its_ends() -> None:
    thin = line("l", np.arange(5000), np.arange(5000) / 7, points=100)
    assert len(thin.x) == 100
    assert (thin.x[0], thin.x[-1]) == (0, 4999)
    assert line("l", [], []).x == []
    assert line("l", [1, 2], [np.nan, 1 / 3]).y == [None, 0.333333]
