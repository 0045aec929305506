"""Figures for people: what is drawn, and what the axes are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddptrain.reporting import report

pytest.importorskip("matplotlib", reason="figures of the report need the extra [report]")
pytestmark = pytest.mark.usefixtures("figures")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All axes of all figures."""
    found: list[Any] = []
    real = report.figure_of

    @contextmanager
    def noted(*args: Any) -> Iterator[list[Any]]:
        with real(*args) as axes:
            yield axes
            found.extend(axes)

    monkeypatch.setattr(report, "figure_of", noted)
    return found


def test_curves_hold_both_losses_the_metrics_and_the_rate(tmp_path: Path, drawn: list[Any]) -> None:
    history = {"step": [1, 2], "lr": [0.1, 0.2], "train/loss": [3, 2], "train/box": [1, 1], "loss": [4, 3], "AP": [0.1, 0.2]}
    report.training_curves(tmp_path / "a.png", history, ["AP", "AP50", "loss"])
    assert [axis.get_title() for axis in drawn] == ["loss", "AP", "learning rate"]
    lines = [{line.get_label(): list(line.get_ydata()) for line in axis.lines} for axis in drawn]
    assert lines[0] == {"training": [3, 2], "validation": [4, 3]}
    assert lines[1] == {"validation": [0.1, 0.2]}
    assert [axis.get_ylabel() for axis in drawn] == ["mean loss", "AP (0 to 1)", "learning rate per step"]
    assert {axis.get_xlabel() for axis in drawn} == {"step (update of the weights)"}


def test_a_history_without_losses(tmp_path: Path, drawn: list[Any]) -> None:
    report.training_curves(tmp_path / "a.png", {"step": [1], "AP": [0.5]}, ["AP"])
    assert [axis.get_title() for axis in drawn] == ["AP"]
    report.training_curves(tmp_path / "b.png", {"step": []}, ["AP"])
    assert (tmp_path / "b.png").is_file()


def test_every_axis_has_a_label_and_names_may_hold_anything(tmp_path: Path, drawn: list[Any]) -> None:
    classes = ["$a_{$", "b\x1b[31m", "c\n"]
    p, truth = np.full((4, 3), 0.5), np.eye(3, dtype=bool)[[0, 1, 2, 0]]
    curve = (np.array([0.5, 1.0]), np.array([1.0, 0.5]), 0.75)
    report.confusion(tmp_path / "a.png", np.eye(3, dtype=int), classes)
    report.probability_distributions(tmp_path / "b.png", p, truth, np.ones_like(truth), classes)
    report.pr_curve(tmp_path / "c.png", dict.fromkeys(classes, curve))
    report.training_curves(tmp_path / "d.png", {"step": [1], "mIoU": [0.5]}, ["mIoU"])
    report.confusion(tmp_path / "e.png", np.eye(3, dtype=int), classes, percent=True)
    report.class_iou(tmp_path / "f.png", np.array([0.5, np.nan, 1]), classes)
    assert len(drawn) == 1 + 3 + 1 + 1 + 1 + 1
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in drawn)
