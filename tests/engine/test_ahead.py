"""Steps that the device updates by itself, launched before the one before them is read: the same run as step by step.

The CPU computes by the same code what a GPU would, so that both can be compared to the last bit; the average alone is added
up by other calls.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import Ranks, command_line, free_port

import ddptrain
from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.engine import step as step_module
from ddptrain.engine.state import RunState
from ddptrain.engine.step import Stepper
from ddptrain.engine.step_report import Launched
from ddptrain.engine.stop import StopFlag
from ddptrain.structures import Batch, LossSum

BAD = {2, 3, 7, 12}
"""Steps, counted from 0 and with the skipped ones, whose sums are not finite."""


def _spoil(patch: pytest.MonkeyPatch, batch: int) -> None:
    proper = Stepper._sums

    def sums(self: Stepper, samples: Batch, loss: LossSum, stop: bool) -> torch.Tensor:
        row = proper(self, samples, loss, stop)
        if int(samples.keys[0, 0]) // batch in BAD:
            row[0] = math.nan
        return row

    patch.setattr(Stepper, "_sums", sums)


def _trained(config: Path, name: str, patch: pytest.MonkeyPatch, gated: bool, *overrides: str) -> tuple[Path, int]:
    """The folder of a run, and how many steps were launched before the one before was read."""
    patch.setattr(step_module, "device_decides", lambda device, precision, optimizer: gated)
    ahead, proper = [], RunState.launch

    def launch(self: RunState, batches: Any, stop: bool = False, after: Launched | None = None) -> Launched:
        ahead.append(after is not None)
        return proper(self, batches, stop, after)

    with patch.context() as p:
        p.setattr(RunState, "launch", launch)
        run = ddptrain.train(config, f"name={name}", "train.max_bad_steps=5", *overrides)
    return Path(run.folder), sum(ahead)


@pytest.mark.parametrize("micro_batch", [6, 12])
def test_the_run_is_the_same(
    small_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, micro_batch: int
) -> None:
    _spoil(monkeypatch, 12)
    overrides = (
        f"train.micro_batch={micro_batch}", "optimizer={name: adamw, lr: 0.001}", "model.norm=batch", "train.steps=14",
        "checkpoint={every_steps: 5, keep_last: 9}", "eval.every_steps=7", "train.clip_norm=1", "schedule.warmup_epochs=2",
    )  # fmt: skip
    config = small_config("detection")
    (plain, none), (gated, ahead) = (_trained(config, n, monkeypatch, n == "gated", *overrides) for n in ("plain", "gated"))
    assert none == 0
    assert ahead >= 8
    assert (plain / "steps.csv").read_text() == (gated / "steps.csv").read_text()
    for step in (5, 10, 14):
        one, other = (load_checkpoint(folder / "checkpoints" / f"step_{step:08d}.pt").state for folder in (plain, gated))
        assert one["skipped"] == {5: 2, 10: 4, 14: 4}[step]
        assert [k for k in one["model"] if not torch.equal(one["model"][k], other["model"][k])] == []
        torch.testing.assert_close(one["ema"], other["ema"])
        for number, values in one["optimizer"]["state"].items():
            assert [k for k, v in values.items() if not torch.equal(v, other["optimizer"]["state"][number][k])] == []
        assert one["optimizer"]["param_groups"] == other["optimizer"]["param_groups"]
        for key in ("position", "normalizer", "parts", "updates", "loss_by_dataset", "samples_by_dataset"):
            assert one[key] == other[key], key
    evidence = [sorted(path.name for path in (folder / "bad_steps").iterdir()) for folder in (plain, gated)]
    assert evidence[0] == evidence[1]
    weights = [torch.load(folder / "bad_steps" / evidence[0][0])["model"] for folder in (plain, gated)]
    assert [k for k in weights[0] if not torch.equal(weights[0][k], weights[1][k])] == []


WAYS = {
    **{f"{way}-{how}": (how == "gated", f"train.reduction={way}") for way in ("ordered", "fast") for how in ("plain", "gated")},
    "stopped": (True,),
    "resumed": (True, "name=stopped", "resume=auto"),
}
"""Runs by name: whether the device decides, and overrides."""


def _all_ways(arguments: list[str], ports: list[int]) -> int:
    """In a rank. Only rank 1 sees what is not finite, in its last micro batch, and only it is told to stop."""
    proper, due = Stepper._sums, StopFlag.is_due

    def sums(self: Stepper, samples: Batch, loss: LossSum, stop: bool) -> torch.Tensor:
        row = proper(self, samples, loss, stop)
        step, micro_batch = divmod(int(samples.keys[0, 0]) // 3, 4)
        if step in BAD and micro_batch == 3:
            row[0] = math.nan
        return row

    def told(self: StopFlag, steps: int) -> bool:
        if steps == 6 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGUSR1)
        return due(self, steps)

    Stepper._sums = sums  # type: ignore[method-assign]
    for (name, (gated, *overrides)), port in zip(WAYS.items(), ports, strict=True):
        step_module.device_decides = lambda *known, gated=gated: gated
        StopFlag.is_due = told if name == "stopped" else due  # type: ignore[method-assign]
        os.environ["MASTER_PORT"] = str(port)
        if code := command_line(["train", *arguments, f"name={name}", *overrides]):
            return code
    return 0


def test_two_ranks_learn_the_same_whether_they_wait_for_each_step_or_not(
    small_config: Callable[[str], Path], tmp_path: Path
) -> None:
    keys = (
        "optimizer={name: adamw, lr: 0.001}", "model.norm=batch", "train.steps=8", "train.micro_batch=3", "ema.enabled=false",
        "train.max_bad_steps=5",
    )  # fmt: skip
    ranks = Ranks(2, _all_ways, [str(small_config("detection")), *keys], [free_port() for _ in WAYS])
    assert ranks.wait() == [0, 0], ranks.text
    last = {name: load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in WAYS if name != "resumed"}
    for way in ("ordered", "fast"):
        assert last[f"{way}-plain"].digest == last[f"{way}-gated"].digest
    assert last["stopped"].digest == last["ordered-plain"].digest
    assert {c.state["skipped"] for c in last.values()} == {3}
    log = (tmp_path / "stopped" / "log.txt").read_text()
    assert "SIGUSR1" in log


def test_a_stop_takes_effect_a_step_later_and_nothing_is_lost(
    small_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that was on its way is read, counted and saved."""
    config = small_config("detection")
    keys = ("optimizer={name: adamw, lr: 0.001}", "train.steps=9")
    whole, _ = _trained(config, "whole", monkeypatch, True, *keys)
    proper = StopFlag.is_due
    with monkeypatch.context() as patch:
        patch.setattr(StopFlag, "is_due", lambda self, steps: steps == 4 or proper(self, steps))
        patch.setattr(StopFlag, "reason", "SIGTERM")
        part, _ = _trained(config, "part", monkeypatch, True, *keys)
    assert load_checkpoint(part / "checkpoints" / "last.pt").step == 5
    _trained(config, "part", monkeypatch, True, *keys, "resume=auto")
    digests = [load_checkpoint(folder / "checkpoints" / "last.pt").digest for folder in (whole, part)]
    assert digests[0] == digests[1]


def test_what_follows_an_evaluation_is_never_stale(
    small_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The step after an evaluation has the lowered rate and the images of the new weights, though steps are launched ahead."""
    overrides = (
        "train.micro_batch=6", "optimizer={name: adamw, lr: 0.001}", "train.steps=9", "eval.every_steps=3", "data.workers=1",
        "schedule={name: plateau, patience: 1, factor: 0.5, threshold: 0.99, warmup_epochs: 0}", "eval.score_threshold=0.01",
        "data.balance=image_weights", "data.balance_by=ap", "ema.enabled=false",
    )  # fmt: skip
    config = small_config("detection")
    (plain, none), (gated, ahead) = (_trained(config, n, monkeypatch, n == "gated", *overrides) for n in ("plain", "gated"))
    assert (none, ahead >= 4) == (0, True)
    assert (plain / "steps.csv").read_text() == (gated / "steps.csv").read_text()
    one, other = (load_checkpoint(folder / "checkpoints" / "last.pt").state for folder in (plain, gated))
    assert one["digest"] == other["digest"]
    assert one["plateau"] == other["plateau"]
    assert one["balance"] == other["balance"]
    assert one["plateau"]["lowered"] >= 1
    assert one["balance"]["since"] == 9 * 12
