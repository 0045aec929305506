"""Worker processes that make batches, the same whatever their number.

Workers get keys and return batches; all that they do is a function of the key, so nothing about them is ever saved.
On Linux they are forked: the tables are shared, not copied, and a start costs milliseconds. A trainer on a GPU is not forked,
since threads and registered memory of CUDA and NCCL do not survive it: there workers are forked by a server, a clean process
that has imported what they need, and share the tables through a file in memory (`shared.py`).
"""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import forkserver, resource_tracker
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils.signal_handling import _remove_worker_pids
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ddptrain.data.loading.costs import COLLATE, REST, Measured, watched
from ddptrain.data.loading.handover import Parcel, Places
from ddptrain.data.loading.shared import Shared
from ddptrain.errors import UserError
from ddptrain.structures import Batch, Sample, SampleKey
from ddptrain.system.clock import Clock
from ddptrain.system.memory import keep_memory

PREFETCH = 2
"""Batches that each worker makes in advance."""
_NEEDED = [f"ddptrain.data.samples.{task}" for task in ("classification", "detection", "interaction", "segmentation")]
_NEEDED += [__name__, "ddptrain.config"]
# these are meant for the trainer, which then ends the workers in order
_IGNORED = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, n)]


class Samples(Protocol):
    """Where a loader takes samples from: a pure function of the key."""

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of `key`."""

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join samples."""

    def source(self, key: SampleKey) -> str:
        """Path that the sample is read from, for messages."""


def start_server() -> None:
    """Start the server that forks workers, if it does not run; it imports what they need while the trainer goes on."""
    resource_tracker.ensure_running()  # it is needed, and its start lets signals through
    with _quiet_start():
        forkserver.set_forkserver_preload(_NEEDED)
        forkserver.ensure_running()


def start(
    samples: Samples | Shared,
    batches: Iterator[list[SampleKey]],
    places: Places | None,
    workers: int,
    pin_memory: bool,
    look_s: float,
    served: bool,
) -> Any:
    """torch's own iterator, with its workers, which pack batches into `places`, forked by this process or by the server
    (`served`); it gives up every `look_s` seconds while it waits."""
    if not workers:
        keep_memory()
    method = "forkserver" if served else "fork" if sys.platform == "linux" else "spawn"
    if served:
        start_server()
    with _quiet_start():
        loader: Any = DataLoader(
            _Fetch(samples, places),  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=_as_it_is,
            num_workers=workers,
            timeout=look_s if workers else 0,
            pin_memory=pin_memory,
            worker_init_fn=functools.partial(_start_worker, None if served else os.getpid()),
            multiprocessing_context=method if workers else None,
            prefetch_factor=PREFETCH if workers else None,
            # without its own generator, the DataLoader draws from torch's global one
            generator=torch.Generator(),
        )
        return _Iterator(loader) if workers else iter(loader)


class _Iterator(_MultiProcessingDataLoaderIter):
    """torch's own, which also ends quietly when it could not be started."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        # torch's SIGCHLD handler, where another DataLoader of this process has set it, raises wherever the trainer is
        _remove_worker_pids(id(self))
        self._worker_pids_set = False

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            super().__del__()


class _Fetch:
    """Runs in the worker: makes a whole batch, and returns a user's error instead of raising it.

    torch would wrap a raised one in the worker's traceback.
    """

    def __init__(self, samples: Samples | Shared, places: Places | None) -> None:
        self.samples, self.places = samples, places

    def __getitems__(self, keys: list[SampleKey]) -> Batch | Parcel | UserError:
        samples: Samples = self.samples.open() if isinstance(self.samples, Shared) else self.samples
        self.samples = samples
        clock = Clock(REST) if isinstance(keys, Measured) else None  # to look at a clock takes microseconds
        try:
            with watched(clock) if clock is not None else contextlib.nullcontext():
                made = [samples[key] for key in keys]
            with clock.part(COLLATE) if clock is not None else contextlib.nullcontext():
                batch = samples.collate(made)
                packed = self.places.pack(batch) if self.places is not None and isinstance(batch, Batch) else batch
        except UserError as e:
            return e
        return packed if clock is None else replace(packed, seconds=clock.read())


def _as_it_is(batch: Any) -> Any:
    return batch


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Around the start of workers: signals wait, so that none reaches a worker that still has the trainer's handlers,
    and torch's own SIGCHLD handler, which raises wherever the trainer happens to be, is removed again: `Loader`
    notices a dead worker by itself."""
    main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGCHLD) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        with warnings.catch_warnings():
            # torch's advice on the number of workers, which the config determines
            warnings.filterwarnings("ignore", "This DataLoader will create")
            # Python >= 3.12 warns of forks beside threads; see the module's docstring and `cv2.setNumThreads`
            warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
            yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGCHLD, previous)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_worker(parent: int | None, worker_id: int) -> None:
    """What a worker does first: it keeps its memory, uses one thread, ignores the trainer's signals, and ends with the trainer,
    `parent`; or with the server (None), which ends with the trainer."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    keep_memory()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if parent is None:  # the server may be that of several trainers
        threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    elif os.getppid() != parent:
        os._exit(1)


def _end_with_the_trainer() -> None:
    trainer = multiprocessing.parent_process()
    if trainer is not None:
        trainer.join()
    os._exit(1)


def kill(processes: Sequence[Any]) -> None:
    """End processes at once; they ignore SIGTERM, for which multiprocessing would wait forever at exit."""
    for process in processes:
        if process.is_alive():
            process.kill()
    for process in processes:
        process.join(1.0)
