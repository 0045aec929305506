"""Every task by its name in the config."""

from collections.abc import Callable

from ddptrain.config import RunConfig
from ddptrain.tasks.base import Model, Task
from ddptrain.tasks.classification import ClassificationModel, ClassificationTask
from ddptrain.tasks.detection import DetectionModel, DetectionTask
from ddptrain.tasks.inspection import Inspection, inspect_detection
from ddptrain.tasks.mask_inspection import inspect_segmentation
from ddptrain.tasks.segmentation import SegmentationModel, SegmentationTask

TASKS: dict[str, Callable[[RunConfig], Task]] = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "segmentation": SegmentationTask,
}
MODELS: dict[str, Callable[[RunConfig], Model]] = {
    "classification": ClassificationModel,
    "detection": DetectionModel,
    "segmentation": SegmentationModel,
}
INSPECTIONS = {"detection": inspect_detection, "segmentation": inspect_segmentation}


def build_task(config: RunConfig) -> Task:
    """Read the datasets of a run and make its task.

    Raises:
        UserError: a mistake in the datasets.
    """
    return TASKS[config.task](config)


def load_predictor(config: RunConfig) -> Model:
    """The part of the task that needs no datasets, to use a trained run."""
    return MODELS[config.task](config)


def inspect(config: RunConfig, images: int) -> Inspection:
    """What the task finds in a run's datasets; nothing for a task that does not look.

    Args:
        images: how many are opened to look for duplicates; 0 for all.
    """
    look = INSPECTIONS.get(config.task)
    return Inspection() if look is None else look(config, images)
