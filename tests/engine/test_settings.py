"""The block at the start of a log: the values that are used, as they come out of the config."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddptrain import distributed
from ddptrain.config import OptimizerConfig, RunConfig, load_config
from ddptrain.config.batch import split_batch
from ddptrain.engine.build import build_state
from ddptrain.engine.start_report import groups, settings
from ddptrain.engine.state import RunState
from ddptrain.optim.build import used_decay
from ddptrain.tasks.build import build_task


@pytest.fixture
def shapes(small_config: object) -> Path:
    return small_config("classification")  # type: ignore[operator, no-any-return]


def built(path: Path, *overrides: str) -> tuple[RunConfig, RunState]:
    config = load_config(path, overrides)
    split = split_batch(config.train.global_batch, config.train.micro_batch, 1)
    return config, build_state(build_task(config), distributed.discover("cpu"), split)


def test_what_is_used_is_reported(shapes: Path) -> None:
    sgd = ("train.steps=null", "train.epochs=4", "data.samples_per_epoch=60", "schedule.warmup_epochs=1")
    config, state = built(shapes, *sgd, "optimizer={name: sgd, lr: 0.01, momentum: 0.9}", "freeze=[model.0]")
    assert list(settings(state, config.train, config.eval, config.checkpoint)) == [
        "20 steps = 4 epochs of 60 samples, 5 steps each",
        "optimizer sgd, peak lr 0.01, schedule one_cycle to lr 0.0001 at the last step",
        "warm-up over the first 5 steps: lr from 0, of biases from 0.1, momentum from 0.8 to 0.9",
        "weight decay 9.375e-05 = 0.0005 x global batch 12 / nominal batch 64: the same decay per sample at any batch size "
        "(optimizer.scale_weight_decay=true; false and yolo take other rules)",
        "average of the weights: decay (1 + step) / (10 + step) up to 0.9999, 0.7 at the end",
    ]
    rows = groups(state)
    assert [row[0] for row in rows] == ["weight", "bias", "not trained"]
    assert [row[-1] for row in rows] == ["9.375e-05", "0", "-"]
    assert rows[0][1:3] == [4, sum(p.numel() for p in state.optimizer.param_groups[0]["params"])]
    assert sum(int(row[2]) for row in rows) == sum(p.numel() for p in state.model.parameters())


def test_what_is_not_used_is_reported(shapes: Path) -> None:
    config, state = built(shapes, "train.epochs=40", "eval.every_epochs=2", "eval.every_steps=3", "ema.enabled=false")
    lines = list(settings(state, config.train, config.eval, config.checkpoint))
    assert lines[0].endswith(
        "not used: train.epochs=40 (train.steps is given), eval.every_epochs=2 (eval.every_steps is given)"
    )
    assert lines[-1] == "no average of the weights (ema.enabled=false)"
    config, state = built(shapes, "optimizer={weight_decay: 0}", "schedule.warmup_epochs=0")
    assert {"weight decay 0", "no warm-up"} < set(settings(state, config.train, config.eval, config.checkpoint))


def test_a_plateau_that_no_evaluation_can_see_is_reported(shapes: Path) -> None:
    plateau = ("schedule={name: plateau, patience: 3}", "eval.every_steps=2")
    config, state = built(shapes, *plateau)
    (rates,) = (line for line in settings(state, config.train, config.eval, config.checkpoint) if "plateau" in line)
    assert rates.endswith("each time 3 evaluations bring no better accuracy (schedule.name=plateau), 0.002 now")
    config, state = built(shapes, "schedule={name: plateau}", "eval={every_epochs: null, every_steps: null}")
    (rates,) = (line for line in settings(state, config.train, config.eval, config.checkpoint) if "plateau" in line)
    assert rates.endswith("it is never lowered, since the only evaluation is at the end (see eval.every_epochs)")


@pytest.mark.parametrize(
    ("rule", "batch", "decay", "words"),
    [
        (True, 16, 1.25e-4, "0.0005 x global batch 16 / nominal batch 64: the same decay per sample at any batch size"),
        ("yolo", 16, 5e-4, "0.0005 x global batch 16 x accumulate 4 / nominal batch 64 (optimizer.scale_weight_decay=yolo)"),
        ("yolo", 24, 5e-4 * 72 / 64, "accumulate 3"),
        ("yolo", 128, 1e-3, "accumulate 1"),
        (False, 16, 5e-4, "as given (optimizer.scale_weight_decay=false)"),
    ],
)
def test_rules_of_the_decay(rule: bool, batch: int, decay: float, words: str) -> None:
    """YOLO's own: decay x batch x accumulate / 64, accumulate = max(round(64 / batch), 1)."""
    used, reason = used_decay(OptimizerConfig(scale_weight_decay=rule), batch)
    assert used == pytest.approx(decay)
    assert words in reason
