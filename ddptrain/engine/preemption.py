"""Signals that ask a run to stop. No torch here: the handlers stand before torch is imported.

    SIGTERM, SIGINT, SIGUSR1, SIGUSR2   the first one sets a flag and nothing else: the loop finishes the step that all
                                        ranks agree on, saves and leaves. `ddptrain/status.py` lists the exit statuses
    a second one, of whatever kind      ends the process at once with 128 + its number, saving nothing
    again within 1 s of the first       the same request, told twice: torchrun, srun and a batch script forward one
                                        signal by several ways. It is not counted

A Python handler runs only between bytecodes of the main thread, which may be stuck in a collective or a kernel. The
second signal works there as well: a thread of its own reads the numbers that Python's C handler writes to a pipe
(`signal.set_wakeup_fd`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopFlag:
    """Context manager that holds the handlers; only the main thread may enter it.

    Attributes:
        signal: number of the first signal that came, None while none did.
    """

    def __init__(self, grace_s: float = 1.0) -> None:
        """Args: grace_s: seconds after the first signal in which another one counts as the same request."""
        self.signal: int | None = None
        self._grace_s = grace_s
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """True once a signal came."""
        return self.signal is not None

    @property
    def reason(self) -> str:
        """Name of the first signal ("SIGTERM"), empty while none came."""
        return "" if self.signal is None else signal.Signals(self.signal).name

    def __enter__(self) -> StopFlag:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._watcher.start()
        self._before_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {s: signal.signal(s, self._handle) for s in SIGNALS}
        os.register_at_fork(after_in_child=self._forked)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)
        self._before = {}
        signal.set_wakeup_fd(self._before_fd)
        os.write(self._write, b"\0")  # no signal has number 0: the watcher's end
        self._watcher.join()
        os.close(self._read)
        os.close(self._write)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number

    def _watch(self) -> None:
        first = None
        while number := os.read(self._read, 1)[0]:
            if number not in SIGNALS:  # Python reports every signal it handles, SIGCHLD and SIGALRM too
                continue
            now = time.monotonic()
            name = signal.Signals(number).name
            if first is None:
                first = now
                if os.isatty(2):
                    os.write(2, f"\n{name}: finishing this step, then saving; once more to leave at once\n".encode())
            elif now - first > self._grace_s:
                os.write(2, f"{name}, the second signal: leaving at once, unsaved\n".encode())
                os._exit(128 + number)

    def _forked(self) -> None:
        """A forked child writes no signal into its parent's pipe; its loader decides what else it heeds."""
        if self._before:
            signal.set_wakeup_fd(-1)
            for s in SIGNALS:
                signal.signal(s, signal.SIG_DFL if s == signal.SIGTERM else signal.SIG_IGN)
