"""A private Slurm on this machine for the tests: munged, slurmctld and slurmd processes below one short folder.

It needs the programs of Debian's `slurm-wlm` and `munge`, and nothing else: no root, no system daemon, no file in /etc.
Node names are random, since cgroups are named after node, user and job number: two clusters with equal names would end
each other's jobs. Everything that was started is ended by its own process id.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import string
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "sinfo", "scancel", "sacct")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def missing() -> list[str]:
    return [p for p in PROGRAMS if shutil.which(p, path=PATH) is None]


def trackers() -> list[str]:
    """Process trackers that work here: the one of production first."""
    writable = [p for p in ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup/cgroup.controllers") if os.access(p, os.W_OK)]
    return (["cgroup"] if os.geteuid() == 0 and writable else []) + ["linuxproc", "pgid"]


def wait_for(what: str, true: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until something is true; the error says what was waited for, and what `what` describes at the end."""
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within {timeout_s:.0f} s")
        time.sleep(0.1)


def _end_with_parent() -> None:
    """Ask the kernel to end this process when the tests are killed (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class PrivateSlurm:
    """Context manager; `environ` is what its clients need.

    Args:
        tracker: ProctrackType, decides which processes a signal to a step reaches.
        gpus: fake GPUs per node: Slurm hands them out, nothing can compute on them.
        kill_wait: seconds between Slurm's SIGTERM and SIGKILL; few of them are too few for a save on a crowded machine.
        grace: seconds that a pre-empted job of partition `low` is left.
    """

    def __init__(self, nodes: int = 2, tracker: str | None = None, gpus: int = 0, kill_wait: int = 20, grace: int = 30) -> None:
        self.tracker = tracker or trackers()[0]
        self.base = Path(tempfile.mkdtemp(prefix="ddp", dir="/tmp"))  # unix sockets: 108 characters at most
        self.base.chmod(0o755)
        stem = "n" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(7))
        self.nodes = [f"{stem}{i}" for i in range(nodes)]
        self.environ = {"SLURM_CONF": str(self.base / "slurm.conf"), "PATH": PATH}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._write_config(gpus, kill_wait, grace)

    def _write_config(self, gpus: int, kill_wait: int, grace: int) -> None:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(len(self.nodes) + 1)]
        ports = [s.getsockname()[1] for s in sockets]
        for s in sockets:
            s.close()
        host, me, b = socket.gethostname().split(".")[0], pwd.getpwuid(os.getuid()).pw_name, self.base
        for folder in ("log", "state", *(f"spool-{n}" for n in self.nodes)):
            (b / folder).mkdir(mode=0o755)
        (b / "munge.key").write_bytes(secrets.token_bytes(256))
        (b / "munge.key").chmod(0o600)
        lines = [
            f"ClusterName=ddp{b.name[3:].lower()}", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmUser={me}", f"SlurmdUser={me}",
            "AuthType=auth/munge", "CredType=cred/munge",
            # cred_expire is also how long Slurm holds a requeued job: 120 s by default, and for values below 5
            f"AuthInfo=socket={b}/munge.sock,cred_expire=5",
            f"SlurmctldPort={ports[0]}", f"SlurmctldPidFile={b}/ctld.pid", f"SlurmctldLogFile={b}/log/ctld",
            f"SlurmdPidFile={b}/%n.pid", f"SlurmdLogFile={b}/log/%n", f"SlurmdSpoolDir={b}/spool-%n",
            f"StateSaveLocation={b}/state", "SlurmdParameters=config_overrides",
            f"ProctrackType=proctrack/{self.tracker}", "TaskPlugin=task/none", "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none", "JobCompType=jobcomp/filetxt", f"JobCompLoc={b}/log/ended",
            "MinJobAge=3600", "MpiDefault=none", "SwitchType=switch/none", "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU", "SchedulerType=sched/backfill",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,requeue_setup_env_fail",
            "ReturnToService=2", "JobRequeue=1", f"KillWait={kill_wait}", "SlurmctldTimeout=60", "SlurmdTimeout=60",
            "PreemptType=preempt/partition_prio", "PreemptMode=REQUEUE",
            *(["GresTypes=gpu"] if gpus else []),
            *(
                f"NodeName={n} NodeHostname={host} NodeAddr=127.0.0.1 Port={p} CPUs=16 RealMemory=8000 State=UNKNOWN"
                + (f" Gres=gpu:{gpus}" if gpus else "")
                for n, p in zip(self.nodes, ports[1:])
            ),
            "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF",
            f"PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace}",
            "PartitionName=rude Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=0",
            "PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=20 PreemptMode=OFF",
        ]  # fmt: skip
        (b / "slurm.conf").write_text("\n".join(lines) + "\n")
        if gpus:
            (b / "gres.conf").write_text("".join(f"NodeName={n} Name=gpu File=/dev/tty[0-{gpus - 1}]\n" for n in self.nodes))
        if self.tracker == "cgroup":
            (b / "cgroup.conf").write_text("CgroupPlugin=autodetect\nIgnoreSystemd=yes\nCgroupAutomount=no\n")

    def __enter__(self) -> PrivateSlurm:
        b = self.base
        try:
            self._start(
                "munged", "--foreground", "--force", f"--socket={b}/munge.sock", f"--key-file={b}/munge.key",
                f"--pid-file={b}/munged.pid", f"--log-file={b}/log/munged", f"--seed-file={b}/munge.seed",
            )  # fmt: skip
            wait_for("munge socket", (b / "munge.sock").exists)
            self._start("slurmctld", "-D")
            for node in self.nodes:
                self.boot(node)
            wait_for("idle nodes", self._idle)
            self.run("srun", f"-N{len(self.nodes)}", "true")  # some trackers only fail with the first step
            wait_for("idle nodes", self._idle)
        except BaseException:
            print(*(f"--- {f.name}\n{f.read_text(errors='replace')[-2000:]}" for f in sorted((b / "log").iterdir())), sep="\n")
            self.__exit__()
            raise
        return self

    def _start(self, *command: str) -> None:
        with open(self.base / "log" / f"{command[0]}.out", "ab") as log:
            environ = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")} | self.environ
            daemon = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=_end_with_parent,
            )  # fmt: skip
        self._daemons[command[-1]] = daemon

    def boot(self, node: str) -> None:
        """Start a node."""
        self._start("slurmd", "-D", "-N", node)

    def cut_off(self, node: str) -> None:
        """Lose a node silently, as if its plug were pulled: its daemon and all that it started are killed."""
        self._daemons[node].kill()
        self._daemons[node].wait()
        work, keepers = [], set()
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError):
                environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if f"SLURMD_NODENAME={node}".encode() in environ:
                    work.append(pid)
                    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                    if Path(f"/proc/{parent}/comm").read_text().startswith("slurmstepd"):
                        keepers.add(parent)
        for pid in (*keepers, *work):  # the keepers first: they would report how their work ended
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _idle(self) -> bool:
        dead = [d.args for d in self._daemons.values() if d.poll() is not None]
        if dead:
            raise RuntimeError(f"{dead} ended")
        return self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%t", check=False).split() == ["idle"] * len(self.nodes)

    def __exit__(self, *error: object) -> None:
        if len(self._daemons) > 1:
            self.run("scancel", "-f", "-u", pwd.getpwuid(os.getuid()).pw_name, check=False)
            try:
                wait_for("empty queue", lambda: not self.run("squeue", "-h", check=False), 30)
            except TimeoutError as e:
                print(e)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._end_steps()
        for cgroup in Path("/sys/fs/cgroup").glob("*/slurm_*"):
            if cgroup.name.removeprefix("slurm_") in self.nodes:
                for folder, _, _ in os.walk(cgroup, topdown=False):
                    try:
                        os.rmdir(folder)
                    except OSError:
                        continue
        shutil.rmtree(self.base, ignore_errors=True)

    def _end_steps(self) -> None:
        """End slurmstepd processes that outlived their slurmd: those whose environment names this cluster's folder."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                environ = Path(f"/proc/{pid}/environ").read_bytes()
                if b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes() and bytes(self.base) in environ:
                    os.kill(int(pid), signal.SIGKILL)
            except OSError:
                continue

    def run(self, *command: str, check: bool = True, timeout_s: float = 60, attempts: int = 1) -> str:
        """Output of a Slurm command; a crowded machine may need more than one attempt."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")} | self.environ
        done = subprocess.run(command, env=environ, text=True, capture_output=True, timeout=timeout_s)
        if done.returncode and attempts > 1:
            time.sleep(1)
            return self.run(*command, check=check, timeout_s=timeout_s, attempts=attempts - 1)
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout.strip()
