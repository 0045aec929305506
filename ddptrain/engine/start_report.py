"""The start of a run's log: what is trained, on what, and the values that come out of its config."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ddptrain.config.section import Section
from ddptrain.config.train import EvalConfig
from ddptrain.distributed import World
from ddptrain.engine.arithmetic import advice, exactness
from ddptrain.engine.reporting import RunReporter
from ddptrain.engine.state import RunState
from ddptrain.models.norms import SYNC_BATCH_NORMS
from ddptrain.optim.build import used_decay
from ddptrain.reporting.ledger import plan_table
from ddptrain.reporting.table import Table
from ddptrain.system.printable import counted
from ddptrain.tasks.base import Task
from ddptrain.version import __version__

COLUMNS = ("parameters", "tensors", "values", "peak lr", "decay")
"""Of the table of parameter groups."""


def report_start(task: Task, world: World, state: RunState, reporter: RunReporter) -> None:
    """Write the start of the log; the mixture also to the trackers."""
    config, line, split = task.config, reporter.console.line, state.split
    start = f"from step {state.step}" if state.step else "from the start"
    line(f"ddptrain {__version__}  run {config.folder}  seed {config.seed}  {start} to step {state.steps}")
    threads = f", {counted(torch.get_num_threads(), 'thread')} each" if world.device.type == "cpu" else ""
    line(
        f"global batch {split.global_batch} = micro batch {split.micro_batch} × accumulation {split.accumulation} "
        f"× {counted(split.world_size, 'rank')} ({world.launcher}, {world.device.type}){threads}"
    )
    line(exactness(split, config.train, world.device, any(isinstance(m, SYNC_BATCH_NORMS) for m in state.model.modules())))
    if hint := advice(config.train.precision, world.device):
        line(hint)
    parameters = sum(p.numel() for p in state.model.parameters())
    line(f"model {config.model.name}: {parameters / 1e6:.2f} M parameters, {len(task.classes)} classes")
    if config.model.compile:
        line("the first step compiles the network, which takes a minute or more; without model.compile the bits differ")
    if config.model.checkpointing:
        line("the backward pass computes the stages of the backbone again: less memory, and the same bits")
    for setting in settings(state, config.train, config.eval, config.checkpoint):
        line(setting)
    reporter.console.table("what is trained, and how", Table(COLUMNS, groups(state)))
    for note in (*state.notes, *task.notes):
        line(note)
    plan = plan_table(reporter.ledger.plan)
    reporter.console.table("mixture", plan)
    if state.balance is not None:
        reporter.console.table("images that show a class", state.balance.plan())
        for remark in state.balance.remarks():
            line(remark)
    for warning in state.sampler.mixture.warnings():
        line(f"warning: {warning}")
    reporter.tracker.text("mixture", plan.markdown(), state.step)


def settings(state: RunState, train: Section, evaluation: EvalConfig, checkpoint: Section) -> Iterator[str]:
    """Length, rates, decay and average of a run, a line each."""
    schedule, optimizer, per_epoch = (
        state.schedule,
        state.schedule.optimizer,
        state.samples_per_epoch / state.split.global_batch,
    )
    unused = _unused("train", train, "epochs", "steps") + _unused("eval", evaluation) + _unused("checkpoint", checkpoint)
    length = f"{counted(state.steps, 'step')} = {state.steps / per_epoch:.4g} epochs"
    more = f"; not used: {', '.join(unused)}" if unused else ""
    yield f"{length} of {state.samples_per_epoch} samples, {per_epoch:.4g} steps each{more}"
    last = schedule.at(state.steps - 1).lr
    rates = f"peak lr {optimizer.lr:g}, schedule {schedule.config.name} to lr {last:g} at the last step"
    if schedule.plateau is not None:
        config = schedule.config
        rule = f"each time {config.patience} evaluations bring no better {state.monitored[0]}"
        rates = f"lr {optimizer.lr:g}, multiplied by {config.factor:g} {rule} (schedule.name=plateau), {last:g} now"
        if evaluation.every_epochs is None and evaluation.every_steps is None:
            rates += "; it is never lowered, since the only evaluation is at the end (see eval.every_epochs)"
    yield f"optimizer {optimizer.name}, {rates}"
    if schedule.warmup_steps:
        bias = f", of biases from {schedule.bias_start:g}" if schedule.bias_start else ""
        momentum = f", momentum from {schedule.momentum_start:g} to {optimizer.momentum:g}"
        moves = momentum if optimizer.name != "adagrad" else ""
        length = "step" if schedule.warmup_steps == 1 else f"{schedule.warmup_steps} steps"
        yield f"warm-up over the first {length}: lr from 0{bias}{moves}"
    else:
        asked = schedule.config.warmup_epochs
        rounded = asked * per_epoch <= 0.5  # else the only step of the run is the last, which is outside it
        why = f"schedule.warmup_epochs={asked:g} is at most half a step" if rounded else "the run is too short for one"
        yield "no warm-up" + ("" if asked == 0 else f": {why}")
    decay, rule = used_decay(optimizer, state.split.global_batch)
    yield f"weight decay {decay:g}" + (f" = {rule}" if decay else "")
    if state.ema is None:
        yield "no average of the weights (ema.enabled=false)"
    else:
        decay, tau = state.ema.decay, state.ema.tau
        rule = f"{decay:g} x (1 - exp(-step / {tau:g}))" if tau is not None else f"(1 + step) / (10 + step) up to {decay:g}"
        yield f"average of the weights: decay {rule}, {state.ema.decay_at(state.steps):.4g} at the end"


def groups(state: RunState) -> list[list[str | int | float]]:
    """A row for each group of parameters, and for those that are not trained."""
    rows: list[list[str | int | float]] = []
    rate = f"{state.schedule.optimizer.lr:g}"
    for group in state.optimizer.param_groups:
        values = sum(p.numel() for p in group["params"])
        rows.append([group["name"], len(group["params"]), values, rate, f"{group['weight_decay']:g}"])
    frozen = [p.numel() for p in state.model.parameters() if not p.requires_grad]
    if frozen:
        rows.append(["not trained", len(frozen), sum(frozen), "-", "-"])
    return rows


def _unused(name: str, section: Section, epochs: str = "every_epochs", steps: str = "every_steps") -> list[str]:
    """An interval in epochs that one in steps overrides, unless it is the default."""
    value, default = getattr(section, epochs), type(section).model_fields[epochs].get_default()
    if getattr(section, steps) is None or value in (None, default):
        return []
    return [f"{name}.{epochs}={value:g} ({name}.{steps} is given)"]
