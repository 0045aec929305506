"""One process at a time in a run folder: real processes and files; only times and machine names are made up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support import Ranks, command_line

from ddptrain.cli import main
from ddptrain.errors import UserError
from ddptrain.system import lock, owner
from ddptrain.system.lock import NAME, LockLost, RunLock

HOLD = """
import sys, time
from pathlib import Path
from ddptrain.system.lock import RunLock
with RunLock(Path(sys.argv[1]), print, environ={"SLURM_JOB_ID": sys.argv[2]}) as held:
    held.acquire()
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, job: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its standard input ends."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder), job], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.3)


def foreign(folder: Path, silent_s: float = 0.0, **changes: Any) -> Path:
    """A lock from another machine that was silent for so long."""
    folder.mkdir()
    process = {"host": "n7", "space": "another boot", "pid": os.getpid(), "start": "1"}
    path = folder / NAME
    path.write_text(json.dumps({"token": "theirs", "process": process, "job": "", "since": "", "stopping": False} | changes))
    os.utime(path, (time.time() - silent_s,) * 2)
    return path


def test_a_second_process_is_refused_and_learns_whose_the_run_is(tmp_path: Path) -> None:
    said: list[str] = []
    with holder(tmp_path / "run") as process:
        with pytest.raises(UserError) as refused, RunLock(tmp_path / "run", said.append) as second:
            second.acquire()
        owner = f"process {process.pid} on {os.uname().nodename}"
        assert str(refused.value).startswith(f"{tmp_path / 'run'}: {owner} is training here since 20")
        assert f"stop it (kill {process.pid} on {os.uname().nodename}), wait for it to end" in str(refused.value)
        assert said == [f"{tmp_path / 'run'}: {owner} is training here; waiting up to 0 s for it to end"]
        assert [p.name for p in (tmp_path / "run").iterdir()] == [NAME]
        process.communicate(timeout=20)
    assert not (tmp_path / "run").exists(), "a released lock leaves an empty folder behind"


def test_the_lock_of_a_killed_process_is_taken_over_and_reported(tmp_path: Path) -> None:
    said: list[str] = []
    with holder(tmp_path / "run") as process:
        process.kill()  # not waited for: a zombie is dead, too
        with RunLock(tmp_path / "run", said.append) as second:
            second.acquire()
            assert json.loads((tmp_path / "run" / NAME).read_text())["process"]["pid"] == os.getpid()
    assert "ended without releasing its lock (was it killed?): this run takes over the folder" in said[-1]


def test_a_number_that_a_later_process_has_is_not_the_owner(tmp_path: Path) -> None:
    here = json.loads(json.dumps(asdict(lock.processes.this())))
    foreign(tmp_path / "run", process=here | {"start": "1"})
    with RunLock(tmp_path / "run", print) as mine:
        mine.acquire()


@pytest.mark.parametrize("content", [None, "", "{", '{"token": 1}', "[]"])
def test_another_machine_that_is_silent_for_long_is_gone(tmp_path: Path, content: str | None) -> None:
    path, said = foreign(tmp_path / "run"), []
    if content is not None:
        path.write_text(content)
    os.utime(path, (time.time() - 400,) * 2)
    with RunLock(tmp_path / "run", said.append) as mine:  # type: ignore[attr-defined]
        mine.acquire()
    assert "was silent for at least 60 s: this run takes over the folder" in said[-1]


