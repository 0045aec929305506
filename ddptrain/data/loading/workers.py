"""Batches from worker processes, the same whatever their number.

Workers get keys and return batches; all that they do is a function of the key, so nothing about them is ever saved.
On Linux they are forked: the tables are shared, not copied, and a start costs milliseconds. A parent that has touched
CUDA may fork as long as the child does not use CUDA, and workers only use OpenCV and numpy.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils.signal_handling import _remove_worker_pids
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ddptrain.data.loading.handover import Parcel, pack, remedy, why_not_shared
from ddptrain.errors import RankFailed, UserError
from ddptrain.structures import Batch, Sample, SampleKey
from ddptrain.system import temporary
from ddptrain.system.limits import open_file_limit

_PREFETCH = 2
_PATIENCE_S = 3.0
_LOOK_S = 5.0
_STOP_S = 20.0
# whoever sends these means the trainer, which then ends the workers in order
_IGNORED = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, n)]


class LoaderError(RankFailed):
    """A worker process died."""


class Samples(Protocol):
    """What a loader reads from: a pure function of the key."""

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of `key`."""

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Join samples."""

    def source(self, key: SampleKey) -> str:
        """Where the sample is read from (a path), for messages."""


class Loader:
    """An iterator over batches that ends its worker processes in `close` (also after the last batch, and at exit).

    Attributes:
        processes: the workers.
    """

    def __init__(
        self,
        samples: Samples,
        batches: Iterator[list[SampleKey]],
        workers: int,
        pin_memory: bool,
        wait: Wait | None = None,
    ) -> None:
        """
        Args:
            samples: where samples come from; sent to the workers once.
            batches: the keys of each batch; read in this process.
            workers: worker processes; 0 loads in this one, and so do all where the system grants no further process.
            pin_memory: copy batches to page-locked memory.
            wait: how long to wait for a batch, and who is told of trouble.
        """
        self.workers = workers
        self._wait = wait or Wait()
        self._told = False
        # a pool of threads does not survive a fork, and with a process per core it only costs
        cv2.setNumThreads(0)
        open_file_limit()
        before = set(multiprocessing.active_children())
        try:
            if workers:
                temporary.for_children()
            self._iterator: Any = _start(samples, batches, workers, pin_memory)
        except OSError as e:  # no shared memory for their locks, no files, no processes
            _kill([p for p in multiprocessing.active_children() if p not in before])
            self._wait.report(
                f"no loader processes ({e.strerror}): images are read in this process, which is slower; {remedy(e)}"
            )
            self.workers = 0
            self._iterator = _start(samples, batches, 0, pin_memory)
        self.processes = [p for p in multiprocessing.active_children() if p not in before]
        self._at_exit = functools.partial(_kill, self.processes)
        if self.processes:
            atexit.register(self._at_exit)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            LoaderError: a worker died.
            RankFailed: the samples cannot be read.
        """
        if self._iterator is None:
            raise StopIteration
        try:
            self._check_workers()
            batch = self._next()
        except StopIteration:
            self.close()
            raise
        if isinstance(batch, UserError):
            self.close()
            raise RankFailed(str(batch))
        if isinstance(batch, Parcel):
            if not self._told:
                self._told = True
                why = why_not_shared(batch.size, self.workers, _PREFETCH)
                self._wait.report(f"batches come through pipes, which is slower: {why}")
            return batch.open()
        return batch

    def _next(self) -> Any:
        """The next batch from torch, which looks after its workers and gives up every `_LOOK_S` while it waits."""
        since, say_after = time.monotonic(), 2 * _LOOK_S
        while True:
            try:
                return next(self._iterator)
            except (RuntimeError, ConnectionError, EOFError) as e:
                if not isinstance(e, RuntimeError):  # a worker died while it handed a batch over
                    with contextlib.suppress(RuntimeError):  # by which torch's own handler tells its end
                        connection.wait([p.sentinel for p in self.processes], _LOOK_S)
                self._check_workers()
                if "Too many open files" in str(e):
                    raise LoaderError(f"too many open files: {remedy(OSError(errno.EMFILE, ''))}") from None
                if "timed out" not in str(e):
                    raise
            waited = time.monotonic() - since
            stopped = self._wait.stopped()
            if waited > (min(_STOP_S, self._wait.timeout_s) if stopped else self._wait.timeout_s):
                self._end(at_once=True)
                asked = ", and the run was asked to stop" if stopped else ""
                raise LoaderError(
                    f"no batch came for {waited:.0f} s{asked}: files of the datasets cannot be read, or only very slowly; "
                    f"check their disk, or raise train.timeout_s ({self._wait.timeout_s:g} s)"
                )
            if waited > say_after:
                self._wait.report(f"waiting for a batch for {waited:.0f} s; the run ends after {self._wait.timeout_s:g} s")
                say_after *= 2

    def close(self) -> None:
        """End the workers: in order where they can within some seconds, by force otherwise. Closing twice is fine."""
        self._end(at_once=False)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, at_once: bool) -> None:
        iterator, self._iterator = self._iterator, None
        if iterator is None or not self.processes:
            return
        if at_once:
            _kill(self.processes)
        # a worker that hangs in a read from a dead disk hears nothing else, and torch would wait 5 s for each
        timer = threading.Timer(_PATIENCE_S, _kill, [self.processes])
        timer.daemon = True
        timer.start()
        try:
            # a worker that died meanwhile is told by `_check_workers`, not by torch's own error
            with contextlib.suppress(RuntimeError):
                iterator._shutdown_workers()
        finally:
            timer.cancel()
            timer.join()  # its thread may have taken an exit status that it has not yet noted
            _kill(self.processes)
            atexit.unregister(self._at_exit)

    def _check_workers(self) -> None:
        dead = [p for p in self.processes if not p.is_alive()]
        if not dead:
            return
        self._end(at_once=True)
        codes = sorted({p.exitcode for p in dead if p.exitcode is not None})
        known = {-s.value: s.name for s in signal.Signals}
        names = [known.get(c, f"exit status {c}") for c in codes]
        cause = "see its message above"
        if -signal.SIGKILL in codes:
            cause = "most likely the machine or the job ran out of memory: lower data.workers or ask for more memory"
        elif -signal.SIGBUS in codes:
            cause = "most likely shared memory ran out: lower data.workers or enlarge /dev/shm (docker: --shm-size)"
        raise LoaderError(f"a loader process ended ({', '.join(names)}; data.workers is {self.workers}): {cause}") from None


