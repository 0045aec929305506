"""The state of a run that has not begun."""

from __future__ import annotations

from pathlib import Path

from ddptrain import distributed
from ddptrain.config import load_config
from ddptrain.config.batch import split_batch
from ddptrain.engine.build import build_state
from ddptrain.engine.state import RunState
from ddptrain.tasks.build import build_task


def state_of(config: Path, *overrides: str) -> RunState:
    run = load_config(config, ["train.steps=null", "train.epochs=10", *overrides])
    return build_state(build_task(run), distributed.discover("cpu", {}), split_batch(run.train.global_batch, 12, 1))
