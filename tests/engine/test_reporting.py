"""What a run tells from its first step on, and what its history holds."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import cut_back, train

from ddptrain.engine.reporting import is_early


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_early_steps_come_at_growing_intervals() -> None:
    assert [n for n in range(1, 600) if is_early(n)] == [1, 2, 5, 10, 20, 50, 100, 200, 500]


def test_the_first_steps_are_reported_with_time_and_memory_also_after_a_resume(
    small_config: Callable[[str], Path], tmp_path: Path
) -> None:
    config, run = small_config("classification"), ("train.steps=13", "monitor.every_steps=12", "checkpoint.every_steps=7")
    log = train(1, config, *run, "checkpoint.keep_last=9")
    assert re.findall(r"step (\d+)/13", log) == ["1", "2", "5", "10", "12", "13"]
    assert re.search(r"^first step: \d+\.\d\d s, \d+\.\d\d s of it waiting for data; memory \d+\.\d\d GB$", log, re.M)
    assert log.index("first step: ") < log.index("step 1/13")
    cut_back(tmp_path / "run", tmp_path / "cut", 7)
    log = train(1, config, *run, "name=cut", "resume=auto")
    assert re.findall(r"step (\d+)/13", log) == ["8", "9", "12", "13"]


def test_losses_of_training_and_validation_and_the_rate_are_in_the_history(config: Path, tmp_path: Path) -> None:
    """The same on one rank and on two, and in a run that continues under another name. Other tasks: tests/distributed."""
    run = ("train.steps=6", "eval.every_steps=2", "checkpoint.every_steps=1", "checkpoint.keep_last=9", "model.norm=none")
    train(1, config, "name=one", *run)
    train(2, config, "name=two", "train.micro_batch=6", "eval.batch=12", *run)
    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two] == ["2", "4", "6"]
    parts = [name for name in one[0] if name.startswith("train/") and name != "train/loss"]
    assert parts
    for a, b in zip(one, two):
        assert float(a["train/loss"]) == pytest.approx(sum(float(a[name]) for name in parts))
        for name in ("lr", "train/loss", "loss", *parts):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-3), name
            assert math.isfinite(float(a[name]))
    cut_back(tmp_path / "one", tmp_path / "cut", 3)  # between two evaluations
    checkpoint = tmp_path / "cut" / "checkpoints" / "step_00000003.pt"
    train(1, config, "name=new", f"resume={json.dumps(str(checkpoint))}", *run)
    assert (tmp_path / "new" / "history.csv").read_text() == (tmp_path / "one" / "history.csv").read_text()
