"""One rank, as the agent starts it: between torchrun's environment and the module that trains.

The agent starts it with the stop signals blocked, so that none can end a rank that is still importing torch. An early signal is
kept until the training loop has its handlers.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from ddptrain.config import load_config, no_line
from ddptrain.errors import UserError
from ddptrain.system.ending import end_with
from ddptrain.system.start import read_start, requested_start
from ddptrain.system.status import USER_ERROR

_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOP_SIGNALS = tuple(s for s in _SIGNALS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN)
"""Under nohup SIGHUP is ignored, and stays so."""
SPEC = "DDPTRAIN_WORKER"
AFTER_S = 2.0
"""How long a rank whose agent is gone may take to release its lock and leave by itself."""


class EarlySignals:
    """Keeps stop signals until the training loop has handlers for them, then raises the first one again."""

    def __init__(self) -> None:
        self._kept: int | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._keep)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if self._kept is None:
            self._kept = number

    def hand_over(self) -> None:
        """Raise the kept signal again if its handler has been replaced; to be called now and then."""
        if self._kept is not None and signal.getsignal(self._kept) != self._keep:
            number, self._kept = self._kept, None
            os.kill(os.getpid(), number)


def main() -> int:
    """Run the module named in the environment; returns its exit status."""
    spec = json.loads(os.environ.pop(SPEC))
    arguments = list(spec["arguments"])
    trains = arguments[:1] == ["train"]
    early = EarlySignals() if trains else None  # other commands have nothing to save and simply end
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    attempt, mistake = count_starts(spec["starts"]), Path(spec["starts"] + ".mistake")
    if mistake.exists():  # torchrun restarts whatever fails; a user's mistake is reported once
        return USER_ERROR
    log = None
    if spec["logs"]:
        log = log_path(Path(spec["logs"]), spec["restart"], attempt, spec["node"], int(os.environ["RANK"]))
        _write_to(log)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    threading.Thread(target=_watch, args=(spec["agent"], early), daemon=True).start()
    os.environ.update(spec["env"] | {"DDPTRAIN_AGENT": str(spec["agent"])})
    if spec["cwd"]:
        os.chdir(spec["cwd"])
    try:
        if spec["restart"] + attempt > 0 and trains:
            arguments = again(arguments)
        code = int(importlib.import_module(spec["module"]).main(arguments))
        if code == USER_ERROR:
            mistake.touch()
        return code
    except BaseException as e:
        if log:
            log.with_suffix(".failed").write_text(json.dumps({"time": time.time(), "error": repr(e)}))
        raise
    finally:
        for number in STOP_SIGNALS:  # Python's exit restores the default of all but ignored signals: a stop would kill
            signal.signal(number, signal.SIG_IGN)


def again(arguments: list[str]) -> list[str]:
    """The arguments of a restart. It resumes from the run's own checkpoints, or from the start that the run was given first,
    which `start.json` records once that start has read its checkpoint."""
    try:
        config = load_config(arguments[1], arguments[2:], tell=no_line)
        start = requested_start(config.resume)
        return arguments if start and read_start(config.folder) != start else [*arguments, "resume=auto"]
    except UserError:  # reported by the start itself, which reads the config again
        return [*arguments, "resume=auto"]


def count_starts(path: str) -> int:
    """How often the agent has started this rank of its machine before.

    Counted in files whose paths begin with `path`, since torchrun's own count does not grow on machines that only lost a peer.
    """
    with open(f"{path}.{os.environ['LOCAL_RANK']}", "ab") as f:
        f.write(b".")
        return f.tell() - 1


def log_path(folder: Path, restart: int, attempt: int, node: str, rank: int) -> Path:
    """The log of one rank of one start; `restart` counts requeues of the job, `attempt` restarts in place."""
    return folder / f"r{restart}.a{attempt}.{node}.rank{rank}.log"


def _write_to(path: Path) -> None:
    """Append everything that this process and its libraries print to a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _watch(parent: int, early: EarlySignals | None) -> None:
    """Hand over early signals; end this process once its agent is gone, since a killed agent cannot stop its ranks.

    The parent is the one that the agent named, so that its end is noticed even before this process first looks.
    """
    while os.getppid() == parent:
        if early:
            early.hand_over()
        time.sleep(0.5)
    time.sleep(AFTER_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    end_with(main)
