"""Every task by its name in the config."""

import importlib
import json
import os
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from ddptrain.config import DatasetConfig, RunConfig, resolve
from ddptrain.data.formats.jrdb import read_jrdb
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.tables.cache import read_cached
from ddptrain.data.tables.faults import Faults, OnFault
from ddptrain.data.tables.labels import Named, classes_of
from ddptrain.data.tables.pairs import FEATURES
from ddptrain.errors import UserError
from ddptrain.models.interaction import CROPS
from ddptrain.tasks.base import Model, OwnTask, Task
from ddptrain.tasks.classification.inspect import inspect_classification
from ddptrain.tasks.classification.task import ClassificationModel, ClassificationTask
from ddptrain.tasks.detection.inspect import inspect_detection
from ddptrain.tasks.detection.task import DetectionModel, DetectionTask
from ddptrain.tasks.inspection.base import Inspection
from ddptrain.tasks.interaction.inspect import inspect_interaction
from ddptrain.tasks.interaction.task import InteractionPredictor, InteractionTask
from ddptrain.tasks.segmentation.inspect import inspect_segmentation
from ddptrain.tasks.segmentation.task import SegmentationModel, SegmentationTask

TASKS: dict[str, Callable[[RunConfig], Task]] = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "segmentation": SegmentationTask,
    "interaction": InteractionTask,
}
MODELS: dict[str, Callable[[RunConfig], Model]] = {
    "classification": ClassificationModel,
    "detection": DetectionModel,
    "segmentation": SegmentationModel,
    "interaction": InteractionPredictor,
}
READERS: dict[str, Callable[[DatasetConfig, OnFault], tuple[Named, Faults]]] = {
    "classification": read_labelled,
    "detection": read_cached,
    "interaction": read_jrdb,
    "segmentation": read_masks,
}
INSPECTIONS: dict[str, Callable[[RunConfig, int], Inspection]] = {
    "classification": inspect_classification,
    "detection": inspect_detection,
    "interaction": inspect_interaction,
    "segmentation": inspect_segmentation,
}


def _images(config: RunConfig) -> tuple[Tensor, ...]:
    """Two images, float32 `[2, C, S, S]` in 0..1."""
    channels, side = getattr(config.model, "in_channels", 3), config.data.image_size
    return (torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0)),)


def _pairs(config: RunConfig) -> tuple[Tensor, ...]:
    """Two pairs: images float32 `[2, 9, S, S]` in 0..1 and geometry float32 `[2, G]`."""
    (image,) = _images(config)
    return image.repeat(1, CROPS, 1, 1), torch.rand(2, len(FEATURES), generator=torch.Generator().manual_seed(1))


INPUTS: dict[str, Callable[[RunConfig], tuple[Tensor, ...]]] = {
    "classification": _images,
    "detection": _images,
    "interaction": _pairs,
    "segmentation": _images,
}
"""Two samples as the forward of a task's model takes them, for `ddptrain export`."""


def with_classes(config: RunConfig) -> RunConfig:
    """The config with the list of classes that its training datasets have, where it says `classes: auto`.

    Raises:
        UserError: a dataset cannot be read or does not know the names of its classes, or no class is left.
    """
    if config.classes:
        return config
    if config.task not in READERS:
        raise UserError(f"classes: auto is not for {config.task}, a task of your own; list the classes")
    datasets = config.data.train
    classes = classes_of(datasets, [READERS[config.task](d, "drop")[0] for d in datasets])
    if not classes:
        raise UserError(
            "classes: auto: no training dataset has a class that is neither ignored nor dropped; check ignore and drop"
        )
    return resolve(json.loads(config.model_dump_json()) | {"classes": list(classes)})


def build_task(config: RunConfig) -> Task:
    """Read the datasets of a run and make its task.

    Raises:
        UserError: a mistake in the datasets.
    """
    config = with_classes(config)
    if config.task in TASKS:
        return TASKS[config.task](config)
    task = own_task(config)
    task.read()
    return task


def load_predictor(config: RunConfig) -> Model:
    """The part of the task that needs no datasets, to use a trained run."""
    return MODELS[config.task](config) if config.task in MODELS else own_task(config)


def own_task(config: RunConfig) -> OwnTask:
    """The task `module:Class` of the user's own, before it has read anything; the module is looked for in the working
    directory, too.

    Raises:
        UserError: there is no such module, or no subclass of `OwnTask` in it.
    """
    module, _, name = config.task.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as e:
        raise UserError(f"task: {config.task}: {e}; run where {module.replace('.', '/')}.py is, or install it") from None
    if not (isinstance(found, type) and issubclass(found, OwnTask)):
        raise UserError(f"task: {config.task}: {module} has no class {name} that is a ddptrain.tasks.base.OwnTask")
    return found(config)


def inspect(config: RunConfig, images: int) -> Inspection:
    """What the task finds in a run's datasets; a task of the user's own has no inspection, which is said.

    Args:
        images: how many are opened to look for duplicates; 0 for all.
    """
    if config.task in INSPECTIONS:
        return INSPECTIONS[config.task](config, images)
    what = "faults, classes, duplicates and leaks of its datasets were not looked for"
    return Inspection(warnings=[f"{config.task}: a task of your own has no inspection: {what}"])
