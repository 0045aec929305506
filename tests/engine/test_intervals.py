"""Lengths and intervals in epochs are exact, and an evaluation is of weights that were not evaluated before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from small_runs import write_config
from support import final_state

from ddptrain.cli import main
from ddptrain.config import EvalConfig, TrainConfig
from ddptrain.engine import trainer
from ddptrain.engine.reporting import RunReporter
from ddptrain.engine.state import RunState
from ddptrain.engine.step import Stepper
from ddptrain.engine.step_report import StepReport
from ddptrain.tasks.stream import run_length


@pytest.mark.parametrize(("epochs", "batch", "steps"), [(1.1, 10, 11), (2.2, 10, 22), (0.55, 1, 55), (1.0, 30, 4)])
def test_a_run_has_the_steps_of_its_epochs(epochs: float, batch: int, steps: int) -> None:
    """In floats 1.1 x 100 is more than 110."""
    assert run_length(TrainConfig(epochs=epochs, global_batch=batch), 100) == steps


def test_an_interval_in_epochs_is_exact() -> None:
    section = EvalConfig(every_epochs=1.1)

    def due(position: int) -> bool:
        state = SimpleNamespace(samples_per_epoch=100, position=position, split=SimpleNamespace(global_batch=10))
        return trainer.due(section, cast("RunState", state))

    assert [n for n in range(10, 450, 10) if due(n)] == [110, 220, 330, 440]


def test_a_skipped_step_has_nothing_to_evaluate(
    small_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch of one step, and two steps that are skipped: their epochs end with the weights of the one before."""
    config = str(write_config("classification", small_data("classification"), tmp_path))
    monkeypatch.setattr(RunReporter, "report", lambda *_: None)
    monkeypatch.setattr(RunReporter, "write_page", lambda *_: None)
    judged: list[int] = []
    read, judge, calls = Stepper.read, RunState.judge, iter(range(100))

    def skip(self: Stepper, launched: Any) -> StepReport:
        report = read(self, launched)
        report.updated = next(calls) not in (2, 3)
        report.overflow = not report.updated
        return report

    def note(self: RunState, metrics: Any) -> list[str]:
        judged.append(self.step)
        return judge(self, metrics)

    monkeypatch.setattr(Stepper, "read", skip)
    monkeypatch.setattr(RunState, "judge", note)
    epoch = ("data.samples_per_epoch=4", "train.global_batch=4", "train.micro_batch=null", "eval.every_epochs=1")
    assert main(["train", config, *epoch, "train.steps=4"]) == 0
    assert judged == [1, 2, 3, 4]
    state = final_state(tmp_path / "run")
    assert (state["skipped"], state["judged"]) == (2, 4)
