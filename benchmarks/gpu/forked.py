"""Processes that are forked instead of started, where there is no GPU: a start of Python takes seconds."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ddptrain.commands import short_runs
from ddptrain.system.ending import end_with


class Forked:
    """A call in a fork of this process, with the members of `subprocess.Popen` that are used here.

    Args:
        log: a file descriptor.
    """

    def __init__(self, call: Callable[[], int], environ: Mapping[str, str], log: int) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=(call, dict(environ), log))
        self._process.start()
        self.kill = self._process.kill

    @staticmethod
    def _run(call: Callable[[], int], environ: Mapping[str, str], log: int) -> None:
        os.environ.clear()
        os.environ.update(environ)
        for stream in (1, 2):
            os.dup2(log, stream)
        end_with(call)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        return int(self._process.exitcode or 0)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode


def short_run(command: Sequence[str], stdout: Any, stderr: int, env: Mapping[str, str]) -> Forked:
    """A run of `ddptrain verify`, in place of `subprocess.Popen`."""
    return Forked(lambda: short_runs.main(command[3:]), env, stdout.fileno())
