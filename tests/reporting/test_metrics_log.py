"""`metrics.jsonl`: its lines, and which of them a resumed run keeps."""

import json
import math
from pathlib import Path

import pytest

from ddptrain.reporting.metrics_log import NAME, TRAIN, VAL, MetricsLog, read_metrics


def written(path: Path) -> list[tuple[str, int]]:
    return [(row["kind"], row["step"]) for row in read_metrics(path)]


def log(folder: Path, resumed: int | None = None, unjudged: bool = False) -> MetricsLog:
    made = MetricsLog(folder / NAME, resumed, unjudged)
    made.settle()
    return made


def test_a_line_for_each_interval_and_evaluation(tmp_path: Path) -> None:
    own = log(tmp_path)
    own.append(TRAIN, 50, {"train/loss": 2.5, "optim/lr/bias": 0.1})
    own.append(VAL, 50, {"val/AP": math.nan, "val/class/é/AP": 0.5})
    rows = [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()]
    assert [row.pop("seconds") > 1.7e9 for row in rows] == [True, True]
    assert rows == [
        {"kind": "train", "step": 50, "train/loss": 2.5, "optim/lr/bias": 0.1},
        {"kind": "val", "step": 50, "val/AP": None, "val/class/é/AP": 0.5},
    ]


@pytest.mark.parametrize("unjudged", [False, True])
def test_a_resumed_run_drops_what_comes_again(tmp_path: Path, unjudged: bool) -> None:
    """An evaluation of the checkpoint's own step comes again where its outcome was not saved."""
    own = log(tmp_path)
    for step in (2, 4, 6):
        own.append(TRAIN, step, {})
        own.append(VAL, step, {})
    with (tmp_path / NAME).open("a") as file:
        file.write('not a line\n{"kind": "train", "step": 8, "tr')
    again = log(tmp_path, 4, unjudged)
    assert again.faults == 1
    assert written(tmp_path) == [("train", 2), ("val", 2), ("train", 4), *([] if unjudged else [("val", 4)])]
    log(tmp_path)
    assert written(tmp_path) == []


def test_other_ranks_keep_nothing(tmp_path: Path) -> None:
    own = MetricsLog(None)
    own.settle()
    own.append(TRAIN, 1, {"train/loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_recounted_steps_are_renumbered(tmp_path: Path) -> None:
    """The checkpoint of step 20 is of step 5 now; what was later is dropped by the numbers of before."""
    own = log(tmp_path)
    for step in (4, 8, 20, 21):
        own.append(TRAIN, step, {"train/loss": float(step)})
    MetricsLog(tmp_path / NAME, 5, counted=20).settle()
    assert [(row["step"], row["train/loss"]) for row in read_metrics(tmp_path)] == [(1, 4.0), (2, 8.0), (5, 20.0)]
