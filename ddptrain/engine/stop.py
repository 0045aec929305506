"""Signals that ask a run to stop. No torch here: the handlers stand before torch is imported.

    SIGTERM, SIGINT, SIGHUP,            the first one sets a flag and nothing else: the loop finishes the step that all
    SIGUSR1, SIGUSR2                    ranks agree on, saves and leaves. `ddptrain/system/status.py` lists the exit statuses
    SIGTERM, SIGINT, SIGHUP before the  end the process at once with 128 + their number where it waits for other ranks
    first step                          (`ddptrain/distributed/waiting.py`)
    a second one, of whatever kind      ends the process at once with 128 + its number, saving nothing
    again within 1 s of the first       the same request, received twice: torchrun, srun and a batch script forward one
                                        signal by several ways. It is not counted

A Python handler runs only between bytecodes of the main thread, which may be stuck in a collective or a kernel. The
second signal works there as well: a thread of its own reads the numbers that Python's C handler writes to a pipe
(`signal.set_wakeup_fd`). SIGHUP is left ignored where it is (nohup).

A rank whose launcher is gone (torchrun killed outright) ends at once as well, unsaved: nobody could stop it any more, and the
next start resumes from the newest checkpoint.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LEAVING_S, _SAVING_S = 2.0, 20.0


class StopFlag:
    """Context manager that holds the handlers; only the main thread may enter it.

    Attributes:
        signal: number of the first signal that came, None while none did.
        limit: steps of this process after which the run stops as if a signal had come; None for no limit.
        saves: there is a step to save; set by the training loop.
        on_leave: called when the process ends at once, for what must not be left behind, with the reason where that is a
            failure of the run; they have 2 s, after a failure 20 s.
    """

    def __init__(
        self, grace_s: float = 1.0, *, last: bool = False, after: int | None = None, interactive: bool = False
    ) -> None:
        """
        Args:
            grace_s: seconds after the first signal in which another one counts as the same request.
            after: becomes `limit`.
            last: the process ends afterwards: from there on signals are ignored, since the run can no more be stopped and a
                default handler would make a failure of one that is complete.
            interactive: a second SIGINT raises KeyboardInterrupt; the process, such as a notebook's, goes on.
        """
        self.signal: int | None = None
        self.saves = False
        self.on_leave: list[Callable[[str], None]] = []
        self._grace_s, self._last, self.limit = grace_s, last, after
        self._interactive, self._since = interactive, 0.0
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """True once a signal came."""
        return self.signal is not None

    @property
    def reason(self) -> str:
        """Name of the first signal ("SIGTERM"), or the number of steps that were asked for; empty for neither."""
        if self.signal is not None:
            return signal.Signals(self.signal).name
        return "" if self.limit is None else f"the limit of {self.limit} steps"

    def is_due(self, steps: int) -> bool:
        """Whether to stop now that this process has made `steps` steps."""
        return self.requested or steps == self.limit

    @property
    def at_once(self) -> tuple[int, ...]:
        """Signals that end a wait for other ranks, since there is nothing to save yet."""
        return () if self.saves else (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def leave(self, status: int, why: str = "") -> None:
        """End the process at once, whatever its other threads do; `why` it failed, where it did."""
        work = [threading.Thread(target=call, args=(why,), daemon=True) for call in self.on_leave]
        for thread in work:
            thread.start()
        for thread in work:  # a dead disk must not hold the process
            thread.join(_SAVING_S if why else _LEAVING_S)
        os._exit(status)

    def __enter__(self) -> StopFlag:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._watcher.start()
        self._before_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._before = {s: signal.signal(s, self._handle) for s in SIGNALS if not (s == signal.SIGHUP and ignored)}
        os.register_at_fork(after_in_child=self._forked)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for s, handler in self._before.items():
            signal.signal(s, signal.SIG_IGN if self._last and kind is None else handler)
        self._before = {}
        signal.set_wakeup_fd(self._before_fd)
        os.write(self._write, b"\0")  # no signal has number 0: the watcher's end
        self._watcher.join()
        os.close(self._read)
        os.close(self._write)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
        elif self._interactive and number == signal.SIGINT and time.monotonic() - self._since > self._grace_s:
            raise KeyboardInterrupt

    def _watch(self) -> None:
        first = None
        while number := os.read(self._read, 1)[0]:
            if number not in SIGNALS:  # Python reports every signal it handles, SIGCHLD and SIGALRM too
                continue
            now = time.monotonic()
            name = signal.Signals(number).name
            if first is None:
                first = now
                self._handle(number, None)  # the main thread may be stuck: then nothing else notes it
                if os.isatty(2):
                    _write(f"\n{name}: finishing this step, then saving; once more to exit immediately\n")
            elif now - first > self._grace_s and not (self._interactive and number == signal.SIGINT):
                _write(f"{name}, the second signal: exiting immediately without saving\n")
                self.leave(128 + number)

    def _forked(self) -> None:
        """A forked child writes no signal into its parent's pipe; its loader decides what else it handles."""
        if self._before:
            signal.set_wakeup_fd(-1)
            for s in SIGNALS:
                signal.signal(s, signal.SIG_DFL if s == signal.SIGTERM else signal.SIG_IGN)


def watch_launcher(stop: StopFlag, environ: Mapping[str, str] = os.environ) -> None:
    """From now on end this process within a second once the launcher that started it as a rank is gone."""
    known = environ.get("DDPTRAIN_AGENT", "")
    if known or "TORCHELASTIC_RUN_ID" in environ:
        launcher = int(known or os.getppid())
        threading.Thread(target=_until_orphaned, args=(launcher, stop), name="launcher", daemon=True).start()


def _until_orphaned(launcher: int, stop: StopFlag) -> None:
    while os.getppid() == launcher:
        time.sleep(0.5)
    _write(f"ddptrain: failed: the launcher of this rank (process {launcher}) is gone: exiting immediately without saving\n")
    stop.leave(1)


def _write(text: str) -> None:
    with suppress(OSError):  # nobody may be there to read it
        os.write(2, text.encode())
