"""One rank: what the agent starts. Stands between torchrun's environment and the module that trains.

The agent starts it with the stop signals blocked. They are ignored from here on until the training loop installs its
own handlers; the agent repeats its signal, so none is lost, and no signal can end a rank that is still importing torch.
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

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SPEC = "DDPTRAIN_WORKER"


def main() -> int:
    """Run the module named in the environment; returns its exit status."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    spec = json.loads(os.environ.pop(SPEC))
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    log = None
    if spec["logs"]:
        log = log_path(Path(spec["logs"]), spec["restart"], attempt, spec["node"], int(os.environ["RANK"]))
        _write_to(log)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.environ.update(spec["env"])
    if spec["cwd"]:
        os.chdir(spec["cwd"])
    arguments = list(spec["arguments"])
    if spec["restart"] + attempt > 0 and arguments[:1] == ["train"]:
        arguments.append("resume=auto")
    try:
        return int(importlib.import_module(spec["module"]).main(arguments))
    except BaseException as e:
        if log:
            log.with_suffix(".failed").write_text(json.dumps({"time": time.time(), "error": repr(e)}))
        raise


def log_path(folder: Path, restart: int, attempt: int, node: str, rank: int) -> Path:
    """The log of one rank of one start: restart counts requeues of the job, attempt restarts in place."""
    return folder / f"r{restart}.a{attempt}.{node}.rank{rank}.log"


def _write_to(path: Path) -> None:
    """Send everything that this process and its libraries print to a file, after what stands there."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _end_with(parent: int) -> None:
    """End this process once its agent is gone: an agent killed outright cannot stop its ranks."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
