"""Every task by its name in the config."""

from ddptrain.config import RunConfig
from ddptrain.tasks.base import Model, Task
from ddptrain.tasks.detection import DetectionModel, DetectionTask

TASKS = {"detection": DetectionTask}
MODELS = {"detection": DetectionModel}


def build_task(config: RunConfig) -> Task:
    """Read the datasets of a run and make its task.

    Raises:
        UserError: a mistake in the datasets.
    """
    return TASKS[config.task](config)


def load_predictor(config: RunConfig) -> Model:
    """The part of the task that needs no datasets, to use a trained run."""
    return MODELS[config.task](config)
