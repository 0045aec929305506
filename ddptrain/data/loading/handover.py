"""How a batch gets from a loader process to the trainer: in shared memory where that has room, else through the pipe.

torch fills `/dev/shm` in a thread whose errors end nothing: a batch that does not fit is lost, and the trainer waits for it
forever. Here the worker itself takes the memory, and finds out whether there is any.
"""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from ddptrain.structures import Batch
from ddptrain.system.limits import ENOUGH_FILES, few_files, open_file_limit

SHARED_MEMORY = "/dev/shm"
SPARE = 8
"""One part in this many of the shared memory is left free: the locks of further processes are in it, too."""


@dataclass(frozen=True)
class Parcel:
    """A batch on its way through the pipe, and what it would have taken in shared memory."""

    batch: Batch
    size: int

    def open(self) -> Batch:
        """The batch in the trainer."""
        return self.batch.map(torch.as_tensor)

    def pin_memory(self) -> Parcel:
        """With its tensors in page-locked memory (called by the DataLoader)."""
        return Parcel(self.open().pin_memory(), self.size)


def pack(batch: Batch) -> Batch | Parcel:
    """Move a batch into shared memory, or make a parcel of one that does not fit."""
    tensors = [batch.images, batch.keys, batch.annotated, *batch.targets.values(), batch.to_native, batch.native_size]
    # each tensor in shared memory is an open file
    if open_file_limit() >= ENOUGH_FILES and all(_share(t) for t in tensors):
        return batch
    return Parcel(batch.map(lambda t: t if t.is_shared() else t.numpy()), sum(t.nbytes for t in tensors))


def why_not_shared(size: int, workers: int, prefetch: int) -> str:
    """Why batches of `size` bytes are not shared, what they need, and what to do."""
    if open_file_limit() < ENOUGH_FILES:
        return few_files()
    free, total = room() or (0, 0)
    need = size * workers * (prefetch + 1)
    return (
        f"shared memory is too small: {SHARED_MEMORY} has {free / 1e6:.1f} of {total / 1e6:.1f} MB free, {workers} workers "
        f"with batches of {size / 1e6:.1f} MB need {need / 1e6:.1f} MB; enlarge it (docker: --shm-size), or lower data.workers"
    )


def remedy(error: OSError) -> str:
    """What to do where no process can be started, or no batch handed over."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{few_files()}, or set data.workers=0"
    if error.errno == errno.EAGAIN:
        return "raise the number of processes (ulimit -u), or set data.workers=0"
    free = (room() or (0, 0))[0]
    return f"{SHARED_MEMORY} has {free / 1e6:.1f} MB free; enlarge it (docker: --shm-size), or set data.workers=0"


def room() -> tuple[int, int] | None:
    """Free and total bytes of shared memory; None where the system has no such directory."""
    try:
        memory = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return memory.f_bavail * memory.f_frsize, memory.f_blocks * memory.f_frsize


def _share(tensor: Tensor) -> bool:
    free, total = room() or (sys.maxsize, 0)
    if tensor.nbytes + total // SPARE > free:
        return False
    try:
        tensor.share_memory_()
    except (RuntimeError, OSError):  # full after all, or too many open files
        return False
    return True
