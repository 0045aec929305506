"""The promise: how a global batch is split over ranks and accumulation steps does not change what is learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import RUNS
from support import Ranks, command_line, final_state, largest_difference, relative_difference, train

from ddptrain.config import load_config
from ddptrain.tasks.build import build_task

STEPS = 10
# (ranks, micro batch); the accumulation is what lacks to 16
SPLITS = [(1, 16), (1, 4), (2, 8), (2, 4), (4, 4), (4, 2)]
# clipping must bite, the average and the warm-up must matter in ten steps; sgd, since Adam divides rounding by rounding
EVERYTHING = (
    "train.clip_norm=1.0",
    "optimizer.name=sgd",
    "optimizer.lr=0.01",
    "optimizer.weight_decay=0.01",
    "schedule.warmup_epochs=2",
    "ema.tau=5.0",
)


@pytest.mark.parametrize("task", RUNS)
def test_ranks_and_accumulation_do_not_change_the_parameters(
    small_config: Callable[[str], Path], tmp_path: Path, task: str
) -> None:
    config, states = small_config(task), {}
    for world_size, micro in SPLITS:
        name = f"{world_size}x{micro}x{16 // (world_size * micro)}"
        batch = ("train.global_batch=16", f"train.micro_batch={micro}")
        train(world_size, config, f"name={name}", *RUNS[task].exact, *EVERYTHING, f"train.steps={STEPS}", *batch)
        states[name] = final_state(tmp_path / name)
    (_, first), *others = states.items()
    for name, other in others:
        assert relative_difference(first["model"], other["model"]) < 1e-5, name
        assert relative_difference(first["ema"], other["ema"]) < 1e-5, name
        assert other["position"] == first["position"] == STEPS * 16
        assert other["samples_by_dataset"] == first["samples_by_dataset"]


def test_an_epoch_that_does_not_divide_leaves_no_rest(config: Path, tmp_path: Path) -> None:
    """Two epochs of 16 samples in steps of 12: the run is three whole steps, the middle one in both, for any split."""
    states = []
    for world_size, micro in ((1, 12), (2, 3)):
        name = f"w{world_size}"
        options = ("train.steps=null", "train.epochs=2", "data.samples_per_epoch=16", f"train.micro_batch={micro}")
        train(world_size, config, f"name={name}", "model.norm=none", *options)
        states.append(final_state(tmp_path / name))
        assert (states[-1]["step"], states[-1]["position"], sum(states[-1]["samples_by_dataset"])) == (3, 36, 36)
    assert relative_difference(states[0]["model"], states[1]["model"]) < 1e-5


def test_sync_norm_over_two_ranks_is_one_rank(config: Path, tmp_path: Path) -> None:
    """With the same accumulation: statistics over 2 x 8 samples are those over 16."""
    states = []
    for world_size in (1, 2):
        batch = ("train.global_batch=16", f"train.micro_batch={16 // world_size}")
        train(world_size, config, f"name=w{world_size}", "model.norm=sync", *EVERYTHING, "train.steps=3", *batch)
        states.append(final_state(tmp_path / f"w{world_size}"))
    assert largest_difference(states[0]["model"], states[1]["model"]) < 1e-5


@pytest.mark.parametrize("task", RUNS)
def test_metric_is_the_same_on_one_two_and_three_ranks(small_config: Callable[[str], Path], tmp_path: Path, task: str) -> None:
    """Same weights, unpadded shards: exactly equal metrics, also where some rank has no sample at all."""
    config, found = small_config(task), []
    train(1, config, "name=one", "train.steps=20")
    known = build_task(load_config(config))
    half = -(-sum(size for _, size in known.val) // 2)
    for world_size in (1, 2, 3):
        # two groups: the third rank has none
        ranks = Ranks(world_size, command_line, ["eval", str(tmp_path / "one"), f"eval.batch={half}", "--json"])
        assert ranks.wait() == [0] * world_size, ranks.text
        found.append(ranks.text)
    assert json.loads(found[0])[known.monitors[0]] is not None
    assert found[0] == found[1] == found[2]
