"""Every task by its name in the config."""

from __future__ import annotations

import importlib
import os
import sys

from ddptrain.config import RunConfig
from ddptrain.data.formats.cache import one_look
from ddptrain.errors import UserError
from ddptrain.tasks.base import Task
from ddptrain.tasks.classification.task import ClassificationTask
from ddptrain.tasks.detection.task import DetectionTask
from ddptrain.tasks.interaction.task import InteractionTask
from ddptrain.tasks.segmentation.task import SegmentationTask

TASKS: dict[str, type[Task]] = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "segmentation": SegmentationTask,
    "interaction": InteractionTask,
}


def new_task(config: RunConfig) -> Task:
    """The task of a run, before it has read any dataset.

    Raises:
        UserError: it is a task of the user's own that does not exist.
    """
    return task_class(config.task)(config)


def task_class(name: str) -> type[Task]:
    """The class of a task by its name in the config; raises `UserError` for one of the user's own that does not exist."""
    return TASKS.get(name) or _own_task(name)


def build_task(config: RunConfig) -> Task:
    """The task of a run with its datasets; for `classes: auto`, `task.config` lists the classes.

    Raises:
        UserError: a mistake in the datasets.
    """
    with one_look():
        task = new_task(config).with_classes()
        task.read()
    return task


def _own_task(path: str) -> type[Task]:
    """The class `module:Class` of the user's own; the module is looked for in the working directory, too."""
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        task = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as e:
        raise UserError(f"task: {path}: {e}; run where {module.replace('.', '/')}.py is, or install it") from None
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise UserError(f"task: {path}: {module} has no class {name} that derives from ddptrain.tasks.base.Task")
    return task
