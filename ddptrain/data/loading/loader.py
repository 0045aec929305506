"""An iterator over batches that waits with patience, names what went wrong, and leaves no worker process behind."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import multiprocessing
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import cv2

from ddptrain.data.loading.costs import Costs
from ddptrain.data.loading.handover import Arrived, Parcel, Places, remedy
from ddptrain.data.loading.shared import Shared
from ddptrain.data.loading.workers import Samples, kill, start
from ddptrain.errors import RankFailed, UserError
from ddptrain.structures import Batch, SampleKey
from ddptrain.system import temporary
from ddptrain.system.limits import open_file_limit

# seconds: until workers that do not end are killed, between two looks at them in a wait, and of a wait once the run should stop
_PATIENCE_S, _LOOK_S, _STOP_S = 3.0, 5.0, 20.0


class LoaderError(RankFailed):
    """A worker process died."""


@dataclass(frozen=True)
class Wait:
    """How a loader waits.

    Attributes:
        timeout_s: seconds for a batch, after which the run ends.
        stopped: whether the run was asked to stop: the wait is then short.
        report: called with a line about each problem.
    """

    timeout_s: float = 600.0
    stopped: Callable[[], bool] = lambda: False
    report: Callable[[str], None] = lambda line: print(f"ddptrain: warning: {line}", file=sys.stderr, flush=True)


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
        served: bool | None = None,
        costs: Costs | None = None,
    ) -> None:
        """
        Args:
            samples: where samples come from; sent to the workers once.
            batches: the keys of each batch; read in this process.
            workers: worker processes; 0 loads in this one, which is also done where the system grants no further process.
            pin_memory: copy batches to page-locked memory.
            wait: how long to wait for a batch, and where problems are reported.
            served: workers are forked by a server and not by this process; by default where memory is pinned, since then this
                process uses a GPU.
            costs: which batches are measured, and where their seconds are counted.
        """
        self.workers = workers
        self._wait, self._costs = wait or Wait(), costs
        batches = batches if costs is None else costs.mark(batches)
        self._reported = False
        # a pool of threads does not survive a fork, and with a process per core it only costs
        cv2.setNumThreads(0)
        open_file_limit()
        before = set(multiprocessing.active_children())
        self._places: Places | None = None
        try:
            if workers:
                temporary.for_children()
                self._places = Places(workers)
            shared = self._share(samples) if workers and (pin_memory if served is None else served) else None
            served = shared is not None
            self._iterator: Any = start(shared or samples, batches, self._places, workers, pin_memory, _LOOK_S, served)
            if shared is not None:
                shared.close()
        except OSError as e:  # no shared memory for their locks, no files, no processes
            kill([p for p in multiprocessing.active_children() if p not in before])
            if self._places is not None:
                self._places.close()
            self._wait.report(
                f"no loader processes ({e.strerror}): images are read in this process, which is slower; {remedy(e)}"
            )
            self.workers = 0
            self._iterator = start(samples, batches, None, 0, pin_memory, _LOOK_S, False)
        self.processes = [p for p in multiprocessing.active_children() if p not in before]
        self._at_exit = functools.partial(kill, self.processes)
        if self.processes:
            atexit.register(self._at_exit)

    def _share(self, samples: Samples) -> Shared | None:
        """The samples for workers of a server; None, and a warning, where they cannot be sent to another process."""
        try:
            return Shared(samples)
        except (pickle.PicklingError, AttributeError, TypeError) as e:
            self._wait.report(
                f"the samples of this task cannot be pickled ({e}): loader processes are forked from one that uses a GPU, "
                "which may fail; give their class no lambdas and no open files"
            )
            return None

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
            try:
                batch = batch.open()
            except OSError as e:  # each batch that is held is an open file
                self._end(at_once=True)
                raise LoaderError(f"a batch cannot be taken from memory ({e.strerror}): {remedy(e)}") from None
        if isinstance(batch, Arrived):
            batch, why = batch
            if why and not self._reported:
                self._reported = True
                self._wait.report(f"batches are sent through pipes, which is slower: {why}")
        if self._costs is not None:
            self._costs.add(batch)
        return batch

    def _next(self) -> Any:
        """The next batch from torch, whose wait is interrupted every `_LOOK_S` to look at the workers."""
        since, say_after = time.monotonic(), 2 * _LOOK_S
        while True:
            try:
                return next(self._iterator)
            except (RuntimeError, ConnectionError, EOFError) as e:
                if not isinstance(e, RuntimeError):  # a worker died while it handed a batch over
                    with contextlib.suppress(RuntimeError):  # raised by torch's own handler when it ends
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
                    f"no batch arrived for {waited:.0f} s{asked}: the dataset files cannot be read, or only very slowly; "
                    f"check the disk they are on, or raise train.timeout_s ({self._wait.timeout_s:g} s)"
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
            kill(self.processes)
        # a worker that hangs in a read from a dead disk reacts to nothing else, and torch would wait 5 s for each
        timer = threading.Timer(_PATIENCE_S, kill, [self.processes])
        timer.daemon = True
        timer.start()
        try:
            # a worker that died meanwhile is reported by `_check_workers`, not by torch's own error
            with contextlib.suppress(RuntimeError):
                iterator._shutdown_workers()
        finally:
            timer.cancel()
            timer.join()  # its thread may have taken an exit status without having noted it yet
            kill(self.processes)
            atexit.unregister(self._at_exit)
            if self._places is not None:
                self._places.close()

    def _check_workers(self) -> None:
        dead = [p for p in self.processes if not p.is_alive()]
        if not dead:
            return
        self._end(at_once=True)
        codes = sorted({p.exitcode for p in dead if p.exitcode is not None})
        signals = {-s.value: s.name for s in signal.Signals}
        names = [signals.get(c, f"exit status {c}") for c in codes]
        cause = "see its message above"
        if -signal.SIGKILL in codes:
            cause = "most likely the machine or the job ran out of memory: lower data.workers or ask for more memory"
        elif -signal.SIGBUS in codes:
            cause = "most likely shared memory ran out: lower data.workers or enlarge /dev/shm (docker: --shm-size)"
        raise LoaderError(f"a loader process ended ({', '.join(names)}; data.workers is {self.workers}): {cause}") from None
