"""Stop signals, sent to real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ddptrain.engine.stop import SIGNALS, StopFlag

# finishes its "step" when asked, as the training loop does
LOOP = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
from ddptrain.engine.stop import StopFlag
with StopFlag(grace_s={grace}) as stop:
    assert "torch" not in sys.modules
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print(stop.reason, flush=True)
    {then}
    print("saved", flush=True)
"""


@contextmanager
def _process(then: str = "pass", grace: float = 1.0, code: str = LOOP) -> Iterator["subprocess.Popen[str]"]:
    code = code.format(then=then, grace=grace)
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", SIGNALS)
def test_one_signal_finishes_the_step(number: int) -> None:
    with _process() as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, f"{signal.Signals(number).name}\nsaved\n", "")


def test_a_signal_received_twice_is_one_request() -> None:
    with _process(then="time.sleep(0.5)") as process:
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):
            process.send_signal(number)
            time.sleep(0.05)
        out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "SIGUSR1\nsaved\n")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_exits_immediately_even_from_c_code(second: int) -> None:
    # C code in the main thread stands for a collective whose other side is gone: no bytecode runs any more
    stuck = "import ctypes; [ctypes.CDLL(None).sleep(60) for _ in range(9)]"
    with _process(then=stuck, grace=0.2) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "SIGUSR1\n"
        time.sleep(0.4)
        start = time.monotonic()
        process.send_signal(second)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + second
    assert time.monotonic() - start < 5
    assert err == f"{signal.Signals(second).name}, the second signal: exiting immediately without saving\n"


FORKED = """
import os, signal, sys, time
from ddptrain.engine.stop import StopFlag
with StopFlag(grace_s=0.1) as stop:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print("ready", flush=True)
    time.sleep(0.2)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(child, number)
        time.sleep(0.3)
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "a signal to the group ended the child"
    assert not stop.requested, "the child's signal reached the parent"
    os.kill(child, signal.SIGTERM)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_forked_children_outlive_the_signals_and_pass_none_to_the_parent() -> None:
    with _process(code=FORKED) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, f"{int(signal.SIGTERM)}\n"), err


def test_leaving_restores_the_handlers() -> None:
    before = [signal.getsignal(s) for s in SIGNALS]
    for _ in range(2):
        with StopFlag() as stop:
            assert not stop.requested
            assert stop.reason == ""
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.requested
            assert stop.reason == "SIGUSR2"
        assert [signal.getsignal(s) for s in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize(("body", "status"), [("pass", 0), ("raise SystemExit(3)", -signal.SIGTERM)])
def test_a_signal_after_the_last_step_does_not_fail_a_complete_run(body: str, status: int) -> None:
    """A run that failed keeps the defaults: it may hang at its end."""
    code = f"""
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from ddptrain.engine.stop import SIGNALS, StopFlag
try:
    with StopFlag(last=True):
        {body}
finally:
    for number in SIGNALS:
        if {status} == 0 or number == signal.SIGTERM:
            os.kill(os.getpid(), number)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (status, "")
