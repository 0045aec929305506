"""When keys are read by nothing beside the values of other keys: the rules of every task, checked by `unused`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ddptrain.system.printable import listing


class Rule(NamedTuple):
    """When some keys are read by nothing; they may then only have their defaults.

    Attributes:
        keys: dotted, from the run (or from the dataset), one word each.
        user: what would read them.
        idle: of the run (or of the run, `train` or `val`, and the dataset): True where nothing reads the keys.
        switches: keys, named like `keys`, by which the command line can switch off what would read them. Empty where that would
            change what is learned in another way than whoever set the keys wants.
    """

    keys: str
    user: str
    idle: Callable[..., bool]
    switches: str = ""


def _value(run: Any, key: str) -> Any:
    for part in key.split("."):
        run = getattr(run, part)
    return run


def only(keys: str, key: str, *values: Any) -> Rule:
    """Of keys that are read only beside some values of another one."""
    user = listing([str(value).lower() for value in values], "or")
    return Rule(keys, f"{key}={user}", lambda run: _value(run, key) not in values, key)


def above_0(keys: str, section: str, *others: str) -> Rule:
    """Of keys that are read only where one of some keys of a section is above 0."""
    switches = [f"{section}.{other}" for other in others]
    user = f"{section}.{listing(others, 'or')} above 0"
    return Rule(keys, user, lambda run: not any(_value(run, s) for s in switches), " ".join(switches))


WITH_MOMENTUM = ("optimizer.name", "sgd", "rmsprop", "adam", "adamw")
RUN_RULES: tuple[Rule, ...] = (
    Rule("init_strict", "init_from", lambda run: run.init_from is None, "init_from"),
    only("optimizer.momentum", *WITH_MOMENTUM),
    Rule(
        "optimizer.nesterov",
        "optimizer.name=sgd with optimizer.momentum above 0",
        lambda run: run.optimizer.name != "sgd" or run.optimizer.momentum == 0,
        "optimizer.name",
    ),
    only("optimizer.beta2", "optimizer.name", "adam", "adamw"),
    only("optimizer.eps", "optimizer.name", "adam", "adamw", "adagrad", "rmsprop"),
    only("optimizer.nominal_batch", "optimizer.scale_weight_decay", True, "yolo"),
    above_0("optimizer.nominal_batch optimizer.scale_weight_decay", "optimizer", "weight_decay"),
    only("schedule.final", "schedule.name", "linear", "cosine", "one_cycle"),
    only("schedule.milestones schedule.gamma", "schedule.name", "multi_step"),
    only("schedule.factor schedule.patience schedule.threshold", "schedule.name", "plateau"),
    Rule(
        "schedule.factor schedule.patience schedule.threshold",
        "eval.every_epochs or eval.every_steps (without them the rate is never lowered)",
        lambda run: run.eval.every_epochs is None and run.eval.every_steps is None,
        "eval.every_epochs eval.every_steps",
    ),
    only("schedule.pct_start schedule.div_factor schedule.final_div_factor", "schedule.name", "one_cycle_3"),
    only("schedule.warmup_bias_lr", "optimizer.name", "sgd"),
    only("schedule.warmup_momentum", *WITH_MOMENTUM),
    Rule(
        "schedule.warmup_momentum",
        "an optimizer.momentum that is not below it",
        lambda run: run.schedule.warmup_momentum > run.optimizer.momentum,
        "optimizer.momentum",
    ),
    above_0("schedule.warmup_bias_lr schedule.warmup_momentum", "schedule", "warmup_epochs"),
    only("ema.decay ema.tau", "ema.enabled", True),
    above_0("ema.tau", "ema", "decay"),
    Rule(
        "train.patience",
        "eval.every_epochs or eval.every_steps (without them there is one evaluation, at the end)",
        lambda run: run.eval.every_epochs is None and run.eval.every_steps is None,
    ),
    only("slurm.check_command", "slurm.check", True),
    above_0("data.augment.blur_sigma", "data.augment", "blur"),
    above_0("data.augment.jpeg_quality", "data.augment", "jpeg"),
    # no pictures is what there is without a tracker
    Rule(
        "monitor.images",
        "monitor.trackers",
        lambda run: not run.monitor.trackers and run.monitor.images > 0,
        "monitor.trackers",
    ),
)
"""Of what the engine reads, whatever the task."""
PRETRAINED_BACKBONE = Rule(
    "model.pretrained_backbone",
    "model.pretrained=false",
    lambda run: getattr(run.model, "pretrained", False),
    "model.pretrained",
)
"""Of torchvision's detectors and segmenters; a network without that key has nothing to refuse."""
SHARE = Rule("share loss_weight", "data.train (every image of data.val is evaluated)", lambda run, part, d: part == "val")
"""Of the datasets of the package's own tasks; a task of the user's own may read any key."""
SUMMED = Rule(
    "loss_weight",
    "model.name=yolo (torchvision's detectors average their loss over the images of a micro batch)",
    lambda run, part, d: run.model.name != "yolo",
    "model.name",
)
"""Of the datasets of detection."""


def tiles_rule(instead: str) -> Rule:
    """Of the tiles of a dataset; `instead`: what evaluation has in their place."""
    user = f"data.train (in evaluation {instead} cuts the images)"
    return Rule("tiles", user, lambda run, part, d: part == "val")


def split_rule(*formats: str) -> Rule:
    """Of a dataset that says where both its images and its annotations are, in formats whose split has no other part."""
    return Rule(
        "split",
        "a dataset that does not say where both its images and annotations are",
        lambda run, part, d: None not in (d.images, d.annotations) and d.holdout is None and d.format in formats,
        "images annotations",
    )


def holdout_rule(*formats: str) -> Rule:
    """Of formats with splits of their own, or videos."""
    user = "a format that has no splits of its own and no videos, whose frames would be in both"
    return Rule("holdout", user, lambda run, part, d: d.format in formats)
