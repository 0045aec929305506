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
def test_srun_reports_the_tasks_of_this_machine(counts: str | None, here: int) -> None:
    world = discover("cpu", STEP | ({"SLURM_STEP_TASKS_PER_NODE": counts} if counts else {}))
    assert (world.rank, world.size, world.local_rank, world.local_size, world.launcher) == (9, 11, 1, here, "srun")


def test_torchrun_comes_before_srun() -> None:
    own = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    world = discover("cpu", STEP | own)
    assert (world.rank, world.size, world.local_rank, world.local_size, world.launcher) == (3, 4, 1, 2, "torchrun")


ALONE = "`unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE` to train in one process"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"RANK": "4", "WORLD_SIZE": "4"},
            f"RANK=4 in the environment must be less than WORLD_SIZE=4; set both right, or {ALONE}",
        ),
        ({"RANK": "x", "WORLD_SIZE": "4"}, f"RANK=x in the environment must be an integer ≥ 0; set it right, or {ALONE}"),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, "RANK=-1 in the environment must be an integer ≥ 0"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0 in the environment must be an integer ≥ 1"),
        ({"RANK": "0", "WORLD_SIZE": "2.0"}, "WORLD_SIZE=2.0 in the environment must be an integer ≥ 1"),
        (
            {"WORLD_SIZE": "2"},
            f"WORLD_SIZE=2 is set in the environment and RANK is not; {ALONE}, or start the ranks with torchrun",
        ),
        ({"RANK": "1", "WORLD_SIZE": ""}, "RANK=1 is set in the environment and WORLD_SIZE is not"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "?"},
            "LOCAL_WORLD_SIZE=? in the environment must be an integer ≥ 1",
        ),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"}, "LOCAL_RANK=1, LOCAL_WORLD_SIZE=1 and"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4"}, "contradict each other"),
        (STEP | {"SLURM_NTASKS": "many"}, "SLURM_NTASKS=many in the environment must be an integer ≥ 1"),
        (STEP | {"SLURM_PROCID": "11"}, "SLURM_PROCID=11 in the environment must be an integer less than the 11 tasks"),
        (STEP | {"SLURM_GPUS_ON_NODE": "gpu"}, "SLURM_GPUS_ON_NODE=gpu in the environment must be an integer"),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "?"}, "must be a list of numbers such as"),
        (STEP | {"WORLD_SIZE": "4"}, "WORLD_SIZE=4 is set in the environment and RANK is not"),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(environ: dict[str, str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        discover("cpu", environ)
    assert words in str(refused.value)


def test_what_says_nothing_wrong_is_not_a_contradiction() -> None:
    assert discover("cpu", {"WORLD_SIZE": "1"}).launcher == "single"
    assert discover("cpu", {"RANK": " ", "WORLD_SIZE": ""}).launcher == "single"
    assert discover("cpu", STEP | {"WORLD_SIZE": "11"}).launcher == "srun"
    by_hand = discover("cpu", {"RANK": "1", "WORLD_SIZE": "2"})
    assert (by_hand.local_rank, by_hand.local_size) == (1, 2)


INTERACTIVE = {"SLURM_STEP_ID": "4294967290", "SLURM_STEPID": "4294967290", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("environ", "noted"),
    [
        (INTERACTIVE | {"SLURM_STEP_NUM_TASKS": "1"}, True),  # the shell of salloc -n2, as a step of its own
        (INTERACTIVE | {"SLURM_STEP_ID": "4294967291"}, True),  # a batch script
        ({"SLURM_NTASKS": "2"}, True),  # the shell of salloc -n2 without such a step
        (INTERACTIVE | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}, False),  # srun -n1 --pty --preserve-env
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "x"}, False),
    ],
)
def test_a_shell_in_a_job_trains_with_one_process_and_says_so(environ: dict[str, str], noted: bool) -> None:
    world = discover("cpu", environ)
    assert (world.size, world.launcher) == (1, "single")
    said = "the Slurm job has 2 tasks (SLURM_NTASKS), but srun did not start this process: one process trains; `srun ddptrain"
    assert world.note.startswith(said) if noted else world.note == ""


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() != 1, reason="shows a task one GPU of several, as srun --gpus-per-task=1 does")
def test_a_task_that_is_shown_its_own_gpu_takes_it() -> None:
    two = STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x6)"}
    assert discover("auto", two | {"SLURM_GPUS_ON_NODE": "2"}).device == torch.device("cuda", 0)
    assert discover("auto", two | {"SLURM_GPUS_ON_NODE": "1"}).device == torch.device("cpu")
    with pytest.raises(UserError, match="2 GPUs on this machine, 1 seen"):
        discover("cuda", two)
