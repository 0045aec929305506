"""Which keys are read by nothing beside which values of other keys: the tables of `unused`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ddptrain.config.data import DatasetConfig
from ddptrain.config.model import InteractionConfig, SegmenterConfig, TorchvisionConfig, YoloConfig
from ddptrain.config.run import RunConfig


class Rule(NamedTuple):
    """When some keys are read by nothing; they may then only have their defaults.

    Attributes:
        keys: dotted, from the config (or from the dataset).
        idle: of the config (or of config, list and dataset): True where nothing reads them.
        user: what would use them.
        switches: keys, named like `keys`, by which the command line can switch off what would read them. Empty where that would
            change what is learned otherwise than whoever set the keys wants it.
    """

    keys: tuple[str, ...]
    idle: Callable[..., bool]
    user: str
    switches: tuple[str, ...] = ()


def _loss(*names: str) -> Callable[[RunConfig], bool]:
    return lambda c: c.loss.name not in names


def _schedule(*names: str) -> Callable[[RunConfig], bool]:
    return lambda c: c.schedule.name not in names


def _torchvision(c: RunConfig) -> bool:
    return isinstance(c.model, TorchvisionConfig)


def _stage(c: RunConfig) -> int:
    return c.model.stage if isinstance(c.model, InteractionConfig) else 0


def _mixes(c: RunConfig, *keys: str) -> bool:
    return any(getattr(c.data.augment, key) for key in keys)


def _own_layers(c: RunConfig) -> bool:
    return isinstance(c.model, InteractionConfig) and c.model.backbone == "small_resnet"


def _placed(d: DatasetConfig) -> bool:
    """True where images and annotations are said to be in places that the split has no part in."""
    both = d.images is not None and d.annotations is not None
    return d.holdout is None and both and d.format in ("coco", "csv", "masks", "camvid", "ade20k")


ENGINE: tuple[Rule, ...] = (
    Rule(("init_strict",), lambda c: c.init_from is None, "init_from", ("init_from",)),
    Rule(
        ("optimizer.momentum",),
        lambda c: c.optimizer.name == "adagrad",
        "optimizer.name=sgd, rmsprop, adam or adamw",
        ("optimizer.name",),
    ),
    Rule(
        ("optimizer.nominal_batch",),
        lambda c: not c.optimizer.scale_weight_decay,
        "optimizer.scale_weight_decay=true or yolo",
        ("optimizer.scale_weight_decay",),
    ),
    Rule(
        ("optimizer.nominal_batch", "optimizer.scale_weight_decay"),
        lambda c: not c.optimizer.weight_decay,
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
    Rule(("schedule.warmup_bias_lr",), lambda c: c.optimizer.name != "sgd", "optimizer.name=sgd", ("optimizer.name",)),
    Rule(
        ("schedule.warmup_momentum",),
        lambda c: c.optimizer.name == "adagrad",
        "optimizer.name=sgd, rmsprop, adam or adamw",
        ("optimizer.name",),
    ),
    Rule(
        ("schedule.warmup_momentum",),
        lambda c: c.schedule.warmup_momentum > c.optimizer.momentum,
        "an optimizer.momentum that is not below it",
        ("optimizer.momentum",),
    ),
    Rule(
        ("schedule.warmup_bias_lr", "schedule.warmup_momentum"),
        lambda c: c.schedule.warmup_epochs == 0,
        "schedule.warmup_epochs above 0",
        ("schedule.warmup_epochs",),
    ),
    Rule(("ema.decay", "ema.tau"), lambda c: not c.ema.enabled, "ema.enabled=true", ("ema.enabled",)),
    Rule(("ema.tau",), lambda c: not c.ema.decay, "ema.decay above 0", ("ema.decay",)),
    Rule(
        ("train.patience",),
        lambda c: c.eval.every_epochs is None and c.eval.every_steps is None,
        "eval.every_epochs or eval.every_steps (without them there is one evaluation, at the end)",
    ),
    Rule(("slurm.check_command",), lambda c: not c.slurm.check, "slurm.check=true", ("slurm.check",)),
    # no pictures is what there is without TensorBoard
    Rule(
        ("monitor.images",),
        lambda c: not c.monitor.tensorboard and c.monitor.images > 0,
        "monitor.tensorboard=true",
        ("monitor.tensorboard",),
    ),
)
"""Of what the engine reads, whatever the task."""
TASKS: tuple[Rule, ...] = (
    Rule(("loss.gamma",), _loss("focal"), "loss.name=focal"),
    Rule(("loss.pos_weight",), _loss("bce"), "loss.name=bce"),
    Rule(("loss.label_smoothing",), _loss("cross_entropy", "focal"), "loss.name=cross_entropy or focal"),
    Rule(
        ("loss.class_weights",),
        lambda c: c.loss.name == "bce",
        "loss.name=cross_entropy or focal (bce has loss.pos_weight)",
    ),
    Rule(
        tuple(f"loss.{key}" for key in ("box", "cls", "dfl", "topk", "alpha", "beta", "size_weights")),
        _torchvision,
        "model.name=yolo (torchvision's detectors bring their own loss)",
        ("model.name",),
    ),
    Rule(
        ("loss.dfl",),
        lambda c: isinstance(c.model, YoloConfig) and c.model.reg_max == 1,
        "model.reg_max above 1",
        ("model.reg_max",),
    ),
    Rule(("loss.aux",), lambda c: isinstance(c.model, SegmenterConfig) and not c.model.aux, "model.aux=true", ("model.aux",)),
    Rule(
        ("loss.oversample",), lambda c: getattr(c.loss, "importance", 1) == 0, "loss.importance above 0", ("loss.importance",)
    ),
    Rule(("model.pretrained",), lambda c: isinstance(c.model, YoloConfig) and c.model.backbone is None, "model.backbone"),
    Rule(
        ("model.fusion",), lambda c: getattr(c.model, "in_channels", 4) <= 3, "model.in_channels=4 or 5", ("model.in_channels",)
    ),
    Rule(
        ("model.pretrained_backbone",),
        lambda c: getattr(c.model, "pretrained", False),
        "model.pretrained=false",
        ("model.pretrained",),
    ),
    Rule(
        ("model.blocks", "model.width", "model.norm"),
        lambda c: isinstance(c.model, InteractionConfig) and not _own_layers(c),
        "model.backbone=small_resnet",
        ("model.backbone",),
    ),
    Rule(("model.pretrained", "model.weights"), _own_layers, "a model.backbone of torchvision, such as resnet18"),
    Rule(("eval.nms_iou",), _torchvision, "model.name=yolo (torchvision's detectors keep their own)", ("model.name",)),
    Rule(("eval.overlap",), lambda c: c.eval.window != "slide", "eval.window=slide", ("eval.window",)),
    Rule(("eval.protocols",), lambda c: c.task != "detection", "task=detection"),
    Rule(("data.allow_missing_annotations",), lambda c: not _torchvision(c), "a detector of torchvision", ("model.name",)),
    Rule(
        ("data.augment.mix_alpha",),
        lambda c: not _mixes(c, "mixup", "cutmix"),
        "data.augment.mixup or cutmix above 0",
        ("data.augment.mixup", "data.augment.cutmix"),
    ),
    Rule(
        ("data.augment.close_epochs",),
        lambda c: not _mixes(c, "mosaic", "mixup", "cutmix"),
        "data.augment.mosaic, mixup or cutmix above 0",
        ("data.augment.mosaic", "data.augment.mixup", "data.augment.cutmix"),
    ),
    Rule(
        ("data.pairs.max_group_samples_ratio",),
        lambda c: not c.data.pairs.use_group_sampling,
        "data.pairs.use_group_sampling=true",
        ("data.pairs.use_group_sampling",),
    ),
    Rule(
        ("data.pairs.max_negatives_per_frame", "data.pairs.balance_ratio"),
        lambda c: _stage(c) == 2,
        "model.stage=1 (stage 2 looks at interacting pairs only)",
        ("model.stage",),
    ),
)
"""Of what the package's own tasks read; a task of the user's own may read anything."""
DATASETS: tuple[Rule, ...] = (
    Rule(("share",), lambda c, part, d: part == "val", "data.train (every image of data.val is evaluated)"),
    Rule(
        ("annotated",),
        lambda c, part, d: c.task in ("classification", "interaction") and c.loss.name != "bce",
        "loss.name=bce (the other losses take one class of all for each sample)",
    ),
    Rule(("depth_range", "depth_invalid"), lambda c, part, d: d.depth is None, "depth: FOLDER beside it", ("depth",)),
    Rule(
        ("depth_missing",),
        lambda c, part, d: getattr(c.model, "in_channels", 3) <= 3,
        "model.in_channels=5",
        ("model.in_channels",),
    ),
    Rule(
        ("annotations", "images"),
        lambda c, part, d: d.format in ("folder", "mnist"),
        "a format that keeps annotations beside images (these two have usual places only)",
    ),
    Rule(
        ("holdout",),
        lambda c, part, d: d.format in ("mnist", "camvid", "ade20k", "visdrone-vid", "uavdt", "uavdt-xml", "auair"),
        "a format that has no splits of its own and no videos, whose frames would stand in both",
    ),
    Rule(
        ("split",),
        lambda c, part, d: _placed(d),
        "a dataset that does not say where both its images and annotations are",
        ("images", "annotations"),
    ),
    Rule(("exif",), lambda c, part, d: d.format == "mnist", "a format with image files"),
)
"""Of a dataset: `idle` is given the config, `train` or `val`, and the dataset."""
