"""One step: which collectives it pays, and that a skipped one leaves no trace."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from host_waits import HostWaits, needs_fakes, on_fake_gpu, put_on_fake_gpu
from support import Ranks
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ddptrain import distributed
from ddptrain.config import EmaConfig, OptimizerConfig, ScheduleConfig
from ddptrain.config.batch import split_batch
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.distributed import Reduction, Waiting, World
from ddptrain.engine import step as step_module
from ddptrain.engine.arithmetic import device_decides
from ddptrain.engine.state import RunState
from ddptrain.engine.step import Stepper
from ddptrain.engine.step_report import Launched
from ddptrain.optim import build
from ddptrain.optim.build import build_optimizer
from ddptrain.optim.ema import Ema, _tensors
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


def state(world: World, norm: bool = True, precision: str = "none", run: int = 1, reduction: Reduction = "ordered") -> RunState:
    """`run` micro batches on each rank."""
    model = network(norm)
    optimizer = build_optimizer(OptimizerConfig(), model, 4)
    tree = distributed.TreeSum(world.rank, world.size, world.size * run)
    gradients = distributed.build_gradients(model, world, tree, reduction)
    stepper = Stepper(model, loss, optimizer, gradients, tree, 2, world.device, precision=precision)
    return RunState(
        model=model,
        stepper=stepper,
        optimizer=optimizer,
        schedule=Schedule(ScheduleConfig(warmup_epochs=0), OptimizerConfig(), 100, 10.0),
        sampler=DistributedWeightedSampler([10, 10], block=4, num_replicas=1, rank=0),
        ema=Ema(model, EmaConfig()),
        split=split_batch(4, None, world.size),
        steps=100,
        samples_per_epoch=40,
        patience=None,
        monitored=("AP",),
        loss_by_dataset=[0.0, 0.0],
        samples_by_dataset=[0.0, 0.0],
    )


CALLS = ("all_to_all", "all_gather", "_allgather_base", "all_reduce")


def _count_collectives(reduction: Reduction, run: int) -> None:
    world = distributed.discover("cpu")
    with distributed.process_group(world, 60):
        stepper = state(world, run=run, reduction=reduction).stepper
        micro = [batch(torch.rand(2)) for _ in range(run)]
        stepper(micro, 0)  # DDP regroups its buckets after the first step
        stepper(micro, 1)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            for number in range(3):
                stepper(micro, number)
        counts = {call: sum(e.count for e in profile.key_averages() if e.key == f"gloo:{call}") for call in CALLS}
        print("collectives", {call: count for call, count in counts.items() if count})


@pytest.mark.parametrize(("reduction", "run", "expected"), [
    ("ordered", 1, {"all_to_all": 6, "all_gather": 6}),
    ("ordered", 4, {"all_to_all": 6, "all_gather": 6}),
    ("fast", 4, {"all_to_all": 3, "all_gather": 3, "all_reduce": 3}),
])  # fmt: skip
def test_a_step_is_one_set_of_buckets_and_one_small_tensor(reduction: Reduction, run: int, expected: dict[str, int]) -> None:
    """Whatever the accumulation; the tiny model is one bucket."""
    ranks = Ranks(2, _count_collectives, reduction, run)
    assert ranks.wait() == [0, 0], ranks.text
    assert ranks.text.count(f"collectives {expected}") == 2, ranks.text


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
    return run.advance([batch(v) for v in values.chunk(run.stepper.tree.run)]).updated


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_skipped_step_leaves_no_trace(
    bad: float, micro_batches: int, on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, average, optimizer, clock and running statistics (which the forward pass spoiled) are as before, whether host or
    device decides."""
    monkeypatch.setattr(step_module, "device_decides", lambda *known: on_device)
    run = state(ONE, run=micro_batches)
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
    straight = state(ONE, run=micro_batches)
    one_step(straight, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    one_step(straight, torch.tensor([0.5, 0.6, 0.7, 0.8]))
    # ...and the run goes on as if the bad batch had never been
    assert same(everything(run), everything(straight)) == []


def test_a_first_step_that_a_device_skips_leaves_no_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's fused SGD would then continue from uninitialized memory."""
    monkeypatch.setattr(step_module, "device_decides", lambda *known: True)
    good, bad = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.1, math.nan, 0.3, 0.4])
    weights = []
    for values in ([good, good], [bad, good, good]):
        run = state(ONE)
        groups = [{"params": list(run.model.parameters()), "name": "weight"}]
        run.optimizer = run.stepper.optimizer = build._sgd(groups, OptimizerConfig(name="sgd"), fused=True)
        assert [one_step(run, v) for v in values] == [v is good for v in values]
        weights.append([p.detach() for p in run.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights))


