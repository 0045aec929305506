"""Runs that several tests of commands look at."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from small_runs import write_config
from support import train


@pytest.fixture(scope="session")
def made(small_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a task's small run of 6 steps with checkpoints after 2, 4 and 6, trained once; not to be changed."""

    @cache
    def folder(task: str) -> Path:
        output = tmp_path_factory.mktemp(f"made-{task}")
        config = write_config(task, small_data(task), output)
        train(1, config, "checkpoint.every_steps=2", "checkpoint.keep_last=9", "eval.max_bad_images=9")
        return output / "run"

    return folder
