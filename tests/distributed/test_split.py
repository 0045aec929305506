"""The promise: how a global batch is split over ranks and accumulation steps does not change what is learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import RUNS
from support import final_state, in_turn, largest_difference, relative_difference, train

from ddptrain.config import load_config
from ddptrain.tasks.build import build_task

SmallConfig = Callable[[str], Path]
STEPS = 10
# (ranks, micro batch); the accumulation is what lacks to 16
SPLITS = [(1, 16), (1, 4), (2, 4), (4, 4)]
# clipping must bite, the average and the warm-up must matter in ten steps; sgd, since Adam divides rounding by rounding
EVERYTHING = (
    "train.clip_norm=1.0",
    "optimizer.name=sgd",
    "optimizer.lr=0.01",
    "optimizer.weight_decay=0.01",
    "schedule.warmup_epochs=2",
    "ema.tau=5.0",
)


@pytest.mark.timeout(1200)
def test_ranks_and_accumulation_do_not_change_the_parameters(small_config: SmallConfig, tmp_path: Path) -> None:
    """Of any task."""
    cases: dict[int, list[list[str]]] = {1: [], 2: [], 4: []}
    for task, run in RUNS.items():
        config = str(small_config(task))
        for world_size, micro in SPLITS:
            name = f"name={task}-{world_size}x{micro}"
            split = ("train.global_batch=16", f"train.micro_batch={micro}", f"train.steps={STEPS}")
            cases[world_size].append(["train", config, name, *run.exact, *EVERYTHING, *split])
    for world_size, commands in cases.items():
        in_turn(world_size, commands)
    for task in RUNS:
        first, *others = (final_state(tmp_path / f"{task}-{world_size}x{micro}") for world_size, micro in SPLITS)
        for split, other in zip(SPLITS[1:], others, strict=True):
            assert relative_difference(first["model"], other["model"]) < 1e-5, (task, split)
            assert relative_difference(first["ema"], other["ema"]) < 1e-5, (task, split)
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


@pytest.mark.timeout(900)
def test_metric_is_the_same_on_one_two_and_three_ranks(small_config: SmallConfig, tmp_path: Path) -> None:
    """Of any task, for the same weights: exactly equal metrics from unpadded shards, also where a rank has no sample at all."""
    in_turn(1, [["train", str(small_config(task)), f"name={task}", "train.steps=12"] for task in RUNS])
    tasks = {task: build_task(load_config(tmp_path / task / "config.yaml")) for task in RUNS}
    commands = []
    for name, task in tasks.items():
        half = -(-sum(size for _, size in task.val) // 2)  # two groups: the third rank has none
        commands.append(["eval", str(tmp_path / name), f"eval.batch={half}", "--json"])
    for one, two, three, task in zip(*(in_turn(world_size, commands) for world_size in (1, 2, 3)), tasks.values(), strict=True):
        assert json.loads(one)[task.monitors[0]] is not None
        assert one == two == three
