"""What a run tells TensorBoard, Weights & Biases and MLflow, read back from their files: also of a run that was killed and
resumed, without a network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Ranks, command_line, train
from tracked import mlflow_history, raw_scalars

RUN = (
    "monitor.trackers=[tensorboard, wandb, mlflow]", "train.steps=8", "monitor.every_steps=2", "monitor.images=2",
    "eval.every_steps=4", "checkpoint.every_steps=4",
)  # fmt: skip


def _killed(where: str, step: int, arguments: list[str]) -> int:
    """In a rank: train, and be killed at the end of this method of the reporter at a step."""
    from ddptrain.engine.reporting import RunReporter

    proper = getattr(RunReporter, where)

    def killed(self: RunReporter, state: Any, *known: Any) -> None:
        proper(self, state, *known)
        if state.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(RunReporter, where, killed)
    return command_line(["train", *arguments])


def test_a_run_that_is_killed_and_resumed_leaves_no_doubled_or_missing_step(
    small_config: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed once between an evaluation and the save of its outcome, so that it comes again, and once between two saves."""
    pytest.importorskip("wandb", reason="pip install 'ddptrain[wandb]'")
    pytest.importorskip("mlflow", reason="pip install 'ddptrain[mlflow]'")
    from ddptrain.reporting.trackers.wandb_files import offline_rows

    monkeypatch.setenv("WANDB_MODE", "offline")
    arguments = [str(small_config("detection")), *RUN]
    assert Ranks(1, _killed, "after_evaluation", 4, arguments).wait() == [-signal.SIGKILL]
    assert Ranks(1, _killed, "after_step", 7, [*arguments, "resume=auto"]).wait() == [-signal.SIGKILL]
    log = train(1, Path(arguments[0]), *RUN, "resume=auto")
    assert "warning: wandb" not in log
    assert "warning: mlflow" not in log
    run = tmp_path / "run"
    train_steps, val_steps = [2, 4, 6, 8], [4, 8]
    points = raw_scalars(run / "tensorboard")
    for tag in ("train/loss", "optim/lr/bias", "optim/gradient_norm/head", "data/streets/loss", "time/data_wait"):
        assert points[tag] == train_steps, tag
    for tag in ("val/AP", "data/streets/val/AP", "val/truth and prediction", "val/precision over recall/all"):
        assert points[tag] == val_steps, tag
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for kind, steps in (("train", train_steps), ("val", val_steps)):
        assert [row["step"] for row in lines if row["kind"] == kind] == steps
    history = list(offline_rows(run))
    assert [row["step"] for row in history if "train/loss" in row] == train_steps
    assert [row["step"] for row in history if "val/AP" in row] == val_steps
    told = [row["train/loss"] for row in lines if row["kind"] == "train"]
    assert [row["train/loss"] for row in history if "train/loss" in row] == told
    metrics = mlflow_history(run)
    assert metrics["train/loss"] == metrics["optim/lr.bias"] == train_steps
    assert metrics["val/AP"] == metrics["data/streets.val.AP"] == val_steps


def test_nothing_of_a_tracker_is_imported_that_is_not_asked_for(small_config: Callable[[str], Path], tmp_path: Path) -> None:
    code = """
import sys
from ddptrain.cli import main
for name, trackers in (("none", "[]"), ("some", "[mlflow]")):
    assert main(["train", sys.argv[1], "train.steps=2", f"name={name}", f"monitor.trackers={trackers}"]) == 0
    print("imported", *(m for m in ("tensorboard", "torch.utils.tensorboard", "wandb", "mlflow") if m in sys.modules))
"""
    pytest.importorskip("mlflow", reason="pip install 'ddptrain[mlflow]'")
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_config("classification"))], capture_output=True, text=True, check=True
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("imported")] == ["imported", "imported mlflow"]
    assert not (tmp_path / "none" / "trackers.json").exists()
    assert not (tmp_path / "some" / "tensorboard").exists()


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(
    small_config: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ddptrain.cli import main
    from ddptrain.reporting.trackers import build

    monkeypatch.setattr(build, "find_spec", lambda name: None)
    assert main(["train", str(small_config("classification")), "monitor.trackers=[tensorboard, wandb]"]) == 2
    assert "monitor.trackers: wandb is not installed; pip install 'ddptrain[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
