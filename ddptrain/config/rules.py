"""When keys are read by nothing beside the values of other keys: the rules of every task, checked by `unused`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """When some keys are read by nothing; they may then only have their defaults.

    Attributes:
        keys: dotted, from the run (or from the dataset).
        idle: of the run (or of the run, `train` or `val`, and the dataset): True where nothing reads the keys.
        user: what would read them.
        switches: keys, named like `keys`, by which the command line can switch off what would read them. Empty where that would
            change what is learned in another way than whoever set the keys wants.
    """

    keys: tuple[str, ...]
    idle: Callable[..., bool]
    user: str
    switches: tuple[str, ...] = ()


def _schedule(*names: str) -> Callable[[Any], bool]:
    return lambda run: run.schedule.name not in names


RUN_RULES: tuple[Rule, ...] = (
    Rule(("init_strict",), lambda run: run.init_from is None, "init_from", ("init_from",)),
    Rule(
        ("optimizer.momentum",),
        lambda run: run.optimizer.name == "adagrad",
        "optimizer.name=sgd, rmsprop, adam or adamw",
        ("optimizer.name",),
    ),
    Rule(
        ("optimizer.nominal_batch",),
        lambda run: not run.optimizer.scale_weight_decay,
        "optimizer.scale_weight_decay=true or yolo",
        ("optimizer.scale_weight_decay",),
    ),
    Rule(
        ("optimizer.nominal_batch", "optimizer.scale_weight_decay"),
        lambda run: not run.optimizer.weight_decay,
        "optimizer.weight_decay above 0",
        ("optimizer.weight_decay",),
    ),
    Rule(
        ("schedule.final",),
        _schedule("linear", "cosine", "one_cycle"),
        "schedule.name=linear, cosine or one_cycle",
        ("schedule.name",),
    ),
    Rule(("schedule.milestones", "schedule.gamma"), _schedule("multi_step"), "schedule.name=multi_step", ("schedule.name",)),
    Rule(
        ("schedule.pct_start", "schedule.div_factor", "schedule.final_div_factor"),
        _schedule("one_cycle_3"),
        "schedule.name=one_cycle_3",
        ("schedule.name",),
    ),
    Rule(("schedule.warmup_bias_lr",), lambda run: run.optimizer.name != "sgd", "optimizer.name=sgd", ("optimizer.name",)),
    Rule(
        ("schedule.warmup_momentum",),
        lambda run: run.optimizer.name == "adagrad",
        "optimizer.name=sgd, rmsprop, adam or adamw",
        ("optimizer.name",),
    ),
    Rule(
        ("schedule.warmup_momentum",),
        lambda run: run.schedule.warmup_momentum > run.optimizer.momentum,
        "an optimizer.momentum that is not below it",
        ("optimizer.momentum",),
    ),
    Rule(
        ("schedule.warmup_bias_lr", "schedule.warmup_momentum"),
        lambda run: run.schedule.warmup_epochs == 0,
        "schedule.warmup_epochs above 0",
        ("schedule.warmup_epochs",),
    ),
    Rule(("ema.decay", "ema.tau"), lambda run: not run.ema.enabled, "ema.enabled=true", ("ema.enabled",)),
    Rule(("ema.tau",), lambda run: not run.ema.decay, "ema.decay above 0", ("ema.decay",)),
    Rule(
        ("train.patience",),
        lambda run: run.eval.every_epochs is None and run.eval.every_steps is None,
        "eval.every_epochs or eval.every_steps (without them there is one evaluation, at the end)",
    ),
    Rule(("slurm.check_command",), lambda run: not run.slurm.check, "slurm.check=true", ("slurm.check",)),
    # no pictures is what there is without TensorBoard
    Rule(
        ("monitor.images",),
        lambda run: not run.monitor.tensorboard and run.monitor.images > 0,
        "monitor.tensorboard=true",
        ("monitor.tensorboard",),
    ),
)
"""Of what the engine reads, whatever the task."""


def split_rule(*formats: str) -> Rule:
    """Of a dataset that says where both its images and its annotations are, in formats whose split has no other part."""
    return Rule(
        ("split",),
        lambda run, part, d: None not in (d.images, d.annotations) and d.holdout is None and d.format in formats,
        "a dataset that does not say where both its images and annotations are",
        ("images", "annotations"),
    )


def holdout_rule(*formats: str) -> Rule:
    """Of formats with splits of their own, or videos."""
    return Rule(
        ("holdout",),
        lambda run, part, d: d.format in formats,
        "a format that has no splits of its own and no videos, whose frames would be in both",
    )


SHARE = Rule(("share",), lambda run, part, d: part == "val", "data.train (every image of data.val is evaluated)")
"""Of the datasets of the package's own tasks; a task of the user's own may read any key."""


def mixing_rule(key: str, *kinds: str) -> Rule:
    """Of a key of `data.augment` that only some kinds of mixing read."""
    return Rule(
        (f"data.augment.{key}",),
        lambda run: not any(getattr(run.data.augment, kind) for kind in kinds),
        f"data.augment.{' or '.join(kinds)} above 0",
        tuple(f"data.augment.{kind}" for kind in kinds),
    )