def test_another_machine_is_given_time_for_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "STALE_S", 2.0)
    path = foreign(tmp_path / "run", silent_s=-400 * 86400.0)  # its clock is ahead, which must not matter
    began = time.monotonic()
    with RunLock(tmp_path / "run", print) as mine:
        mine.acquire()
    assert 2 < time.monotonic() - began < 60
    path = foreign(tmp_path / "living", job="12")
    threading.Timer(0.6, os.utime, [path]).start()
    with (
        pytest.raises(UserError, match=r"on n7 \(Slurm job 12\) is training here; stop it \(scancel 12\)"),
        RunLock(tmp_path / "living", print) as mine,
    ):
        mine.acquire()
    assert path.exists()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_the_same_moment_one_gets_it(tmp_path: Path, stale: bool) -> None:
    if stale:
        foreign(tmp_path / "run", silent_s=400)
    start, got, refused = threading.Barrier(16), [], []

    def attempt() -> None:
        mine = RunLock(tmp_path / "run", lambda line: None)
        start.wait()
        try:
            mine.acquire()
            got.append(mine)
        except UserError as e:
            refused.append(str(e))

    threads = [threading.Thread(target=attempt) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (len(got), len(refused)) == (1, 15)
    got[0].check(look=True)
    got[0].release()


def test_the_same_slurm_job_waits_for_what_is_left_of_its_start_before(tmp_path: Path) -> None:
    again = {"SLURM_JOB_ID": "9", "SLURM_RESTART_COUNT": "1"}
    with holder(tmp_path / "run", job="9") as process:
        threading.Timer(1.5, process.kill).start()
        with RunLock(tmp_path / "run", print, environ=again) as mine:
            mine.acquire()
            mine.check(look=True)


def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    with holder(tmp_path / "run"), RunLock(tmp_path / "run", print, lambda: signal.SIGTERM) as mine:
        with pytest.raises(SystemExit) as left:
            mine.acquire()
        assert left.value.code == 143


def test_a_release_in_the_midst_of_a_beat_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may live on after its run, as a notebook does: nobody would take its lock over."""
    read, beats = lock.read_owner, threading.Event()

    def slow_in_a_beat(path: Path) -> Any:
        if threading.current_thread() is not threading.main_thread():
            beats.set()
            time.sleep(0.3)
        return read(path)

    monkeypatch.setattr(lock, "BEAT_S", 0.0)
    monkeypatch.setattr(lock, "read_owner", slow_in_a_beat)
    with RunLock(tmp_path / "run", print) as held:
        held.acquire()
        (tmp_path / "run" / "config.yaml").touch()
        assert beats.wait(10)
    time.sleep(0.5)
    assert not (tmp_path / "run" / NAME).exists()


def test_a_lost_lock_is_noticed_and_left_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "run" / NAME
    with RunLock(tmp_path / "run", print) as mine:
        mine.acquire()
        path.unlink()
        mine.check(look=True)  # deleted by hand: made anew
        path.unlink()
        path.parent.rmdir()
        mine.check(look=True)  # no folder, no other owner
        foreign(tmp_path / "run")
        mine.check()
        with pytest.raises(LockLost, match="on n7 has taken over this run"):
            mine.check(look=True)
    assert json.loads(path.read_text())["token"] == "theirs"


def test_a_run_that_is_already_training_is_refused_in_one_line(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLock(tmp_path / "run", print) as mine:
        mine.acquire()
        for resume in ([], ["resume=auto"], [f"resume={tmp_path / 'run'}"]):
            assert main(["train", str(config), *resume]) == 2
            assert "is training here" in capsys.readouterr().err.splitlines()[-1]
        assert [p.name for p in (tmp_path / "run").iterdir()] == [NAME]


def test_a_run_that_lost_its_lock_ends_before_its_next_save(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ranks = Ranks(1, command_line, ["train", str(config), "train.steps=100000", "checkpoint.every_steps=5"])
    until = time.monotonic() + 100
    while not (run / "checkpoints" / "last.pt").exists():
        assert time.monotonic() < until, ranks.text
        time.sleep(0.02)
    other = foreign(tmp_path / "other")
    os.replace(other, run / NAME)
    before = sorted(p.name for p in (run / "checkpoints").glob("step_*.pt"))
    status = (run / "status.json").read_text()
    assert ranks.wait() == [1], ranks.text
    assert ranks.text.count("has taken over this run") == 1, ranks.text
    after = sorted(p.name for p in (run / "checkpoints").glob("step_*.pt"))
    assert after[-1] <= f"step_{int(before[-1][5:13]) + 10:08d}.pt"
    assert json.loads(status)["state"] == json.loads((run / "status.json").read_text())["state"] == "running"
    assert (run / NAME).exists()
