"""One step: which collectives it pays, and that a skipped one leaves no trace."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support import Ranks
from torch import nn

from ddptrain import distributed
from ddptrain.config import EmaConfig, OptimizerConfig, ScheduleConfig
from ddptrain.config.batch import split_batch
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.distributed import World
from ddptrain.engine.state import RunState
from ddptrain.engine.step import Stepper
from ddptrain.optim.build import build_optimizer
from ddptrain.optim.ema import Ema
from ddptrain.optim.schedule import Schedule
from ddptrain.structures import Batch, LossSum


def batch(values: torch.Tensor) -> Batch:
    """One sample per value; the picture is the value."""
    n = len(values)
    return Batch(
        images=values.view(n, 1, 1, 1).expand(n, 3, 4, 4).clone(),
        keys=torch.stack([torch.arange(n), torch.arange(n) % 2, torch.arange(n)], 1),
        annotated=torch.ones(n, 1, dtype=torch.bool),
        targets={},
        to_native=torch.zeros(n, 2, 3),
        native_size=torch.full((n, 2), 4),
    )


def loss(model: nn.Module, batch: Batch) -> LossSum:
    each = model(batch.images).flatten(1).square().mean(1)
    total = each.sum()
    return LossSum(total, torch.tensor(float(len(batch))), {"square": total.detach()}, each.detach())


def network(norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4) if norm else nn.ReLU(), nn.Conv2d(4, 2, 1))


def state(world: World, norm: bool = True, precision: str = "none") -> RunState:
    model = network(norm)
    optimizer = build_optimizer(OptimizerConfig(), model, 4)
    stepper = Stepper(distributed.data_parallel(model, world), loss, optimizer, world, 2, precision=precision)
    return RunState(
        model=model,
        stepper=stepper,
        optimizer=optimizer,
        schedule=Schedule(ScheduleConfig(warmup_epochs=0), OptimizerConfig(), 100, 10.0),
        sampler=DistributedWeightedSampler([10, 10], block=4, num_replicas=1, rank=0),
        ema=Ema(model, EmaConfig()),
        split=split_batch(4, 4, world.size),
        steps=100,
        samples_per_epoch=40,
        patience=None,
        monitored=("AP",),
        loss_by_dataset=[0.0, 0.0],
        samples_by_dataset=[0.0, 0.0],
    )


def _count_all_reduces(accumulation: int) -> None:
    world = distributed.discover("cpu")
    with distributed.process_group(world, 60):
        stepper = state(world).stepper
        micro = [batch(torch.rand(2)) for _ in range(accumulation)]
        stepper(micro)  # DDP regroups its buckets after the first step
        stepper(micro)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            for _ in range(3):
                stepper(micro)
        print("all-reduces", sum(e.count for e in profile.key_averages() if e.key == "gloo:all_reduce"))


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_is_one_set_of_buckets_and_one_small_tensor(accumulation: int) -> None:
    """Whatever the accumulation: the tiny model is one bucket, so that a step makes two all-reduces."""
    ranks = Ranks(2, _count_all_reduces, accumulation)
    assert ranks.wait() == [0, 0], ranks.text
    assert ranks.text.count("all-reduces 6") == 2, ranks.text


def everything(run: RunState) -> dict[str, Any]:
    """What a skipped step must not touch, as copies."""
    whole = run.state_dict()
    for spent in ("skipped", "position", "samples_by_dataset", "sampler", "scaler"):
        whole.pop(spent, None)
    flat = {**{f"model.{k}": v for k, v in whole["model"].items()}, **{f"ema.{k}": v for k, v in whole["ema"].items()}}
    for number, values in whole["optimizer"]["state"].items():
        flat |= {f"optimizer.{number}.{k}": v for k, v in values.items() if isinstance(v, torch.Tensor)}
    numbers = {k: whole[k] for k in ("step", "bests", "stale", "replaced", "loss_by_dataset", "normalizer")}
    return {k: v.clone() for k, v in flat.items()} | numbers


def same(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of what differs."""
    assert a.keys() == b.keys()
    return [k for k in a if not (torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k])]


