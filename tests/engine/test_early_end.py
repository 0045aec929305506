"""A run that ends before its last step says so wherever its end is read; an undefined metric is no reason to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from run_states import state_of
from support import summary, train

from ddptrain.system.status import read_status

NAN = float("nan")


def test_only_a_defined_metric_costs_patience(config: Path) -> None:
    state = state_of(config, "eval.every_steps=1", "train.patience=2")
    assert state.judge({"AP": 0.5}) == ["AP"]
    for value, stale in ((NAN, 0), (0.4, 1), (NAN, 1)):
        assert state.judge({"AP": value}) == []
        assert (state.stale, state.early_end) == (stale, "")
    state.judge({"AP": 0.5})
    assert state.early_end == "no better AP than 0.5 in 2 evaluations (train.patience=2)"
    state.step = state.steps
    assert state.early_end == ""


def test_no_metric_at_all_never_ends_a_run(config: Path) -> None:
    state = state_of(config, "eval.every_steps=1", "train.patience=1")
    assert state.judge({"AP": NAN}) == state.judge({"AP": NAN}) == []
    assert not state.out_of_patience


def test_the_end_by_patience_is_reported_everywhere_and_can_be_taken_back(
    small_config: Callable[[str], Path], tmp_path: Path
) -> None:
    config, run = small_config("classification"), tmp_path / "run"
    keys = ("train.steps=9", "eval.every_steps=1", "optimizer={name: sgd, lr: 1.0e-9}", "ema.enabled=false")
    log = train(1, config, *keys, "train.patience=2")
    why = f"no better accuracy than {summary(run)['best']:.4g} in 2 evaluations (train.patience=2)"
    assert f"finished at step 3 of 9: {why}; resume=auto with a larger train.patience continues it" in log
    assert log.splitlines()[-1] in (run / "log.txt").read_text()
    status = read_status(run)
    assert status is not None
    assert (status.state, status.step, status.steps, status.reason) == ("finished", 3, 9, why)
    assert (summary(run)["steps"], summary(run)["reason"]) == (9, why)
    log = train(1, config, *keys, "train.patience=99", "resume=auto")
    assert f"finished at step 9; SHA-256 of the weights: {summary(run)['digest']}\n" in log
    assert (summary(run)["step"], summary(run)["reason"]) == (9, "")
