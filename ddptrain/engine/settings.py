"""The values that a run is trained with, as they come out of its config: one block at the start of the log."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp

from ddptrain.config import RunConfig
from ddptrain.engine.state import RunState
from ddptrain.optim.build import used_decay

COLUMNS = ("parameters", "tensors", "values", "peak lr", "decay")
"""Of the table of parameter groups."""


def settings(config: RunConfig, state: RunState) -> Iterator[str]:
    """Length, rates, decay and average of a run, a line each."""
    schedule, per_epoch = state.schedule, state.samples_per_epoch / state.split.global_batch
    unused = list(_idle(config))
    length = f"{state.steps} step{'s'[: state.steps - 1]} = {state.steps / per_epoch:.4g} epochs"
    more = f"; not used: {', '.join(unused)}" if unused else ""
    yield f"{length} of {state.samples_per_epoch} samples, {per_epoch:.4g} steps each{more}"
    yield f"optimizer {config.optimizer.name}, peak lr {config.optimizer.lr:g}, {_schedule(config, state)}"
    if schedule.warmup_steps:
        bias = f", of biases from {schedule.bias_start:g}" if schedule.bias_start else ""
        momentum = f", momentum from {schedule.momentum_start:g} to {config.optimizer.momentum:g}"
        moves = momentum if config.optimizer.name != "adagrad" else ""
        length = "step" if schedule.warmup_steps == 1 else f"{schedule.warmup_steps} steps"
        yield f"warm-up over the first {length}: lr from 0{bias}{moves}"
    else:
        yield "no warm-up" + ("" if config.schedule.warmup_epochs == 0 else ": the run is too short for one")
    decay, rule = used_decay(config.optimizer, state.split.global_batch)
    yield f"weight decay {decay:g}" + (f" = {rule}" if decay else "")
    if state.ema is None:
        yield "no average of the weights (ema.enabled=false)"
    else:
        last = state.ema.decay * (1 - exp(-state.steps / state.ema.tau))
        yield f"average of the weights: decay {state.ema.decay:g} x (1 - exp(-step / {state.ema.tau:g})), {last:.4g} at the end"


def groups(state: RunState) -> list[list[str | int | float]]:
    """A row for each group of parameters, and for those that are not trained."""
    rows: list[list[str | int | float]] = []
    for group in state.optimizer.param_groups:
        values = sum(p.numel() for p in group["params"])
        rows.append(
            [group["name"], len(group["params"]), values, f"{state.schedule.optimizer.lr:g}", f"{group['weight_decay']:g}"]
        )
    frozen = [p.numel() for p in state.model.parameters() if not p.requires_grad]
    if frozen:
        rows.append(["not trained", len(frozen), sum(frozen), "-", "-"])
    return rows


def _schedule(config: RunConfig, state: RunState) -> str:
    name, last = config.schedule.name, state.schedule.at(state.steps - 1).lr
    return f"schedule {name} to lr {last:g} at the last step"


def _idle(config: RunConfig) -> Iterator[str]:
    """The intervals in epochs beside which there is one in steps, where they are not the defaults."""
    for name, section, epochs, steps in (
        ("train", config.train, "epochs", "steps"),
        ("eval", config.eval, "every_epochs", "every_steps"),
        ("checkpoint", config.checkpoint, "every_epochs", "every_steps"),
    ):
        value, default = getattr(section, epochs), type(section).model_fields[epochs].get_default()
        if getattr(section, steps) is not None and value not in (None, default):
            yield f"{name}.{epochs}={value:g} ({name}.{steps} is given)"
