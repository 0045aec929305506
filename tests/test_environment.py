"""Where a process believes to stand, from the environment its launcher gives it."""

from __future__ import annotations

import pytest
import torch

from ddptrain.distributed import discover
from ddptrain.errors import UserError

STEP = {"SLURM_PROCID": "9", "SLURM_NTASKS": "11", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0", "SLURM_NODEID": "2"}


def test_alone_without_a_launcher_and_in_a_batch_script() -> None:
    for environ in ({}, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, STEP | {"SLURM_STEP_ID": "batch"}):
        world = discover("cpu", environ)
        assert (world.rank, world.size, world.local_size, world.launcher) == (0, 1, 1, "single")


@pytest.mark.parametrize(("counts", "here"), [("4(x2),3", 3), ("4,4,3", 3), ("8", 8), ("2,1(x5)", 1), (None, 11)])
def test_srun_tells_the_tasks_of_this_machine(counts: str | None, here: int) -> None:
    world = discover("cpu", STEP | ({"SLURM_STEP_TASKS_PER_NODE": counts} if counts else {}))
    assert (world.rank, world.size, world.local_rank, world.local_size, world.launcher) == (9, 11, 1, here, "srun")


def test_torchrun_comes_before_srun() -> None:
    own = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    world = discover("cpu", STEP | own)
    assert (world.rank, world.size, world.local_rank, world.local_size, world.launcher) == (3, 4, 1, 2, "torchrun")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RANK": "4"}, "RANK=4 is outside"),
        ({"RANK": "x"}, "environment of torchrun"),
        ({"LOCAL_WORLD_SIZE": "?"}, "environment"),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(change: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        discover("cpu", {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **change})


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() != 1, reason="shows a task one GPU of several, as srun --gpus-per-task=1 does")
def test_a_task_that_is_shown_its_own_gpu_takes_it() -> None:
    two = STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x6)"}
    assert discover("auto", two | {"SLURM_GPUS_ON_NODE": "2"}).device == torch.device("cuda", 0)
    assert discover("auto", two | {"SLURM_GPUS_ON_NODE": "1"}).device == torch.device("cpu")
    with pytest.raises(UserError, match="2 GPUs on this machine, 1 seen"):
        discover("cuda", two)
