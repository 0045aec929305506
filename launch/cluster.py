"""What the launcher asks of Slurm, through its commands; accounting is not needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ddptrain.config.slurm import minutes
from ddptrain.errors import UserError

_STRIPPED = re.compile(
    r"(SLURM_|SLURMD_|SRUN_|SUBMITIT_|TORCHELASTIC_|PMI|OMPI_)"
    r"|((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_ADDR|MASTER_PORT)$"
)
_BUSY = re.compile(r"timed out|unable to contact|connect failure|connection refused|zero bytes|temporarily", re.IGNORECASE)
PATIENCE_S = 60.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL", "DEADLINE")
_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")


@dataclass(frozen=True)
class JobState:
    """What Slurm reports about a job; empty strings where it does not."""

    state: str
    reason: str = ""
    restarts: str = ""
    nodes: str = ""
    excluded: str = ""
    partition: str = ""
    limit: str = ""

    @property
    def limit_s(self) -> float:
        """The time limit in seconds; 0 where there is none or it is not known."""
        try:
            return minutes(self.limit) * 60
        except ValueError:
            return 0.0


def present() -> bool:
    """Whether Slurm's commands are on this machine."""
    return shutil.which("sbatch") is not None


def call(*command: str, timeout_s: float = 60.0) -> str:
    """Output of a Slurm command. Inside a job a busy controller is asked again for a minute: the job's future depends on it.

    Raises:
        UserError: the command does not exist or failed; with Slurm's own message.
    """
    end = time.monotonic() + (PATIENCE_S if "SLURM_JOB_ID" in os.environ else 0)
    while True:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            raise UserError(f"{command[0]}: not found; run this where Slurm's commands are, on a login node") from None
        except subprocess.TimeoutExpired:
            message, again = f"no answer in {timeout_s:.0f} s; is the Slurm controller up?", True
        else:
            if done.returncode == 0:
                return done.stdout
            message = plain(done.stderr or done.stdout) or f"status {done.returncode}"
            again = done.returncode < 0 or bool(_BUSY.search(message))
        if not again or time.monotonic() > end:
            raise UserError(f"{command[0]}: {message}")
        time.sleep(1)


def plain(text: str) -> str:
    """The message of a Slurm command in one line, without its name before each sentence."""
    lines = (re.sub(r"^\w+: (?:error: )?", "", line).strip() for line in text.splitlines())
    return "; ".join(line for line in lines if line)


def inside_job(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Variables of a surrounding job or torchrun that must not reach a new one."""
    return sorted(k for k in environ if _STRIPPED.match(k) and k not in _KEPT)


def clean(command: Sequence[str]) -> list[str]:
    """The command in an environment without the variables of a surrounding job."""
    names = inside_job()
    return ["env", *(part for name in names for part in ("-u", name)), *command] if names else list(command)


def job_state(job: str) -> JobState | None:
    """State of a job from scontrol, else sacct, else sacct's text file, else squeue; None where none of them knows it."""
    for ask in (_scontrol, _sacct, _squeue):
        try:
            if state := ask(job):
                return state
        except UserError:
            continue
    return None


def _scontrol(job: str) -> JobState | None:
    text = call("scontrol", "show", "job", job)

    def field(key: str) -> str:
        match = re.search(rf"^\s+(?:\S+=\S+ )*{key}=(\S*)", text, re.MULTILINE)
        return match[1] if match and match[1] not in ("(null)", "None") else ""

    state = field("JobState")
    if not state:
        return None
    keys = ("Reason", "Restarts", "NodeList", "ExcNodeList", "Partition", "TimeLimit")
    return JobState(state, *map(field, keys))


def _sacct(job: str) -> JobState | None:
    for source in ((), ("-c",)):
        try:
            text = call("sacct", *source, "-X", "-n", "-P", "-j", job, "-o", "State" if source else "State,NodeList")
        except UserError:
            continue
        if lines := text.split("\n")[0]:
            state, _, nodes = lines.partition("|")
            return JobState(state.split()[0], nodes=nodes)
    return None


def _squeue(job: str) -> JobState | None:
    text = call("squeue", "-h", "-j", job, "-o", "%T|%R|%N").strip()
    if not text:
        return None
    state, reason, nodes = text.splitlines()[0].split("|", 2)
    return JobState(state, reason, nodes=nodes)


def hostnames(node_list: str) -> list[str]:
    """The machines of a Slurm host list, in its order."""
    return call("scontrol", "show", "hostnames", node_list).split() if node_list else []


def machines(partition: str) -> set[str]:
    """All machines of a partition in any state."""
    return set(call("sinfo", "-h", "-N", "-p", partition, "-o", "%N").split())


def node_address(node: str) -> str:
    """`NodeAddr` of a machine."""
    match = re.search(r"\bNodeAddr=(\S+)", call("scontrol", "-o", "show", "node", node))
    return match[1] if match else node


def requeue(job: str, exclude: Sequence[str] = ()) -> None:
    """Requeue a running job, which kills it. Machines can be excluded only while it is held."""
    if not exclude:
        call("scontrol", "requeue", job)
        return
    call("scontrol", "requeuehold", job)
    for last in (False, False, False, False, True):
        try:
            call("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(exclude)}")
            break
        except UserError:
            if last:
                raise
            time.sleep(0.5)
    call("scontrol", "release", job)
