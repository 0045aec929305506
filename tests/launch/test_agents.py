"""Agents and ranks as real processes, without Slurm: signals, restarts, meeting places."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from support import free_port, summary

from ddptrain.system.status import read_status
from launch import rendezvous
from launch.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
ENVIRON = dict(os.environ, PYTHONPATH=f"{ROOT}:{ROOT / 'tests' / 'helpers'}", OMP_NUM_THREADS="1")
WAIT = 240  # seconds that nothing here takes, but on a machine with other work
START = """
import sys
from launch.torchrun import outcome, start
from pathlib import Path
code = start(["train", *sys.argv[2:]], 2, module="gloo_run", max_restarts=int(sys.argv[1]), grace_s=60)
sys.exit(code or outcome(Path(sys.argv[2])))
"""


class Process(subprocess.Popen[str]):
    """A Python program; what it says goes to a file, `said`."""

    def __init__(self, program: str, *arguments: str, environ: dict[str, str] = ENVIRON) -> None:
        number, self._path = tempfile.mkstemp(prefix="agents-")
        super().__init__([sys.executable, "-c", program, *arguments], env=environ, stdout=number, stderr=number, text=True)
        os.close(number)

    @property
    def said(self) -> str:
        return Path(self._path).read_text()

    def end(self) -> int:
        """The exit status; what does not end is killed, and says so."""
        try:
            return self.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()


def start(folder: Path, *options: str, restarts: int = 0) -> Process:
    """Two ranks on this machine."""
    return Process(START, str(restarts), str(folder), *options)


def wait_for_ranks(folder: Path, since: float = 0.0) -> list[int]:
    """Main processes of both ranks, once they train."""
    end = time.monotonic() + WAIT
    files = [folder / "pid.0", folder / "pid.1"]
    while not all(f.exists() and f.stat().st_mtime > since for f in files):
        assert time.monotonic() < end, "the ranks never trained"
        time.sleep(0.05)
    time.sleep(0.5)
    return [int(f.read_text().split()[0]) for f in files]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("calm")
    process = start(folder, "steps=60", "dt=0")
    assert process.end() == 0, process.said
    return (folder / "weights").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_and_run_continues(tmp_path: Path, calm: str, number: signal.Signals) -> None:
    process = start(tmp_path, "steps=60", "hold=1", "workers=1", "every=1000")
    wait_for_ranks(tmp_path)
    process.send_signal(number)
    assert process.end() == 75, process.said
    status = read_status(tmp_path)
    assert status
    assert status.state == "stopped"
    assert 0 < status.step < 60
    again = start(tmp_path, "steps=60", "dt=0", "resume=auto")
    assert again.end() == 0, again.said
    assert (tmp_path / "weights").read_text() == calm


def test_signal_before_the_ranks_listen_is_kept(tmp_path: Path) -> None:
    """It reaches ranks that are still importing torch."""
    process = start(tmp_path, "steps=1000", "every=1000")
    end = time.monotonic() + WAIT
    while not subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True).stdout:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.end() == 75, process.said
    status = read_status(tmp_path)
    assert status
    assert status.step < 20


def test_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, "steps=1000", "save_s=600")
    pids = wait_for_ranks(tmp_path)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.end() == 130
    time.sleep(0.5)
    assert not any(alive(p) for p in pids)


def test_killed_rank_restarts_from_the_checkpoint(tmp_path: Path, calm: str) -> None:
    process = start(tmp_path, "steps=60", "hold=1", "every=1", "resume=null", restarts=1)
    os.kill(wait_for_ranks(tmp_path)[1], signal.SIGKILL)
    (tmp_path / "go").touch()
    assert process.end() == 0, process.said
    assert (tmp_path / "weights").read_text() == calm
    starts = re.findall(r"start rank=\d size=2 step=(\d+)", process.said)
    assert starts[:2] == ["0", "0"] != starts[2:]
    assert len(starts) == 4


def test_ranks_end_with_their_agent(tmp_path: Path) -> None:
    process = start(tmp_path, "steps=10000")
    pids = wait_for_ranks(tmp_path)
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while any(alive(p) for p in pids):
        assert time.monotonic() < end, "ranks outlived their agent"
        time.sleep(0.1)


def test_mistake_and_crash_have_their_own_statuses(tmp_path: Path) -> None:
    mistake, crash = start(tmp_path / "a", "mistake=1", restarts=2), start(tmp_path / "b", "fail=1")
    assert mistake.end() == 2
    assert mistake.said.count("start rank=0") == 1, mistake.said
    assert crash.end() == 1
    assert "rank 1 failed: status 1" in crash.said


SLOW_END = """
import pathlib, time
class Slow:
    def __del__(self, touch=pathlib.Path.touch, path=pathlib.Path(FOLDER, "ending"), sleep=time.sleep):
        touch(path)
        sleep(4)
def main(argv):
    global slow
    slow = Slow()
    return 0