@pytest.mark.parametrize("clip_norm", [None, 0.7])
def test_the_device_scales_and_clips_as_the_host_to_the_last_bit(
    clip_norm: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, where a rounding more shows; the sum of three ranks, and normalizers that are no powers of two."""
    ends = []
    for on_device in (False, True):
        monkeypatch.setattr(step_module, "device_decides", lambda *known, on_device=on_device: on_device)
        run = state(ONE, norm=False)
        model = run.model.double()
        groups = [{"params": list(model.parameters()), "name": "weight"}]
        run.optimizer = run.stepper.optimizer = build._sgd(groups, OptimizerConfig(name="sgd"), fused=True)
        run.ema, run.stepper.clip_norm, run.stepper.gradients.divided = None, clip_norm, 3
        for count in (1, 3, 5, 6, 7, 10, 11, 13, 14):
            assert run.advance([batch(torch.linspace(0.1, 1.3, count, dtype=torch.float64))]).updated
        ends.append([*model.parameters(), *(s["momentum_buffer"] for s in run.optimizer.state.values())])
    assert len(ends[0]) == 8
    assert all(torch.equal(a, b) for a, b in zip(*ends))


@needs_fakes
@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_what_a_gpu_does_after_the_backward_pass_waits_for_nothing(name: Any, micro_batches: int) -> None:
    """On fake tensors: sums, scaling, clipping, update and average. Without a driver nothing runs backward, and torch's fused
    SGD does not run at all."""
    mode, device = FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda")
    model = network()
    average = Ema(model, EmaConfig())
    for net in (model, average.model):
        put_on_fake_gpu(net, mode)
    average._own, average._source = _tensors(average.model), average.model
    samples = batch(torch.tensor([0.1, 0.2]))
    on_gpu = replace(samples.map(lambda t: on_fake_gpu(t, mode)), keys=samples.keys)  # keys stay
    with mode:
        optimizer = build_optimizer(OptimizerConfig(name=name), model, 4)
        tree = distributed.TreeSum(0, 1, micro_batches)
        gradients = distributed.build_gradients(model, ONE, tree)
        stepper = Stepper(model, loss, optimizer, gradients, tree, 2, device, clip_norm=1.0)
        assert device_decides(device, "none", optimizer)
        with HostWaits() as waits:
            each = loss(model, on_gpu)
            each.normalizer = each.total.detach()
            rows = [stepper._sums(on_gpu, each, False) for _ in range(micro_batches)]
            if micro_batches > 1:
                rows = [torch.cat([row, *(values - before for values, before in stepper._statistics)]) for row in rows]
            sums = stepper._add(rows) if micro_batches > 1 else rows[0]
            numbers = torch.cat([sums, torch.stack(torch._foreach_norm(gradients.all()))[:1]])
            updated = stepper._update_if_finite(numbers, None)
            average.update(model, 1, updated)
        assert updated.device.type == numbers.device.type == "cuda"
    assert not waits.lines


@pytest.mark.parametrize(("device", "ranks", "watched"), [("cuda", 2, True), ("cuda", 1, False), ("cpu", 2, False)])
def test_a_launch_on_a_gpu_is_a_wait_for_other_ranks(device: str, ranks: int, watched: bool) -> None:
    """The host stands still in it where the GPU's queue is full of a step that waits for a rank that is gone."""
    run, seen = state(World(0, ranks, 0, ranks, ONE.device, "torchrun")), []
    run.stepper.device = torch.device(device)
    run.stepper.launching = run.stepper._watched("the launch of a step")

    def launch(*known: Any) -> Launched:
        seen.append(Waiting.now)
        return Launched(torch.zeros(1), [])

    run.stepper.launch = launch  # type: ignore[method-assign]
    run.launch([])
    assert Waiting.now is None
    assert [(w.what, w.on_device) for w in seen if w is not None] == [("the launch of a step", True)] * watched


def test_a_step_on_its_way_holds_no_graph() -> None:
    launched = state(ONE).launch([batch(torch.tensor([0.1, 0.2]))])
    assert [(loss.total.requires_grad, loss.total.grad_fn) for loss in launched.losses] == [(False, None)]


def test_running_statistics_become_the_mean_over_the_micro_batches() -> None:
    """Of what each makes of those at the step's start; what a part in eval mode holds stays to the last bit."""
    run = state(ONE, run=3)
    norm = run.model[1]  # type: ignore[index]
    frozen = nn.BatchNorm2d(4).eval()
    frozen.running_mean.uniform_(generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr]
    assert isinstance(norm, nn.BatchNorm2d)
    parts = torch.tensor([0.1, 0.2, 0.3, 0.9, 0.7, 0.6]).chunk(3)
    expected = []
    for part in parts:
        alone = network()
        alone(batch(part).images)
        expected.append(alone[1].running_mean)  # type: ignore[index]
    stepper = run.stepper
    model = nn.Sequential(run.model, nn.ModuleList([frozen]))  # type: ignore[list-item]
    again = Stepper(model, stepper.loss, stepper.optimizer, stepper.gradients, stepper.tree, 2, ONE.device)
    constant = frozen.running_mean.clone()  # type: ignore[union-attr]
    again([batch(part) for part in parts], 0)
    torch.testing.assert_close(norm.running_mean, torch.stack(expected).mean(0))  # type: ignore[arg-type]
    assert int(norm.num_batches_tracked) == 1  # type: ignore[arg-type]
    assert torch.equal(frozen.running_mean, constant)  # type: ignore[arg-type]
    assert int(frozen.num_batches_tracked) == 0  # type: ignore[arg-type]


def test_a_parameter_without_gradient_counts_as_zero_in_any_split() -> None:
    """It decays, and keeps moving by its momentum, whether or not its gradient is added to others."""
    found = []
    for micro_batches in (1, 2):
        run = state(ONE, norm=False, run=micro_batches)
        model = run.model
        proper = run.stepper.loss
        run.stepper.loss = lambda m, b, proper=proper: proper(m[:1], b)  # type: ignore[misc, index]
        for _ in range(2):
            assert one_step(run, torch.tensor([0.1, 0.2, 0.3, 0.4]))
        found.append([p.detach() for p in model.parameters()])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b)
    assert not torch.equal(found[0][2], network(norm=False)[2].weight)  # type: ignore[index]