@dataclass(frozen=True)
class Wait:
    """How a loader waits.

    Attributes:
        timeout_s: seconds for a batch, after which the run ends.
        stopped: whether the run was asked to stop: it then waits no longer.
        report: told of trouble, in one line.
    """

    timeout_s: float = 1800.0
    stopped: Callable[[], bool] = lambda: False
    report: Callable[[str], None] = lambda line: print(f"ddptrain: warning: {line}", file=sys.stderr, flush=True)


def _start(samples: Samples, batches: Iterator[list[SampleKey]], workers: int, pin_memory: bool) -> Any:
    """torch's own iterator, with its workers."""
    start = "fork" if sys.platform == "linux" else "spawn"
    with _quiet_start():
        loader: Any = DataLoader(
            _Fetch(samples, pack=workers > 0),  # type: ignore[arg-type]
            batch_sampler=_Once(batches),
            collate_fn=_as_it_is,
            num_workers=workers,
            timeout=_LOOK_S if workers else 0,
            pin_memory=pin_memory,
            worker_init_fn=functools.partial(_start_worker, os.getpid()),
            multiprocessing_context=start if workers else None,
            prefetch_factor=_PREFETCH if workers else None,
            # without its own generator, the DataLoader draws from torch's global one
            generator=torch.Generator(),
        )
        return _Iterator(loader) if workers else iter(loader)


class _Iterator(_MultiProcessingDataLoaderIter):
    """torch's, whose end complains of what is missing in one that could not be started."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        # torch's SIGCHLD handler, where another DataLoader of this process has set it, raises wherever the trainer is
        _remove_worker_pids(id(self))
        self._worker_pids_set = False

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            super().__del__()


class _Once:
    """Hands torch a generator as the batch sampler, which it iterates once."""

    def __init__(self, batches: Iterator[list[SampleKey]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self.batches


class _Fetch:
    """Runs in the worker: makes a whole batch, and returns a user's error instead of raising it.

    torch would wrap a raised one in the worker's traceback.
    """

    def __init__(self, samples: Samples, pack: bool) -> None:
        self.samples, self.pack = samples, pack

    def __getitems__(self, keys: list[SampleKey]) -> Batch | Parcel | UserError:
        try:
            batch = self.samples.collate([self.samples[key] for key in keys])
        except UserError as e:
            return e
        return pack(batch) if self.pack and isinstance(batch, Batch) else batch


def _as_it_is(batch: Any) -> Any:
    return batch


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Around the start of workers: signals wait, so that none meets a worker that still has the trainer's handlers,
    and torch's own SIGCHLD handler, which raises wherever the trainer happens to be, is put away again: `Loader`
    finds a dead worker by itself."""
    main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGCHLD) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        with warnings.catch_warnings():
            # torch's advice on the number of workers, which the config has fixed
            warnings.filterwarnings("ignore", "This DataLoader will create")
            # Python >= 3.12 warns of forks beside threads; see the module's docstring and `cv2.setNumThreads`
            warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
            yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGCHLD, previous)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_worker(parent: int, worker_id: int) -> None:
    """First thing in a worker: no threads, no signals of the trainer, no life without it."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _kill(processes: Sequence[Any]) -> None:
    """End processes at once; they ignore SIGTERM, for which multiprocessing would wait for ever at exit."""
    for process in processes:
        if process.is_alive():
            process.kill()
    for process in processes:
        process.join(1.0)
