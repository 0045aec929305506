"""Every task by its name in the config."""

from ddptrain.config import RunConfig
from ddptrain.tasks.base import Task
from ddptrain.tasks.detection import DetectionTask

TASKS = {"detection": DetectionTask}


def build_task(config: RunConfig) -> Task:
    """Read the datasets of a run and make its task.

    Raises:
        UserError: a mistake in the datasets.
    """
    return TASKS[config.task](config)
