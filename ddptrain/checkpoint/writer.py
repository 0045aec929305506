"""Checkpoints written while training continues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddptrain.checkpoint import files as checkpoint
from ddptrain.checkpoint.digest import weights_digest
from ddptrain.checkpoint.host_copy import copy_to_host
from ddptrain.errors import UserError


class CheckpointWriter:
    """Saves in a thread of its own: training waits only for the copy to host memory.

    One save runs at a time; the next one waits for it. The thread outlives an error of the main thread, so a save that began
    is finished before the process ends.

    Attributes:
        failed: the newest save that ended failed: the run must then end with an error.
        digest: of the weights in the newest checkpoint that was saved (`checkpoint/digest.py`), empty before the first.
    """

    def __init__(self, folder: Path, keep_last: int, keep_every: int | None, report: Callable[[str], None]) -> None:
        """Make the folder; raises `UserError` where that fails. `keep_last` and `keep_every` are those of `files.prune`;
        `report` receives a line about a save that failed, from the writing thread."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(
                f"{folder}: checkpoints cannot be written there ({e.strerror}); set output to another folder"
            ) from None
        self._folder, self._keep_last, self._keep_every, self._report = folder, keep_last, keep_every, report
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self.failed, self.digest = False, ""

    def reserve(self, state: dict[str, Any]) -> None:
        """Take the host memory for `state` in the background, once after the first step.

        Fresh memory costs several times the copy into it (at 1 GB some 0.4 s instead of 0.1 s); without this, the first
        `submit` pays for it.
        """
        self._start(copy_to_host, state, self._buffers)

    def submit(self, state: dict[str, Any], step: int, best: bool = False, links: Sequence[str] = ()) -> None:
        """Copy `state` and write it in the background (see `files.save`); waits for the save before."""
        self.wait()
        self._start(self._save, copy_to_host(state, self._buffers), step, best, links)

    def wait(self) -> None:
        """Wait until the present save is on disk, or has failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _start(self, work: Callable[..., object], *args: object) -> None:
        self.wait()
        device = torch.cuda.current_device() if torch.cuda.is_initialized() else -1

        def on_the_same_device() -> None:
            with torch.cuda.device(device):  # a fresh thread is on the first one, and would take memory there
                work(*args)

        self._thread = threading.Thread(target=on_the_same_device, name="checkpoint")
        self._thread.start()

    def _save(self, state: dict[str, Any], step: int, best: bool, links: Sequence[str]) -> None:
        try:
            digest = weights_digest(state)  # here it takes no time of the training
            checkpoint.save(self._folder, state | {"digest": digest}, step, best, links)
            self.failed, self.digest = False, digest
        except Exception as e:  # whatever it is, training continues and the run ends non-zero
            self.failed = True
            links = [*(["best.pt"] if best else ()), *links]
            kept = checkpoint.point_to(self._folder, step, links)
            more = f"; {' and '.join(links)} cannot point to it" if links and not kept else ""
            self._report(f"{checkpoint.path_of(self._folder, step)}: not saved ({e}); earlier checkpoints are intact{more}")
            return
        try:
            checkpoint.prune(self._folder, self._keep_last, self._keep_every)
        except OSError as e:
            self._report(f"{self._folder}: old checkpoints not deleted ({e})")
