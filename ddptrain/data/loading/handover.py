"""How a batch gets from a loader process to the trainer: through a file in memory that both hold, else through the pipe.

torch would make a file of each tensor of each batch, in `/dev/shm`, whose pages the system clears each time, and fill it in a
thread whose errors end nothing: a batch that does not fit there is lost. Here a worker writes a whole batch into a place of one
file, and writes there again once the trainer has let go of all that it read from it.
"""

from __future__ import annotations

import errno
import mmap
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import reduction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ddptrain.structures import Batch
from ddptrain.system.limits import few_files

SHARED_MEMORY = "/dev/shm"
_PLACES, _PLACE = 1 << 12, 1 << 36
"""Of each worker: the number of places, and the bytes of each; only those that were written take memory."""
_ALIGNMENT = 64


class Arrived(NamedTuple):
    """A batch in the trainer, and why it came through a pipe, if it did."""

    batch: Batch
    why: str


@dataclass(frozen=True)
class Parcel:
    """A batch on its way.

    Attributes:
        pickled: the batch, but for what lies in the file.
        file: the trainer's number of that file.
        start: where in it the batch lies.
        buffers: where, from there on, each of its arrays begins and ends; None if all is pickled.
        why: there is no file, or it could not be written.
        seconds: see `Batch`.
    """

    pickled: bytes
    file: int = -1
    start: int = 0
    buffers: tuple[tuple[int, int], ...] | None = None
    why: str = ""
    seconds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def open(self) -> Arrived:
        """The batch, in the trainer."""
        memory = None
        if self.buffers is not None:
            memory = memoryview(_Taken(self.file, max(end for _, end in self.buffers), offset=self.start))
        laid: Any = pickle.loads(self.pickled, buffers=memory and [memory[a:b] for a, b in self.buffers or ()])
        batch: Batch = laid.map(_Laid.tensor)
        batch.seconds = self.seconds
        return Arrived(batch, self.why)

    def pin_memory(self) -> Arrived:
        """The batch in page-locked memory (called by the DataLoader)."""
        batch, why = self.open()
        return Arrived(batch.pin_memory(), why)


class Places:
    """The file, and who may write where: each worker into places of its own.

    Raises nothing where the system has no such files: then all goes through the pipe.
    """

    def __init__(self, workers: int) -> None:
        self._file = self._trainers = -1
        self._why = "this system has no files in memory"
        try:
            self._file = self._trainers = os.memfd_create("batches")
            os.ftruncate(self._file, workers * _PLACES * _PLACE)
        except AttributeError:
            pass
        except OSError as e:
            self._why = f"no file in memory can be made ({e.strerror})"
            self.close()

    def pack(self, batch: Batch) -> Parcel:
        """Write a batch, in a worker."""
        laid, why = batch.map(_Laid.of), self._why
        if self._file >= 0:
            buffers: list[pickle.PickleBuffer] = []
            pickled = pickle.dumps(laid, protocol=5, buffer_callback=buffers.append)
            try:
                return Parcel(pickled, self._trainers, *self._write([b.raw() for b in buffers]))
            except OSError as e:
                why = f"they cannot be written to memory ({e.strerror}); lower data.workers"
        return Parcel(pickle.dumps(laid, protocol=5), why=why)

    def close(self) -> None:
        """Let go of the file; batches that have arrived keep theirs."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({"_file": reduction.DupFd(self._file)} if self._file >= 0 else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        file = state["_file"]
        self.__dict__ |= state | {"_file": file if isinstance(file, int) else file.detach()}

    def _write(self, arrays: list[memoryview]) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Where the arrays now lie, as `Parcel` has it."""
        info = get_worker_info()
        first = 0 if info is None else info.id * _PLACES
        starts = (number * _PLACE for number in range(first, first + _PLACES))
        start = next((s for s in starts if os.pread(self._file, 1, s) == _Taken.FREE), None)
        if start is None:
            raise OSError(errno.ENOSPC, f"{_PLACES} batches are held")
        buffers, end = [], mmap.ALLOCATIONGRANULARITY
        for raw in arrays:
            buffers.append((end, end + raw.nbytes))
            written = 0
            while written < raw.nbytes:
                written += os.pwrite(self._file, raw[written:], start + end + written)
            end += -(-raw.nbytes // _ALIGNMENT) * _ALIGNMENT
        os.pwrite(self._file, b"\1", start)
        return start, tuple(buffers)


class _Taken(mmap.mmap):
    """A place of the file in the trainer, of which the first byte says that it is taken; free once no array lies in it."""

    FREE = b"\0"
    _owner = 0  # of one that could not be mapped

    def __init__(self, *_: Any, **__: Any) -> None:
        self._owner = os.getpid()

    def __del__(self) -> None:
        if os.getpid() == self._owner:  # and not a process that was forked while the batch was there
            self[:1] = self.FREE


class _Laid(NamedTuple):
    """A tensor as bytes in the order of its memory."""

    data: np.ndarray
    dtype: torch.dtype
    shape: tuple[int, ...]
    order: list[int]

    @classmethod
    def of(cls, tensor: Tensor) -> _Laid:
        """Its bytes; of one whose memory has gaps, those of a copy."""
        strides = tensor.stride()
        order = sorted(range(tensor.dim()), key=lambda d: -strides[d])
        dense = tensor.permute(order)
        flat = dense.reshape(-1)
        if flat.stride(0) != 1:  # a single element may lie with any
            flat = flat.clone(memory_format=torch.contiguous_format)
        return cls(flat.view(torch.uint8).numpy(), tensor.dtype, tuple(dense.shape), order)

    def tensor(self) -> Tensor:
        """The tensor, with the strides that it had."""
        back = [self.order.index(d) for d in range(len(self.order))]
        return torch.from_numpy(self.data).view(self.dtype).reshape(self.shape).permute(back)


def remedy(error: OSError) -> str:
    """What to do where no process can be started, or no batch handed over."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{few_files()}, or set data.workers=0"
    if error.errno == errno.EAGAIN:
        return "raise the number of processes (ulimit -u), or set data.workers=0"
    return f"{SHARED_MEMORY} has {_room() / 1e6:.1f} MB free; enlarge it (docker: --shm-size), or set data.workers=0"


def _room() -> int:
    """Free bytes of shared memory; 0 where the system has no such directory."""
    try:
        memory = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return memory.f_bavail * memory.f_frsize
