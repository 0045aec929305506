"""Agents and ranks as real processes, without Slurm: signals, restarts, meeting places."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ddptrain.status import read_status
from launch import rendezvous
from launch.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
ENVIRON = dict(os.environ, PYTHONPATH=f"{ROOT}:{ROOT / 'tests' / 'slurm'}", OMP_NUM_THREADS="1")
WAIT = 300  # seconds that nothing here takes, but on a machine with other work
START = """
import sys
from launch.torchrun import outcome, start
from pathlib import Path
code = start(["train", *sys.argv[2:]], 2, module="gloo_run", max_restarts=int(sys.argv[1]), grace_s=60)
sys.exit(code or outcome(Path(sys.argv[2])))
"""


def start(folder: Path, *options: str, restarts: int = 0) -> subprocess.Popen[str]:
    """Two ranks on this machine."""
    command = [sys.executable, "-c", START, str(restarts), str(folder), *options]
    return subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_ranks(folder: Path, since: float = 0.0) -> list[int]:
    """Main processes of both ranks, once they train."""
    end = time.monotonic() + WAIT
    files = [folder / "pid.0", folder / "pid.1"]
    while not all(f.exists() and f.stat().st_mtime > since for f in files):
        assert time.monotonic() < end, "the ranks never trained"
        time.sleep(0.05)
    time.sleep(0.5)
    return [int(f.read_text().split()[0]) for f in files]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("calm")
    process = start(folder, "steps=40", "dt=0")
    assert process.wait(WAIT) == 0, process.communicate()[0]
    return (folder / "weights").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_and_run_goes_on(tmp_path: Path, calm: str, number: signal.Signals) -> None:
    process = start(tmp_path, "steps=40", "workers=1", "every=1000")
    wait_for_ranks(tmp_path)
    process.send_signal(number)
    assert process.wait(WAIT) == 75, process.communicate()[0]
    status = read_status(tmp_path)
    assert status
    assert status.state == "stopped"
    assert 0 < status.step < 40
    again = start(tmp_path, "steps=40", "dt=0", "resume=auto")
    assert again.wait(WAIT) == 0, again.communicate()[0]
    assert (tmp_path / "weights").read_text() == calm


def test_signal_before_the_ranks_listen_is_kept(tmp_path: Path) -> None:
    """It reaches ranks that are still importing torch."""
    process = start(tmp_path, "steps=1000", "every=1000")
    end = time.monotonic() + WAIT
    while not subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True).stdout:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == 75, process.communicate()[0]
    status = read_status(tmp_path)
    assert status
    assert status.step < 20


def test_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, "steps=1000", "save_s=600")
    pids = wait_for_ranks(tmp_path)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 1
    time.sleep(0.5)
    assert not [p for p in pids if Path(f"/proc/{p}").exists()]


def test_killed_rank_restarts_from_the_checkpoint(tmp_path: Path, calm: str) -> None:
    process = start(tmp_path, "steps=40", "every=1", restarts=1)
    os.kill(wait_for_ranks(tmp_path)[1], signal.SIGKILL)
    assert process.wait(WAIT) == 0, process.communicate()[0]
    assert (tmp_path / "weights").read_text() == calm
    assert "attempt=1" in process.communicate()[0]


def test_ranks_end_with_their_agent(tmp_path: Path) -> None:
    process = start(tmp_path, "steps=10000")
    pids = wait_for_ranks(tmp_path)
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{p}").exists() and "Z" not in Path(f"/proc/{p}/stat").read_text().split()[2] for p in pids):
        assert time.monotonic() < end, "ranks outlived their agent"
        time.sleep(0.1)


def test_mistake_and_crash_have_their_own_statuses(tmp_path: Path) -> None:
    mistake, crash = start(tmp_path / "a", "mistake=1"), start(tmp_path / "b", "fail=1")
    assert mistake.wait(WAIT) == 2
    assert crash.wait(WAIT) == 1
    assert "rank 1 failed: status 1" in crash.communicate()[0]


AGENT = (
    "import sys; from launch.agent import Agent; from launch.plan import Plan; sys.exit(Agent(Plan.loads(sys.argv[1])).run())"
)


def test_two_jobs_with_the_same_ports_never_join(tmp_path: Path) -> None:
    """Two jobs of two machines each, all on this machine, told to use the same ports, beside a service that has the first."""
    service = socket.create_server(("", 0))
    ports = (service.getsockname()[1], *rendezvous.free_first(rendezvous.candidate_ports(str(tmp_path))))
    processes = []
    for job in ("a", "b"):
        plan = Plan(
            module="gloo_run", arguments=("train", str(tmp_path / job), "steps=5"), nnodes=2, run_id=job, token=f"secret {job}",
            host="one", ports=ports, addresses={"one": "localhost", "two": "localhost"},
        )  # fmt: skip
        for node in ("two", "one"):
            command = [sys.executable, "-c", AGENT, plan.dumps()]
            environ = ENVIRON | {"SLURMD_NODENAME": f"{node}"}
            processes.append(
                subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
    said = [p.communicate(timeout=WAIT)[0] for p in processes]
    service.close()
    assert [p.returncode for p in processes] == [0, 0, 0, 0], "\n".join(said)
    assert all("size=2" in s for s in said)
    met = [{line.split()[-1] for line in s.splitlines() if "meets at" in line} for s in said]
    assert met[0] == met[1] != met[2] == met[3]
    assert sum(f"port {ports[0]} is taken" in s for s in said) == 2


def test_foreign_store_is_passed_over() -> None:
    other, port = rendezvous.host_store((0,), "theirs")
    mine, my_port = rendezvous.host_store((port, 0), "mine")
    assert my_port != port
    assert rendezvous.find_store("localhost", (port, my_port), "mine")[1] == my_port
    with pytest.raises(RuntimeError, match="no store of this job"):
        rendezvous.find_store("localhost", (port,), "mine", timeout_s=0.5)
    del other, mine


def test_store_that_opens_late_is_waited_for() -> None:
    ports = rendezvous.free_first(rendezvous.candidate_ports("late"))[:2]
    held = []
    timer = threading.Timer(1.0, lambda: held.append(rendezvous.host_store(ports, "mine")))
    timer.start()
    assert rendezvous.find_store("localhost", ports, "mine", timeout_s=30)[1] == ports[0]
    timer.join()


def test_ports_are_below_the_ephemeral_range() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = rendezvous.candidate_ports("17.0")
    assert len(set(ports)) == 16
    assert all(rendezvous.LOWEST_PORT <= p < low for p in ports)
    assert ports == rendezvous.candidate_ports("17.0") != rendezvous.candidate_ports("17.1")
    with socket.create_server(("", ports[0])):
        assert rendezvous.free_first(ports)[-1] == ports[0]
