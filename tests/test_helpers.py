"""What tests rely on: no process outlives its test."""

import subprocess
import sys

import processes
from support import Ranks

SLEEP = "import time; time.sleep(600)"
ORPHAN = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)"


def sleep() -> None:
    import time

    time.sleep(600)


def test_processes_left_behind_are_ended_also_orphans_and_ranks() -> None:
    before = processes.pids()
    ranks = Ranks(2, sleep)
    subprocess.run([sys.executable, "-c", ORPHAN], check=True)
    assert len(processes.end_those_left(before, patience=0)) == 3
    processes.wait_until(lambda: not any(p.is_alive() for p in ranks.processes), "killed ranks that run")
    assert processes.end_those_left(before) == []
