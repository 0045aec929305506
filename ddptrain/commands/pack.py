"""`ddptrain pack`: decode the images of a run ahead, so that it starts with them (`data.cache: disk`)."""

from __future__ import annotations

from collections.abc import Sequence

from ddptrain.config import load_config
from ddptrain.data.packed.build import Talk
from ddptrain.system.printable import say
from ddptrain.tasks.build import build_task
from ddptrain.tasks.pixels import cache_pixels


def pack_run(config: str, overrides: Sequence[str]) -> int:
    """Make the files on disk that are not there yet, and tell of each what it holds, where it is and how long it took.

    Args:
        config: path of the run's config.
        overrides: changes to it.

    Raises:
        UserError: see `cache_pixels`.
    """
    task = build_task(load_config(config, overrides))
    for line in cache_pixels(task, "disk", Talk(say, say)):
        say(line)
    if task.config.data.cache != "disk":
        say(f"a run uses them with data.cache=disk; in this config it is {task.config.data.cache}")
    return 0
