"""The steps are saved before they are evaluated: whatever ends an evaluation costs no step, and the resume evaluates again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import write_config
from support import equal, final_state

from ddptrain.cli import main
from ddptrain.engine import trainer

RUN = ("eval.every_steps=2", "checkpoint.every_steps=2", "checkpoint.monitor=[loss]")


@pytest.fixture
def config(small_data: Callable[[str], Path], tmp_path: Path) -> str:
    return str(write_config("classification", small_data("classification"), tmp_path))


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int, error: Exception) -> None:
    """Let the evaluation of that number fail."""
    evaluate, calls = trainer.evaluate, iter(range(100))

    def failing(*args: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise error
        return evaluate(*args, **options)

    monkeypatch.setattr(trainer, "evaluate", failing)


@pytest.mark.parametrize("number", [0, 1])
def test_an_evaluation_that_fails_costs_no_step(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    train = ["train", config, *RUN, "train.steps=4"]
    assert main([*train, "name=calm"]) == 0
    fail_at(monkeypatch, number, OSError(errno.EMFILE, "Too many open files"))
    assert main([*train, "name=broken"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("ddptrain: failed: too many open files: only ")
    assert line.endswith("files may be open at once; raise the limit (ulimit -n 1024) and start again with resume=auto")
    run = tmp_path / "broken"
    state = final_state(run)
    assert (state["step"], state["unjudged"]) == (2 * number + 2, True)
    assert main([*train, "name=broken", "resume=auto"]) == 0
    equal(final_state(tmp_path / "calm"), final_state(run))
    for name in ("best.pt", "best_loss.pt", "last.pt"):
        assert (run / "checkpoints" / name).readlink() == (tmp_path / "calm" / "checkpoints" / name).readlink()
    assert (run / "history.csv").read_text() == (tmp_path / "calm" / "history.csv").read_text()


def test_a_stop_does_not_wait_for_an_evaluation(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddptrain.engine.stop.StopFlag.requested", True)
    monkeypatch.setattr(trainer, "evaluate", None)
    with monkeypatch.context() as m:
        m.setattr("ddptrain.engine.stop.StopFlag.reason", "SIGTERM")
        assert main(["train", config, "eval.every_steps=1"]) == 75
    state = final_state(tmp_path / "run")
    assert (state["step"], state["unjudged"]) == (1, True)
