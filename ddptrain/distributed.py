"""The one place that knows about processes: where this one stands, and every collective the package makes.

Precedence of the environment: torchrun (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`), else `srun` with more than one task
(`SLURM_PROCID`, `SLURM_NTASKS`, `SLURM_LOCALID`; the ranks meet at `MASTER_ADDR`:`MASTER_PORT`, by default on the step's
first node at a port made of the job's number), else one process.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from types import TracebackType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ddptrain import last_words
from ddptrain.errors import RankFailed, UserError

T = TypeVar("T")


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
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device
    launcher: str

    @property
    def main(self) -> bool:
        """True on the one rank that writes files."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size} ({self.launcher}, {self.device})"


def discover(device: str = "auto", environ: Mapping[str, str] = os.environ) -> World:
    """Read the environment (see the module's docstring for the precedence).

    Args:
        device: "auto" (CUDA where there is one per local process, else CPU), "cpu" or "cuda".
        environ: the environment, for tests.

    Raises:
        UserError: the environment contradicts itself, or CUDA is asked for and absent.
    """
    keys = {
        "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    }
    launcher = "single"
    if "RANK" in environ and "WORLD_SIZE" in environ:
        launcher = "torchrun"
    # an interactive shell or a batch script has no step of its own and must not wait for other tasks
    elif int(environ.get("SLURM_NTASKS", "1")) > 1 and environ.get("SLURM_STEP_ID", "batch").isdigit():
        launcher = "srun"
    rank, size, local_rank, local_size = 0, 1, 0, 1
    if launcher != "single":
        r, w, lr, lw = keys[launcher]
        try:
            rank, size, local_rank = int(environ[r]), int(environ[w]), int(environ.get(lr, 0))
            local_size = _tasks_here(environ[lw], environ) if lw in environ else size
        except (KeyError, ValueError) as e:
            raise UserError(f"environment of {launcher}: {e}; set {r}, {w} and {lr}, or unset them all") from None
        if not 0 <= rank < size:
            raise UserError(f"environment of {launcher}: {r}={rank} is outside 0..{w}-1={size - 1}")
    # srun --gpus-per-task=1 and its like show each task one GPU, which is number 0 to it
    bound = launcher == "srun" and int(environ.get("SLURM_GPUS_ON_NODE", "0")) >= local_size
    return World(rank, size, local_rank, local_size, _pick_device(device, local_rank, local_size, bound), launcher)


def _tasks_here(counts: str, environ: Mapping[str, str]) -> int:
    """This node's number in a list such as Slurm's `4(x2),3`: two nodes with 4 tasks and one with 3; or the only number."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    each = [int(n) for n, times in found for _ in range(int(times or 1))]
    node = int(environ.get("SLURM_NODEID", "0"))
    if not each:
        raise ValueError(f"{counts!r} is no number of tasks")
    return each[min(node, len(each) - 1)]


def _pick_device(device: str, local_rank: int, local_size: int, bound: bool) -> torch.device:
    count = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if bound and count == 1:
        return torch.device("cuda", 0)
    if device == "cuda" and count < local_size:
        raise UserError(
            f"train.device: cuda asks for {local_size} GPUs on this machine, {count} seen; start {max(count, 1)} ranks on it"
        )
    if count >= local_size and count > 0:
        return torch.device("cuda", local_rank)
    return torch.device("cpu")


@contextmanager
def process_group(world: World, timeout_s: float) -> Iterator[None]:
    """Hold the process group open (NCCL on CUDA, gloo on the CPU); nothing at all for a single process.

    Args:
        timeout_s: seconds a collective may wait for the slowest rank before the run ends.
    """
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if world.size == 1:
        yield
        return
    backend = "nccl" if world.device.type == "cuda" else "gloo"
    if world.launcher == "srun":
        meet_under_srun(os.environ)
    try:
        dist.init_process_group(
            backend,
            rank=world.rank,
            world_size=world.size,
            timeout=timedelta(seconds=timeout_s),
            device_id=world.device if backend == "nccl" else None,
        )
    except ValueError as e:
        raise UserError(f"process group: {e}; set MASTER_ADDR and MASTER_PORT, or start with torchrun") from None
    except dist.DistError as e:
        line = " ".join(str(e).split())[:200]
        raise RankFailed(f"rank {world.rank} of {world.size} waited {timeout_s:g} s for the others to start: {line}") from None
    try:
        yield
    except RankLost:
        raise
    except BaseException as e:
        # the others will miss this rank, and ask
        last_words.leave(_store(), dist.get_rank(), f"ended with {type(e).__name__}: {' '.join(str(e).split())[:200]}")
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


class RankLost(RankFailed):
    """A collective failed because some rank did not come."""


class Waiting:
    """Around a collective: when it fails, say which rank waited, for how long, in what, and who did not come.

    With gloo the wait ends as soon as a rank is gone, or after `timeout_s` for one that is only slow. NCCL ends the process by
    itself after `timeout_s`, with its own message.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            waited = f"waited {time.monotonic() - self._since:.1f} s in {self.what}"
            others = last_words.ask(_store(), dist.get_rank(), dist.get_world_size(), waited)
            raise RankLost(f"rank {dist.get_rank()} {waited}; {others}") from error


def _store() -> Any:
    """The store through which the ranks met; None where there is none any more."""
    return dist.distributed_c10d._get_default_store() if dist.is_initialized() else None


def rank_and_size() -> tuple[int, int]:
    """This process's rank and the number of processes, of the process group where there is one, else 0 and 1."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def meet_under_srun(environ: MutableMapping[str, str]) -> None:
    """Set `MASTER_ADDR` and `MASTER_PORT` where the user did not: the same on every task of a step.

    A node's name may not resolve (clusters with `NodeAddr`); then its address is asked of Slurm.
    """
    if "MASTER_ADDR" not in environ:
        nodes = environ.get("SLURM_STEP_NODELIST", environ.get("SLURM_JOB_NODELIST", "localhost"))
        first = (_scontrol("show", "hostnames", nodes).split() or [nodes])[0]
        try:
            socket.getaddrinfo(first, None)
        except OSError:
            found = re.search(r"NodeAddr=(\S+)", _scontrol("-o", "show", "node", first))
            first = found[1] if found else first
        environ["MASTER_ADDR"] = first
    step = f"{environ.get('SLURM_JOB_ID')}.{environ.get('SLURM_STEP_ID')}"
    # below the kernel's ephemeral range
    environ.setdefault("MASTER_PORT", str(20000 + zlib.crc32(step.encode()) % 12000))


def _scontrol(*arguments: str) -> str:
    try:
        return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def all_reduce_sum(tensor: Tensor, what: str) -> Tensor:
    """Sum `tensor` over the ranks, in place. Every rank must call it in the same order.

    Args:
        what: names the call in a message, should it fail; so in all functions below.
    """
    if dist.is_initialized():
        with Waiting(what):
            dist.all_reduce(tensor)
    return tensor


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return all_reduce_sum(tensor.clone(), "the statistics of a batch norm")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return all_reduce_sum(grads[0].clone(), "the gradient of a batch norm's statistics")


def differentiable_sum(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over the ranks; its gradient is the sum of the ranks' gradients."""
    return cast(Tensor, _SumOverRanks.apply(tensor))


def gather_objects(obj: Any, what: str) -> list[Any]:
    """One picklable object per rank, in the order of ranks, on every rank."""
    if not dist.is_initialized():
        return [obj]
    out: list[Any] = [None] * dist.get_world_size()
    with Waiting(what):
        dist.all_gather_object(out, obj)
    return out


def broadcast_object(obj: Any, what: str) -> Any:
    """Rank 0's picklable object, on every rank."""
    if not dist.is_initialized():
        return obj
    box = [obj]
    with Waiting(what):
        dist.broadcast_object_list(box, src=0)
    return box[0]


def agree(build: Callable[[], T], what: str) -> T:
    """Run `build` on every rank; a UserError on any of them is raised on all of them, so that none waits for ever."""
    result: T | None = None
    error: str | None = None
    try:
        result = build()
    except UserError as e:
        error = str(e)
    errors = gather_objects(error, what)
    for rank, message in enumerate(errors):
        if message is not None:
            agreed = UserError(message if rank == 0 else f"rank {rank}: {message}")
            agreed.everywhere = True
            raise agreed
    return cast(T, result)


def first_true(value: str, what: str) -> str:
    """The first non-empty string over the ranks, on every rank."""
    return next((v for v in gather_objects(value, what) if v), "")


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """The model in DDP when there is more than one process, else the model itself.

    Buffers are not broadcast: the step averages them over the ranks in its own small all-reduce.
    """
    if world.size == 1:
        return model
    ids = [world.device] if world.device.type == "cuda" else None
    ddp = nn.parallel.DistributedDataParallel
    # renamed in torch 2.15
    name = "forward_sync_buffers" if "forward_sync_buffers" in signature(ddp).parameters else "broadcast_buffers"
    buffers: dict[str, Any] = {name: False}
    if world.device.type == "cpu" and any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        raise UserError(
            "model.norm: sync on the CPUs of a machine with GPUs: set train.device=cuda, or hide them (CUDA_VISIBLE_DEVICES=)"
        )
    with Waiting("the comparison of the models"):
        return ddp(model, device_ids=ids, gradient_as_bucket_view=True, **buffers)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP, or the model itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def no_sync(model: nn.Module, enabled: bool) -> AbstractContextManager[Any]:
    """DDP's `no_sync` around forward and backward of a micro batch that is not the step's last."""
    if enabled and isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