ONE = World(0, 1, 0, 1, torch.device("cpu"), "single")


def one_step(run: RunState, values: torch.Tensor) -> bool:
    run.schedule.apply(run.optimizer, run.step)
    report = run.stepper([batch(values)])
    run.count(report)
    return report.updated


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_skipped_step_leaves_no_trace(bad: float) -> None:
    """Weights, average, optimizer, clock and running statistics (which the forward pass spoiled) are as before."""
    run = state(ONE)
    assert one_step(run, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    before, rates = everything(run), [g["lr"] for g in run.optimizer.param_groups]
    assert not one_step(run, torch.tensor([0.1, bad, 0.3, 0.4]))
    assert same(before, everything(run)) == []
    assert (run.step, run.skipped, run.position) == (1, 1, 8)
    run.schedule.apply(run.optimizer, run.step)
    rates_again = [g["lr"] for g in run.optimizer.param_groups]
    assert rates_again != rates  # those of the second update...
    assert one_step(run, torch.tensor([0.5, 0.6, 0.7, 0.8]))
    assert run.step == 2
    straight = state(ONE)
    one_step(straight, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    one_step(straight, torch.tensor([0.5, 0.6, 0.7, 0.8]))
    # ...and the run goes on as if the bad batch had never been
    assert same(everything(run), everything(straight)) == []


def test_an_fp16_overflow_skips_and_scales_down() -> None:
    run = state(ONE, norm=False, precision="fp16")
    assert run.stepper.scaler is not None
    run.stepper.scaler.load_state_dict(run.stepper.scaler.state_dict() | {"scale": 2.0**30})
    before = everything(run)
    scales = []
    while not one_step(run, torch.tensor([50.0, 60.0, 70.0, 80.0])):
        scales.append(run.stepper.scaler.get_scale())
        assert same(before, everything(run)) == []
        assert len(scales) < 30
    assert scales
    assert all(b == a / 2 for a, b in pairwise(scales))
    assert (run.step, run.skipped) == (1, len(scales))
    assert run.ema is not None
    assert not torch.equal(before["ema.0.weight"], everything(run)["ema.0.weight"])


def _a_rank_without_boxes(config: str, whose: int) -> None:
    """Three steps on a real detector; the batches of rank `whose` (all, if -1) hold no box. Prints what came out."""
    from ddptrain.config import load_config
    from ddptrain.engine.state import build_state
    from ddptrain.structures import SampleKey
    from ddptrain.tasks.build import build_task

    world = distributed.discover("cpu")
    with distributed.process_group(world, 30):
        cfg = load_config(config, ["train.global_batch=4", "train.micro_batch=2", "model.norm=none"])
        task = build_task(cfg)
        run = build_state(task, world, split_batch(4, 4, world.size))
        for step in range(3):
            run.schedule.apply(run.optimizer, 50)
            micro = []
            for owner in range(2) if world.size == 1 else [world.rank]:
                some = task.train.collate([task.train[SampleKey(4 * step + 2 * owner + i, 0, i)] for i in range(2)])
                if whose in (owner, -1):
                    none = {k: v[:0] for k, v in some.targets.items()}
                    some.targets = none
                micro.append(some)
            report = run.stepper(micro)
            run.count(report)
            assert report.updated
        weights = torch.cat([p.detach().flatten() for p in run.model.parameters()]).double()
        print(f"weights {world.size} {report.normalizer:.4f} {weights.sum():.7f} {weights.norm():.7f}")


@pytest.mark.parametrize("whose", [1, -1])
def test_ranks_with_empty_labels_only(config: Path, whose: int) -> None:
    """No hang, and the same weights on both ranks as on one rank with the same batches."""
    lines = []
    for world_size in (1, 2):
        ranks = Ranks(world_size, _a_rank_without_boxes, str(config), whose)
        assert ranks.wait() == [0] * world_size, ranks.text
        lines += [line.split()[2:] for line in ranks.text.splitlines() if line.startswith("weights")]
    assert len(lines) == 3
    assert lines[1] == lines[2]
    for one, two in zip(map(float, lines[0]), map(float, lines[1])):
        assert one == pytest.approx(two, rel=1e-5)
