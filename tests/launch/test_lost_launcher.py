"""What becomes of ranks whose launcher or terminal is gone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

LONG = ("train.steps=100000", "checkpoint.every_steps=2", "data.workers=1")
COMMAND = [sys.executable, "-m", "ddptrain", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ddptrain", "train"]


def descendants(pid: int) -> list[int]:
    """Processes below one, at any depth."""
    parents = {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(number)] = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize("when", ["torchrun, in mid-run", "--nproc, at its start"])
def test_ranks_end_with_a_killed_launcher(config: Path, tmp_path: Path, when: str) -> None:
    command = [*TORCHRUN, str(config), *LONG] if "torchrun" in when else [*COMMAND, str(config), *LONG, "--nproc=2"]
    with (tmp_path / "said").open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        run = tmp_path / "run"
        if "torchrun" in when:
            wait_until((run / "checkpoints" / "last.pt").exists, process)
        else:
            wait_until(lambda: bool(descendants(process.pid)), process)
        ranks = descendants(process.pid)
        process.kill()
    end = time.monotonic() + 20
    while any(map(alive, ranks)):
        assert time.monotonic() < end, (tmp_path / "said").read_text()
        time.sleep(0.1)
    assert not (run / "lock.json").exists()
    if "torchrun" in when:
        assert len(ranks) >= 4, "two ranks with a loader worker each"
        assert "the launcher of this rank (process " in (tmp_path / "said").read_text()


def test_a_closed_terminal_saves(config: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [*COMMAND, str(config), *LONG, "--nproc=2"], stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_terminal
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    last = tmp_path / "run" / "checkpoints" / "last.pt"

    def trains() -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(ours, 1 << 16)
        return last.exists()

    wait_until(trains, process)
    os.close(ours)
    assert process.wait(120) == 75
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["reason"]) in (("stopped", "SIGHUP"), ("stopped", "SIGUSR1"))
    assert int(last.readlink().name[5:13]) == status["step"]


def test_nohup_stays_in_force() -> None:
    code = """
import os, signal
from ddptrain.engine.stop import StopFlag
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with StopFlag() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.requested
from launch.worker import STOP_SIGNALS
assert signal.SIGHUP not in STOP_SIGNALS
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