"""


def test_rank_at_its_very_end_is_not_killed_by_a_stop(tmp_path: Path) -> None:
    """While Python takes itself down, its signal handlers are gone already."""
    (tmp_path / "slow_end.py").write_text(SLOW_END.replace("FOLDER", repr(str(tmp_path))))
    program = "import sys; from launch.torchrun import start; sys.exit(start(['train'], 1, module='slow_end'))"
    environ = ENVIRON | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    process = Process(program, environ=environ)
    end = time.monotonic() + WAIT
    while not (tmp_path / "ending").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.end() == 0, process.said


def ddptrain(*arguments: object) -> Process:
    return Process("import sys; from ddptrain.cli import main; sys.exit(main(sys.argv[1:]))", *map(str, arguments))


def test_launch_on_two_machines(config: Path, tmp_path: Path) -> None:
    """The same command on each; both are this one here."""
    where = ("--nproc", 1, "--nnodes", 2, "--rdzv", f"localhost:{free_port()}")
    both = [ddptrain("launch", config, "train.steps=2", *where) for _ in range(2)]
    assert [p.end() for p in both] == [0, 0], both[0].said + both[1].said
    said = both[0].said + both[1].said
    assert said.count("2 ranks (torchrun, cpu)") == said.count("finished at step 2") == 1
    assert sum(m["drawn"] for m in summary(tmp_path / "run")["mixture"]) == 24


def test_sweep_here_ends_with_a_table(config: Path, tmp_path: Path) -> None:
    process = ddptrain("sweep", config, "train.steps=1", "--grid", "optimizer.lr=0.01,0.02", "--local")
    assert process.end() == 0, process.said
    table = (tmp_path / "run-sweep-1" / "table.md").read_text()
    # the verdict on each combination stands below the table
    below = process.said.partition(table)[2].splitlines()
    assert below[0].startswith("cannot tell: AP of [optimizer.lr=0.02] minus [optimizer.lr=0.01]"), process.said
    assert [row.split("|")[1:3] for row in table.splitlines()[2:]] == [[" 0.01 ", " 1/1 "], [" 0.02 ", " 1/1 "]]


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
            processes.append(Process(AGENT, plan.dumps(), environ=ENVIRON | {"SLURMD_NODENAME": node}))
    codes, said = [p.end() for p in processes], [p.said for p in processes]
    service.close()
    assert codes == [0, 0, 0, 0], "\n".join(said)
    assert all("size=2" in s for s in said)
    met = [{line.split()[-1] for line in s.splitlines() if "meets at" in line} for s in said]
    assert met[0] == met[1] != met[2] == met[3]
    assert sum(f"port {ports[0]} is in use" in s for s in said) == 2


def test_foreign_stores_and_services_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent service, another job's store and another job's announcement stand before the job's own."""
    monkeypatch.setattr(rendezvous, "ANSWER_S", 0.2)
    other, port = rendezvous.open_store((0,))
    theirs = rendezvous.announce((0,), "theirs", port)
    with socket.create_server(("", 0)) as silent:
        foreign = [s.getsockname()[1] for s in (silent, theirs)] + [port]
        mine = rendezvous.announce((*foreign, 0), "mine", 1234)
        ports = (*foreign, mine.getsockname()[1])
        assert ports[-1] not in foreign
        assert rendezvous.find_store("localhost", ports, "mine") == 1234
        with pytest.raises(RuntimeError, match="no store of this job"):
            rendezvous.find_store("localhost", foreign, "mine", timeout_s=0.5)
    mine.close()
    theirs.close()
    del other


def test_taken_port_of_a_store_is_passed_over() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        assert rendezvous.open_store((port, 0))[1] != port
        with pytest.raises(RuntimeError, match="can be bound"):
            rendezvous.open_store((port,))


def test_store_that_opens_late_is_waited_for() -> None:
    ports = rendezvous.free_first(rendezvous.candidate_ports("late"))[:2]
    held: list[socket.socket] = []
    timer = threading.Timer(1.0, lambda: held.append(rendezvous.announce(ports, "mine", 1234)))
    timer.start()
    assert rendezvous.find_store("localhost", ports, "mine", timeout_s=30) == 1234
    timer.join()
    held[0].close()


def test_ports_are_below_the_ephemeral_range() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = rendezvous.candidate_ports("17.0")
    assert len(set(ports)) == 16
    assert all(rendezvous.LOWEST_PORT <= p < low for p in ports)
    assert ports == rendezvous.candidate_ports("17.0") != rendezvous.candidate_ports("17.1")
    with socket.create_server(("", ports[0])):
        assert rendezvous.free_first(ports)[-1] == ports[0]


def test_a_stop_that_comes_at_the_end_of_a_job_s_agent_is_too_late(tmp_path: Path) -> None:
    """Python's end takes a while under load, and puts back the default of a signal: to kill."""
    program = """
import os, signal, sys
from pathlib import Path
from launch.agent import Agent
from launch.plan import Plan
folder = Path(sys.argv[1])
code = Agent(Plan("gloo_run", ("train", str(folder), "steps=2", "dt=0")), folder / "agent.json").run()
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    os.kill(os.getpid(), number)
sys.exit(code)
"""
    agent = Process(program, str(tmp_path))
    assert agent.end() == 0, agent.said
    assert "finished rank=0" in agent.said
