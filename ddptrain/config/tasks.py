"""What belongs to which task: formats, models, losses, and the keys that only some tasks know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field

from ddptrain.config.model import CLASSIFIERS, SEGMENTERS, TORCHVISION_DETECTORS

if TYPE_CHECKING:
    from ddptrain.config.run import RunConfig

OwnTask = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
"""`module:Class`, a task of the user's own."""
TaskName = Literal["detection", "classification", "segmentation", "interaction"] | OwnTask


class Kit(NamedTuple):
    """What a task works with; the first model and loss are its defaults."""

    formats: tuple[str, ...]
    models: tuple[str, ...]
    losses: tuple[str, ...]


KITS: Mapping[str, Kit] = {
    "detection": Kit(
        ("coco", "yolo", "voc", "visdrone", "visdrone-vid", "uavdt", "uavdt-xml", "auair", "csv"),
        ("yolo", *TORCHVISION_DETECTORS),
        ("detection",),
    ),
    "classification": Kit(("folder", "csv", "mnist"), CLASSIFIERS, ("cross_entropy", "focal", "bce")),
    "segmentation": Kit(("masks", "camvid", "ade20k"), SEGMENTERS, ("pixels", "masks")),
    "interaction": Kit(("jrdb",), ("interaction",), ("cross_entropy", "focal", "bce")),
}
LOSS_OF_MODEL = {"mask2former": "masks"}
"""Models that bring a loss of their own, which no other model takes."""
ONLY: Mapping[str, tuple[str, ...]] = {
    "data.balance": ("classification", "interaction"),
    "data.pairs": ("interaction",),
    "data.allow_missing_annotations": ("detection",),
    "data.augment.mosaic": ("detection",),
    "data.augment.mixup": ("detection", "classification"),
    "data.augment.cutmix": ("classification",),
    "data.augment.mix_alpha": ("classification",),
    "data.augment.crop": ("segmentation",),
    "eval.window": ("segmentation",),
    "eval.overlap": ("segmentation",),
    "eval.max_detections": ("detection",),
    "eval.score_threshold": ("detection",),
    "eval.nms_iou": ("detection",),
}
ONLY_OF_DATASETS: Mapping[str, tuple[str, ...]] = {
    "depth": ("detection",),
    "depth_range": ("detection",),
    "depth_invalid": ("detection",),
    "depth_missing": ("detection",),
    "holdout": ("classification", "detection", "segmentation"),
    "void": ("segmentation",),
    "values": ("segmentation",),
    "sequences": ("interaction",),
}
"""Keys that the other tasks refuse to see changed."""


def fill_in(data: Any) -> Any:
    """The config with the names of the task's default model and loss where it gives none."""
    kit = KITS.get(str(data.get("task", "detection")))
    if kit is None:
        return data
    _name(data, "model", kit.models[0])
    model = data["model"]
    _name(data, "loss", LOSS_OF_MODEL.get(str(model.get("name")) if isinstance(model, dict) else "", kit.losses[0]))
    return data


def _name(data: Any, key: str, default: str) -> None:
    section = data.setdefault(key, {})
    if isinstance(section, dict) and "name" not in section:
        data[key] = {"name": default, **section}


def check_task(config: RunConfig) -> None:
    """Raise ValueError where the config uses what its task does not know; a task of the user's own may know anything."""
    if config.task not in KITS:
        return
    if config.options:
        raise ValueError(f"options: only for a task of your own, not for {config.task}; take it out")
    kit, task = KITS[config.task], config.task
    for key, name, allowed in (("model", config.model.name, kit.models), ("loss", config.loss.name, kit.losses)):
        if name not in allowed:
            raise ValueError(f"{key}.name: {name} does not do {task}; allowed: {', '.join(allowed)}")
    own = LOSS_OF_MODEL.get(config.model.name)
    if config.loss.name != own and (own or config.loss.name in LOSS_OF_MODEL.values()):
        fitting = own or next(n for n in kit.losses if n not in LOSS_OF_MODEL.values())
        raise ValueError(f"loss.name: {config.loss.name} is not the loss of {config.model.name}; set it to {fitting}")
    for key in ("class_weights", "pos_weight"):
        given = getattr(config.loss, key, "none")
        classes = 2 if getattr(config.model, "stage", 2) == 1 else len(config.classes)
        if isinstance(given, tuple) and classes and (len(given) != classes or not max(given) > 0 or min(given) < 0):
            raise ValueError(f"loss.{key}: give one number >= 0 for each of the {classes} classes, some above 0")
    if config.loss.name == "bce" and getattr(config.model, "stage", 2) == 1:
        raise ValueError("loss.name: bce is for pairs of several classes, in stage 2; use cross_entropy or focal in stage 1")
    for key, tasks in ONLY.items():
        _refuse_change(config, key, tasks, task, key)
    for part in ("train", "val"):
        for i, d in enumerate(getattr(config.data, part)):
            where = f"data.{part}.{i}"
            if d.format not in kit.formats:
                raise ValueError(f"{where}.format: {d.format} does not do {task}; allowed: {', '.join(kit.formats)}")
            for key, tasks in ONLY_OF_DATASETS.items():
                _refuse_change(d, key, tasks, task, f"{where}.{key}")


def _refuse_change(section: BaseModel, key: str, tasks: tuple[str, ...], task: str, name: str) -> None:
    *path, last = key.split(".")
    for part in path:
        section = getattr(section, part)
    if task not in tasks and getattr(section, last) != type(section).model_fields[last].get_default():
        raise ValueError(f"{name}: only for {' and '.join(tasks)}, not for {task}; take it out")
