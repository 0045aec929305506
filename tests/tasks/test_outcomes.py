"""What each task keeps of an evaluation gives its metrics again, and a report needs no second evaluation."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddptrain import distributed
from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.engine.evaluate import Evaluation, evaluate
from ddptrain.metrics.outcome import FILE, Outcome, read_outcome, write_outcome
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task

TASKS = {
    "detection": [],
    "classification": [],
    "several": ["loss={name: bce}", "data.balance=none"],
    "segmentation": [],
    "interaction": [],
}


def untrained(config: Path, overrides: list[str]) -> tuple[Task, Evaluation, Outcome]:
    """An evaluation of fresh weights."""
    task = build_task(load_config(config, overrides))
    torch.manual_seed(0)
    evaluation = evaluate(task, task.build_model(), distributed.discover("cpu", {}))
    outcome = task.outcome(evaluation.predictions, evaluation.metrics, {"step": 0, "weights": "last"})
    assert outcome is not None
    return task, evaluation, outcome


@pytest.mark.parametrize("name", TASKS)
def test_each_image_once_gives_the_tasks_metrics(small_config: Callable[[str], Path], name: str) -> None:
    task, evaluation, outcome = untrained(small_config("classification" if name == "several" else name), TASKS[name])
    once = outcome.resample(np.ones((len(outcome.images), 1), np.float32), outcome.keys)
    assert {k: float(v[0]) for k, v in once.items()} == pytest.approx(
        {k: evaluation.metrics[k] for k in once}, abs=1e-6, nan_ok=True
    )
    assert outcome.keys[0] in (task.monitors[0], "f1")
    assert [np.sum(outcome.dataset == i) for i in range(len(outcome.datasets))] == [len(t) for t in task.val_samples.tables]  # type: ignore[attr-defined]


def test_a_report_on_a_validation_set_without_a_box(
    small_config: Callable[[str], Path], small_data: Callable[[str], Path]
) -> None:
    val = f"{{name: s, format: voc, root: {small_data('detection')}/streets, split: val, drop: [car, bus]}}"
    task, evaluation, outcome = untrained(small_config("detection"), [f"data.val=[{val}]"])
    assert not outcome.truth()
    titles = [section.title for section in task.view.sections(evaluation.predictions, outcome)]
    assert {"Errors", "Suspected labels"} <= set(titles)


@pytest.fixture
def trained(small_config: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> Path:
    """A run folder of detection."""
    assert main(["train", str(small_config("detection")), "monitor.tensorboard=true", "monitor.images=0"]) == 0
    capsys.readouterr()
    return small_config("detection").parent / "run"


@pytest.mark.usefixtures("figures")
def test_a_run_keeps_its_evaluation_and_reports_from_it(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary, kept = json.loads((trained / "summary.json").read_text()), read_outcome(trained)
    assert kept.metrics["AP"] == summary["AP"]
    assert kept.about == {"step": 6, "weights": "best", "digest": summary["digest"]}
    report = {p.name for p in (trained / "report").iterdir()}
    drawn = {f"{n}.png" for n in ("pr_curve", "confidence_curves", "confusion_matrix", "calibration", "errors", "breakdown")}
    assert drawn | {"training_curves.png", "evaluation_report.txt", "suspected_labels.csv", "worst_misses.jpg"} <= report
    assert "95 % interval" in (trained / "report/evaluation_report.txt").read_text()
    events = b"".join(p.read_bytes() for p in (trained / "tensorboard").iterdir())
    assert all(f"report/{name.split('.')[0]}".encode() in events for name in drawn)
    # eval writes the same again, and shows intervals
    (trained / FILE).unlink()
    assert main(["eval", str(trained)]) == 0
    assert "with 95 % intervals over images" in capsys.readouterr().out
    again = read_outcome(trained)
    assert again.truth() == kept.truth()
    assert again.metrics["AP"] == pytest.approx(kept.metrics["AP"], abs=1e-6)
    assert again.about == kept.about
    # another config than the run's own leaves it alone
    before = (trained / FILE).read_bytes()
    assert main(["eval", str(trained), "eval.max_detections=1", "--json", "--save", str(trained / "one.npz")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["interval/AP/low"] is None or found["interval/AP/low"] <= found["interval/AP/high"]
    assert (trained / FILE).read_bytes() == before
    assert main(["compare", str(trained), str(trained / "one.npz")]) == 0

    def refuse(*_: Any) -> None:
        raise AssertionError("evaluated again")

    monkeypatch.setattr("ddptrain.commands.report.evaluate_checkpoint", refuse)
    assert main(["report", str(trained), "--out", str(trained / "second")]) == 0
    assert f"from {trained / FILE}" in capsys.readouterr().out
    assert {p.name for p in (trained / "second").iterdir()} == report
    # of the same step, but of other weights
    write_outcome(trained / FILE, replace(kept, about=kept.about | {"digest": "0" * 64}))
    with pytest.raises(AssertionError, match="evaluated again"):
        main(["report", str(trained)])


def test_the_csv_names_file_and_box(small_config: Callable[[str], Path], tmp_path: Path) -> None:
    """A label that is removed from the truth is suspected to be missing, where it was."""
    from ddptrain.tasks.detection.report import DetectionReport

    task, _, _ = untrained(small_config("detection"), [])
    table: Any = task.val_sets[0].table  # type: ignore[attr-defined]
    answers = []
    for data in task.val_sets:  # type: ignore[attr-defined]
        of = {}
        for i in range(len(data.table)):
            rows = data.table.rows(i)
            learned = ~(data.table.ignore[rows] | data.table.crowd[rows])
            boxes, labels = data.table.boxes[rows][learned], data.table.labels[rows][learned]
            of[i] = {"boxes": boxes, "labels": labels.astype(np.int64), "scores": np.full(len(labels), 0.9, np.float32)}
        answers.append(of)
    image = next(i for i, p in answers[0].items() if len(p["labels"]) > 2)
    row = table.rows(image).start + int(np.flatnonzero(~(table.ignore | table.crowd)[table.rows(image)])[0])
    removed = table.boxes[row].copy()
    task.val_sets[0] = task.val_sets[0]._replace(table=table.keep_rows(np.arange(len(table.labels)) != row))  # type: ignore[attr-defined]
    outcome: Any = task.outcome(answers, task.metrics(answers), {})
    rows = list(csv.DictReader(DetectionReport(outcome, lambda _: np.zeros((9, 9, 3), np.uint8)).suspects_csv().splitlines()))
    first = rows[0]
    assert first["kind"] == "box missing"
    assert table.path(image).endswith(first["file"])
    assert [float(first[f"detected_{v}"]) for v in ("x1", "y1", "x2", "y2")] == pytest.approx(removed, abs=0.06)
