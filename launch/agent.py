"""The agent: one per machine. It starts the ranks (torchrun's elastic agent), forwards stop signals and waits for the save.

Two threads. The main one receives the signals and has its handlers before torch is imported; the other runs torchrun's agent
with the signals blocked, so that they can end neither it nor a rank that is starting. A stop signal is forwarded as USR1 to the
ranks' main processes only, never to their groups: loader workers must outlive the save. Each rank gets it once, since a second
signal means "end without saving"; ranks that torchrun starts later get it too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from ddptrain.system import temporary
from ddptrain.system.files import write_text
from launch import logs, preflight, rendezvous
from launch.peers import Peers
from launch.plan import STOP, Plan, node_name, threads_per_rank
from launch.worker import SPEC, STOP_SIGNALS

REPORT_EVERY_S = 10.0
NO_RANKS_S = 20.0
"""Seconds without a rank after a stop signal: before them ranks may still be starting, or torchrun may be ending."""


class Agent:
    """Runs a plan's ranks on this machine.

    Args:
        report: file in which the batch script finds how the pre-flight and the ranks ended; None without a batch script.
        stopping: a stop was requested before this process could receive a signal.
    """

    def __init__(self, plan: Plan, report: Path | None = None, *, stopping: bool = False) -> None:
        self.plan, self.report = plan, report
        self.node = node_name()
        self.code = 1
        self._stops: list[tuple[float, int]] = [(time.monotonic(), signal.SIGUSR1)] if stopping else []
        self._signalled: set[int] = set()
        self._starts = ""
        self._peers: Peers | None = None
        self._reported = time.monotonic()
        self._ranks_seen = 0.0

    def run(self) -> int:
        """Start the ranks and wait for them.

        Returns:
            0 when all ranks ended well (finished, or saved and stopped), 2 after a user's mistake, else 1.
        """
        before = {s: signal.signal(s, self._on_signal) for s in STOP_SIGNALS}
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        thread = threading.Thread(target=self._elastic, name="torchrun", daemon=True)
        thread.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        tail = logs.Tail(Path(self.plan.logs), f"r{self.plan.restart}.*.{self.node}.rank*.log") if self.plan.logs else None
        while thread.is_alive():
            thread.join(0.2)
            if tail:
                tail.show(sys.stdout)
            if self._stops:
                self._pass_on()
            if self._peers:
                self._watch(self._peers)
        if tail:
            tail.show(sys.stdout, end=True)
        if self._stops:
            self._say(f"ranks ended {time.monotonic() - self._stops[0][0]:.1f} s after the signal")
        for number, handler in before.items():
            # Python's exit restores the default of all but ignored signals: a late stop would kill a job's agent
            signal.signal(number, signal.SIG_IGN if self.report else handler)
        self._note(code=self.code)
        return self.code

    def _note(self, **facts: Any) -> None:
        """Add facts for the batch script to those of the pre-flight."""
        if self.report:
            known = json.loads(self.report.read_text()) if self.report.exists() else {"node": self.node}
            by = {"signal": signal.Signals(self._stops[0][1]).name} if self._stops else {}
            write_text(self.report, json.dumps(known | by | facts))

    def _on_signal(self, number: int, frame: Any) -> None:
        self._stops.append((time.monotonic(), number))

    def _pass_on(self) -> None:
        first, number = self._stops[0]
        pids = worker_pids()
        self._ranks_seen = time.monotonic() if pids else self._ranks_seen
        interrupts = sum(n == signal.SIGINT for _, n in self._stops)
        if not pids and time.monotonic() - max(first, self._ranks_seen) > NO_RANKS_S:
            self._end("there is no rank that could save", pids)
        if interrupts > 1 or time.monotonic() - first > self.plan.grace_s:
            why = "interrupted again" if interrupts > 1 else f"no save within {self.plan.grace_s:.0f} s"
            self._end(why, pids, 128 + signal.SIGINT if interrupts > 1 else 1)
        if not self._signalled:  # Slurm may kill this process before the save is done
            self._note()
        new = [pid for pid in pids if pid not in self._signalled]
        if new:
            again = "; once more to end immediately" if number == signal.SIGINT else ""
            self._say(f"{signal.Signals(number).name}: asking processes {new} to save and stop{again}")
        for pid in new:
            self._signalled.add(pid)
            _send(pid, signal.SIGUSR1)

    def _watch(self, peers: Peers) -> None:
        """Report which machines are late; end where one was lost, since torchrun would wait for it in silence."""
        for seconds, came in ((self.plan.lost_s, True), (self.plan.late_s, False)):
            if lost := peers.silent(seconds, came=came):
                self._note(lost=lost, code=1)
                self._end(f"{' '.join(lost)} was silent for {seconds:.0f} s", worker_pids())
        late = peers.silent(REPORT_EVERY_S) + peers.silent(REPORT_EVERY_S, came=False)
        if late and time.monotonic() - self._reported > REPORT_EVERY_S:
            self._reported = time.monotonic()
            self._say(f"waiting for {' '.join(late)}")

    def _end(self, why: str, pids: list[int], status: int = 1) -> NoReturn:
        self._say(f"{why}: killing ranks {pids}")
        for pid in pids:
            _send(pid, signal.SIGKILL)
        sys.stdout.flush()
        os._exit(status)

    def _say(self, text: str) -> None:
        print(f"[{self.node}] agent: {text}", flush=True)

    def _elastic(self) -> None:
        try:
            if self.plan.logs:
                self._starts = f"{self.plan.logs}/.r{self.plan.restart}.{self.node}.starts"
                self._meet_and_run()
            else:
                with temporary.folder("launch") as folder:
                    self._starts = f"{folder}/starts"
                    self._meet_and_run()
        except Exception:
            traceback.print_exc()
            self.code = 1

    def _meet_and_run(self) -> None:
        plan = self.plan
        # read when torch is imported; otherwise a restart in place hangs on more than one machine, since rank 0 may move to
        # another machine while agents remember the store of the first
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "15")
        from torch.distributed import TCPStore  # noqa: TID251
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs  # noqa: TID251  # not of a rank
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: TID251
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: TID251

        # `_record` reports the last failure in a line of its own; those before a restart are reported by torchrun alone
        level = logging.ERROR if plan.max_restarts else logging.CRITICAL
        logging.getLogger("torch.distributed.elastic").setLevel(level)
        address, store, announced = plan.address, None, None
        check = self._start_check() if plan.check else None
        configs: dict[str, Any] = {"join_timeout": 600, "read_timeout": 60}
        if plan.endpoint is not None:
            endpoint = plan.endpoint
        else:
            if plan.host in ("", self.node):
                store, port = rendezvous.open_store(plan.ports)
                announced = rendezvous.announce(plan.ports, plan.token, port) if plan.nnodes > 1 else None
            else:
                port = rendezvous.find_store(address, plan.ports, plan.token, say=self._say)
                store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=60))
            endpoint, configs["is_host"] = f"{address}:{port}", "0"
            if plan.nnodes > 1:
                self._say(f"meets at {endpoint}")
                others = [node for node in plan.addresses if node != self.node]
                self._peers = Peers(store, plan.host, self.node, others)
        if check and (code := self._end_of(check)):
            self.code = code
            return
        os.environ[SPEC] = json.dumps(self._worker_spec())
        config = LaunchConfig(
            min_nodes=plan.nnodes,
            max_nodes=plan.nnodes,
            nproc_per_node=plan.nproc,
            run_id=plan.run_id,
            rdzv_backend="c10d",
            rdzv_endpoint=endpoint,
            rdzv_configs=configs,
            max_restarts=plan.max_restarts,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
            local_addr=plan.addresses.get(self.node, "localhost" if plan.nnodes == 1 else None),
        )
        try:
            elastic_launch(config, sys.executable)("-u", "-m", "launch.worker")
            self.code = 0
        except ChildFailedError as e:
            self._record(e.failures)
        if self._peers:
            self._peers.close()
        if store and plan.nnodes > 1 and self.code == 0:  # the machine with the store leaves last
            rendezvous.leave(store, self.node, list(plan.addresses) if plan.host == self.node else [])
        if announced:
            announced.close()

    def _start_check(self) -> subprocess.Popen[bytes]:
        """The pre-flight, in a process of its own, so that its GPUs are free again when the ranks start."""
        return subprocess.Popen([sys.executable, "-m", "launch.preflight", self.plan.dumps(), str(self.report)])

    def _end_of(self, check: subprocess.Popen[bytes]) -> int:
        """The status of the pre-flight; one that a broken driver holds in the kernel is left behind."""
        try:
            return check.wait(preflight.LIMIT_S)
        except subprocess.TimeoutExpired:
            self._note(check=f"its test did not finish within {preflight.LIMIT_S} s")
            self._say(f"pre-flight: bad machine: its test did not finish within {preflight.LIMIT_S} s")
            check.kill()
            return preflight.BAD_NODE

    def _worker_spec(self) -> dict[str, Any]:
        plan = self.plan
        threads = os.environ.get("OMP_NUM_THREADS") or str(threads_per_rank(plan.nproc))
        return {
            "agent": os.getpid(),
            "module": plan.module,
            "arguments": plan.arguments,
            "cwd": plan.cwd,
            "env": {"OMP_NUM_THREADS": threads} | allocator() | plan.env,
            "logs": plan.logs,
            "restart": plan.restart,
            "starts": self._starts,
            "node": self.node,
        }

    def _record(self, failures: dict[int, Any]) -> None:
        """Report which ranks failed and how, here and beside the log of each."""
        self.code = 2 if any(f.exitcode == 2 for f in failures.values()) else 1
        for rank, failure in sorted(failures.items()):
            how = f"status {failure.exitcode}"
            if failure.exitcode < 0:
                how = f"killed by {signal.Signals(-failure.exitcode).name}"
            if self.code != 2:  # a user's mistake was reported by the rank that met it
                self._say(f"rank {rank} failed: {how}")
            if self.plan.logs:
                logs.note_failure(Path(self.plan.logs), self.plan.restart, self.node, rank, how)


def allocator(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Settings for torch's memory on a GPU, where the user has none: segments that grow leave no gaps between sizes."""
    keys = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    return {} if any(key in environ for key in keys) else {keys[0]: "expandable_segments:True"}


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def worker_pids() -> list[int]:
    """Main processes of the ranks that this agent started: its children, not theirs."""
    me, pids = os.getpid(), []
    if not os.path.isdir("/proc/self"):
        table = subprocess.run(["ps", "-axo", "pid=,ppid=,command="], capture_output=True, text=True, check=True)
        rows = [line.split(None, 2) for line in table.stdout.splitlines()]
        return [int(r[0]) for r in rows if len(r) == 3 and int(r[1]) == me and "launch.worker" in r[2]]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                parent = int(f.read().rpartition(")")[2].split()[1])
            if parent == me:
                with open(f"/proc/{pid}/cmdline", "rb") as b:
                    if b"launch.worker" in b.read():
                        pids.append(int(pid))
        except (OSError, ValueError):
            continue
    return pids


def main(folder: Path) -> int:
    """The agent of one start of a Slurm job, on one of its machines."""
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    plan = Plan.loads((folder / f"plan.r{restart}.json").read_text(encoding="utf-8"))
    return Agent(plan, folder / f"agent.r{restart}.{node_name()}.json", stopping=(folder / STOP).exists()).run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
