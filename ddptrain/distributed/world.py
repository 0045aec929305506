"""Where this process stands.

Precedence of the environment: torchrun (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`), else a Slurm step with more than one task
(`SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`, `SLURM_LOCALID`), else one process. A batch script, the shell of `salloc` and a shell
in a step are not tasks that others wait for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ddptrain.errors import UserError

ALONE = "`unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE` to train in one process"
_SPECIAL_STEPS = 0xFFFFFFF0
"""From this number on Slurm counts no steps: a batch script, an interactive shell, what runs beside a job."""


@dataclass(frozen=True)
class World:
    """Where this process stands.

    Attributes:
        rank: 0 <= rank < size, over all machines.
        size: number of processes.
        local_rank: rank on this machine.
        local_size: processes on this machine.
        device: the device this process computes on.
        launcher: "torchrun", "srun" or "single".
        note: what the user may not have meant, in one line; empty else.
        lacking: why a GPU of the machine is not used, in one line; empty else.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device
    launcher: str
    note: str = ""
    lacking: str = ""

    @property
    def main(self) -> bool:
        """True on the one rank that writes files."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size} ({self.launcher}, {self.device})"


def discover(device: str = "auto", environ: Mapping[str, str] = os.environ) -> World:
    """Read the environment (see the module's docstring for the precedence).

    Args:
        device: "auto" (a GPU for each rank where there are GPUs, else the CPU), "cpu" or "cuda".
        environ: the environment, for tests.

    Raises:
        UserError: the environment contradicts itself, there are fewer GPUs than ranks, or a person typed the command in a shell
            that is one of several tasks.
    """
    tasks = _tasks(environ)
    if place := _of_torchrun(environ, tasks):
        launcher = "torchrun"
    elif tasks > 1:
        if environ is os.environ and _in_a_shell():
            raise UserError(
                f"this shell is one of the {tasks} tasks of a Slurm step, and nothing starts ddptrain in the others; "
                f"`srun --overlap ddptrain …` starts {tasks} ranks, "
                "`env -u SLURM_STEP_ID -u SLURM_STEPID ddptrain …` one process"
            )
        launcher, place = "srun", _of_srun(environ, tasks)
    else:
        launcher, place = "single", (0, 1, 0, 1)
    rank, size, local_rank, local_size = place
    tasks_here = environ.get("SLURM_STEP_TASKS_PER_NODE" if launcher == "srun" else "LOCAL_WORLD_SIZE", "").strip()
    picked, lacking = _pick_device(device, local_rank, local_size if tasks_here else local_rank + 1)
    return World(rank, size, local_rank, local_size, picked, launcher, _note(environ) if launcher == "single" else "", lacking)


def discover_or_cpu(device: str, environ: Mapping[str, str] = os.environ) -> World:
    """The same for the weights of a run on `device`, which need not be on this machine: without a GPU "cuda" is the CPU, and
    `lacking` says so."""
    world = discover("auto" if device == "cuda" else device, environ)
    if device == "cuda" and world.device.type == "cpu":
        lacking = world.lacking or "the run has train.device=cuda, but this machine has no GPU: using the CPU"
        return replace(world, lacking=lacking)
    return world


def _integer(environ: Mapping[str, str], key: str, default: int | None = None, low: int = 0) -> int | None:
    text = environ.get(key, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < low:
        way = ALONE if not key.startswith("SLURM") else f"`unset {key}`"
        raise UserError(f"{key}={text} in the environment must be an integer ≥ {low}; correct it, or {way}")
    return int(text)


def _of_torchrun(environ: Mapping[str, str], tasks: int) -> tuple[int, int, int, int] | None:
    """(rank, size, local rank, local size) as torchrun sets them; None where it does not."""
    rank, size = _integer(environ, "RANK"), _integer(environ, "WORLD_SIZE", low=1)
    if rank is None or size is None:
        given = "RANK" if size is None else "WORLD_SIZE"
        other = "WORLD_SIZE" if size is None else "RANK"
        # a script that exports the number of tasks, or of the only process, says nothing wrong
        if rank is None and size in (None, 1, tasks):
            return None
        raise UserError(
            f"{given}={environ[given]} is set in the environment and {other} is not; {ALONE}, or start the ranks with torchrun "
            f"or `ddptrain train --nproc N`, which set both"
        )
    if rank >= size:
        raise UserError(f"RANK={rank} in the environment must be less than WORLD_SIZE={size}; correct both, or {ALONE}")
    local_size = _integer(environ, "LOCAL_WORLD_SIZE", low=1)
    # without word of machines, all ranks are on this one
    local_rank = _integer(environ, "LOCAL_RANK", rank if local_size is None else 0) or 0
    local_size = size if local_size is None else local_size
    if not local_rank < local_size <= size:
        raise UserError(
            f"LOCAL_RANK={local_rank}, LOCAL_WORLD_SIZE={local_size} and WORLD_SIZE={size} in the environment contradict each "
            f"other: each must be less than, or at most, the next; correct them, or {ALONE}"
        )
    return rank, size, local_rank, local_size


def _tasks(environ: Mapping[str, str]) -> int:
    """Tasks of the Slurm step that this process is one of; 1 where it is none of a step's."""
    step = environ.get("SLURM_STEP_ID", environ.get("SLURM_STEPID", ""))
    if not step.isdecimal() or int(step) >= _SPECIAL_STEPS:
        return 1
    # SLURM_NTASKS may be the job's: srun --preserve-env
    return _integer(environ, "SLURM_STEP_NUM_TASKS", _integer(environ, "SLURM_NTASKS", 1, 1), 1) or 1


def _in_a_shell() -> bool:
    """Whether a shell with job control stands between Slurm's task and this process: a person typed the command.

    Such a shell puts every command into a process group of its own; a script does not.
    """
    pid = os.getpid()
    try:
        while pid > 1:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            parent = int(text[1])
            if Path(f"/proc/{parent}/comm").read_text().startswith("slurmstepd"):
                return os.getpgid(pid) != os.getpgid(0)
            pid = parent
    except (OSError, IndexError, ValueError):
        pass
    return False


def _of_srun(environ: Mapping[str, str], size: int) -> tuple[int, int, int, int]:
    """(rank, size, local rank, local size) as srun sets them."""
    rank = _integer(environ, "SLURM_PROCID")
    if rank is None or rank >= size:
        raise UserError(
            f"SLURM_PROCID={environ.get('SLURM_PROCID', '')} in the environment must be an integer less than the {size} tasks "
            "of the step; start the ranks with srun, or `unset SLURM_STEP_ID SLURM_STEPID` to train in one process"
        )
    counts = environ.get("SLURM_STEP_TASKS_PER_NODE")
    local_size = _tasks_here(counts, _integer(environ, "SLURM_NODEID", 0) or 0) if counts else size
    return rank, size, _integer(environ, "SLURM_LOCALID", 0) or 0, local_size


def _tasks_here(counts: str, node: int) -> int:
    """This node's number in a list such as Slurm's `4(x2),3`: two nodes with 4 tasks and one with 3; or the only number."""
    each = [int(n) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", counts) for _ in range(int(times or 1))]
    if not each:
        raise UserError(
            f"SLURM_STEP_TASKS_PER_NODE={counts} in the environment must be a list of numbers such as 4(x2),3; "
            "`unset SLURM_STEP_TASKS_PER_NODE`"
        )
    return each[min(node, len(each) - 1)]


def _note(environ: Mapping[str, str]) -> str:
    """What a single process inside a job of several tasks should say."""
    tasks = environ.get("SLURM_NTASKS", "")
    step = environ.get("SLURM_STEP_ID", environ.get("SLURM_STEPID", ""))
    if not tasks.isdecimal() or int(tasks) < 2 or (step.isdecimal() and int(step) < _SPECIAL_STEPS):
        return ""
    return (
        f"the Slurm job has {tasks} tasks (SLURM_NTASKS), but srun did not start this process: one process trains; "
        f"`srun ddptrain train …` starts {tasks} ranks"
    )


def _pick_device(device: str, local_rank: int, needed: int) -> tuple[torch.device, str]:
    """The device of a rank on a machine where that many GPUs are needed, and what `auto` should say about GPUs that cannot be
    used; empty for nothing.

    The only GPU that a rank is shown is its own, whatever its number on the machine: srun --gpus-per-task=1, torchrun
    --virtual-local-rank and scripts show each rank one. (Ranks that share it are refused when they have met.)
    """
    if device == "cpu":
        return torch.device("cpu"), ""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 1:
        return torch.device("cuda", 0), ""
    if needed <= count:
        return torch.device("cuda", local_rank), ""
    if count:
        raise UserError(
            f"train.device: {device} takes a GPU for each rank; {needed} ranks are on this machine (or LOCAL_RANK={local_rank} "
            f"is wrong), and it has {count} GPUs; start {count} ranks on it (LOCAL_RANK from 0 to {count - 1}), or set "
            "train.device=cpu"
        )
    if device == "cuda":
        raise UserError(
            f"train.device: cuda, and no GPU is available here: {_lacking() or 'torch sees none'}; set train.device=cpu"
        )
    return torch.device("cpu"), _lacking()


def _lacking() -> str:
    """Why a GPU of this machine cannot be used; empty where there is none."""
    if Path("/dev/nvidia0").exists():
        if torch.version.cuda is None:
            return (
                f"this machine has an NVIDIA GPU, but torch {torch.__version__} was built without CUDA; install another build"
            )
        return (
            f"this machine has an NVIDIA GPU that torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use: its driver "
            "may be too old (see nvidia-smi), or CUDA_VISIBLE_DEVICES hides it"
        )
    mps = getattr(torch.backends, "mps", None)
    if mps is not None and mps.is_available():
        return "the GPU of a Mac (MPS) is not used: ddptrain uses NVIDIA GPUs and the CPU"
    return ""