def test_an_fp16_overflow_skips_and_scales_down() -> None:
    run = state(ONE, norm=False, precision="fp16")
    assert run.stepper.scaler is not None
    run.stepper.scaler.load_state_dict(run.stepper.scaler.state_dict() | {"scale": 2.0**30})
    before = everything(run)
    scales = []
    while not one_step(run, torch.tensor([50.0, 60.0, 70.0, 80.0])):
        scales.append(run.stepper.scaler.get_scale())
        assert same(before, everything(run)) == ["normalizer"]  # as much a part of the scale as the scale itself
        assert len(scales) < 30
    assert scales
    assert all(b == a / 2 for a, b in pairwise(scales))
    assert (run.step, run.skipped) == (1, len(scales))
    assert run.ema is not None
    assert not torch.equal(before["ema.0.weight"], everything(run)["ema.0.weight"])


def pixels(model: nn.Module, batch: Batch) -> LossSum:
    """A sum over very many pixels, as of a segmentation, and their number."""
    whole = loss(model, batch)
    parts = {k: v.float() * 1e6 for k, v in whole.parts.items()}
    return LossSum(whole.total.float() * 1e6, whole.normalizer * 1e6, parts)


def test_fp16_starts_soon_from_large_sums_and_loses_no_gradient() -> None:
    """A scale that was lowered until the raw sums fitted made all gradients 0 once they were pre-scaled."""
    half, full = state(ONE, precision="fp16"), state(ONE)
    half.stepper.loss = full.stepper.loss = pixels
    values = torch.tensor([0.5, 0.6, 0.7, 0.8])
    while not one_step(half, values):
        assert half.skipped < 4
    one_step(full, values)
    for _ in range(3):
        norms = []
        for run in (half, full):
            report = run.advance([batch(values)])
            assert report.updated
            norms.append(report.grad_norm)
        assert norms[0] == pytest.approx(norms[1], rel=0.05)
