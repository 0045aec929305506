"""Where a process believes to stand, from the environment its launcher gives it."""

from __future__ import annotations

import pytest
import torch

from ddptrain.distributed import discover, discover_or_cpu, world
from ddptrain.distributed.group import shared_gpu
from ddptrain.errors import UserError

STEP = {"SLURM_PROCID": "9", "SLURM_NTASKS": "11", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0", "SLURM_NODEID": "2"}


def test_alone_without_a_launcher_and_in_a_batch_script() -> None:
    for environ in ({}, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, STEP | {"SLURM_STEP_ID": "batch"}):
        found = discover("cpu", environ)
        assert (found.rank, found.size, found.local_size, found.launcher) == (0, 1, 1, "single")


@pytest.mark.parametrize(("counts", "here"), [("4(x2),3", 3), ("4,4,3", 3), ("8", 8), ("2,1(x5)", 1), (None, 11)])
def test_srun_reports_the_tasks_of_this_machine(counts: str | None, here: int) -> None:
    found = discover("cpu", STEP | ({"SLURM_STEP_TASKS_PER_NODE": counts} if counts else {}))
    assert (found.rank, found.size, found.local_rank, found.local_size, found.launcher) == (9, 11, 1, here, "srun")


def test_torchrun_comes_before_srun() -> None:
    own = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    found = discover("cpu", STEP | own)
    assert (found.rank, found.size, found.local_rank, found.local_size, found.launcher) == (3, 4, 1, 2, "torchrun")


ALONE = "`unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE` to train in one process"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"RANK": "4", "WORLD_SIZE": "4"},
            f"RANK=4 in the environment must be less than WORLD_SIZE=4; correct both, or {ALONE}",
        ),
        ({"RANK": "x", "WORLD_SIZE": "4"}, f"RANK=x in the environment must be an integer ≥ 0; correct it, or {ALONE}"),
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
    found = discover("cpu", environ)
    assert (found.size, found.launcher) == (1, "single")
    said = "the Slurm job has 2 tasks (SLURM_NTASKS), but srun did not start this process: one process trains; `srun ddptrain"
    assert found.note.startswith(said) if noted else found.note == ""


TORCHRUN = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}
SRUN = STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x6)"}


@pytest.mark.parametrize(
    ("environ", "seen", "device"),
    [
        ({}, 0, "cpu"),
        ({}, 8, "cuda:0"),
        (TORCHRUN, 8, "cuda:1"),  # two machines of 8, and no LOCAL_WORLD_SIZE
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "8"}, 8, "cuda:1"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "8"}, 1, "cuda:0"),  # torchrun --virtual-local-rank
        (TORCHRUN | {"SLURM_GPUS_ON_NODE": "gpu:8"}, 1, "cuda:0"),  # exported under --gpus-per-task=1
        (SRUN, 1, "cuda:0"),  # SLURM_GPUS_ON_NODE missing
        (SRUN | {"SLURM_GPUS_ON_NODE": "gpu:8"}, 8, "cuda:1"),
    ],
)
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_rank_takes_its_gpu(
    environ: dict[str, str], seen: int, device: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    if asked == "cuda" and device == "cpu":
        with pytest.raises(UserError, match=r"train\.device: cuda, and no GPU is available here"):
            discover(asked, environ)
    else:
        assert discover(asked, environ).device == torch.device(device)
    assert discover("cpu", environ).device == torch.device("cpu")


@pytest.mark.parametrize("environ", [TORCHRUN | {"LOCAL_RANK": "4"}, TORCHRUN | {"LOCAL_WORLD_SIZE": "8"}, SRUN])
def test_fewer_gpus_than_ranks_are_no_reason_to_train_on_the_cpu(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    if environ is SRUN:
        environ = SRUN | {"SLURM_STEP_TASKS_PER_NODE": "6(x2)"}
    with pytest.raises(UserError, match=r"and it has 4 GPUs; start 4 ranks on it \(LOCAL_RANK from 0 to 3\), or set train.dev"):
        discover("auto", environ)


def test_a_gpu_that_cannot_be_used_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.Path, "exists", lambda self: str(self) == "/dev/nvidia0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for cuda, words in ((None, "was built without CUDA"), ("13.0", "(CUDA 13.0) cannot use: its driver may be too old")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        assert words in discover("auto", {}).lacking
        assert discover("cpu", {}).lacking == ""
    monkeypatch.setattr(world.Path, "exists", lambda self: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert discover("auto", {}).lacking.startswith("the GPU of a Mac (MPS) is not used")


def test_two_ranks_on_one_gpu_are_named() -> None:
    places = [("a", "GPU-1"), ("a", "GPU-2"), ("b", "GPU-1"), ("a", "GPU-2")]
    assert shared_gpu(places).startswith("ranks 1 and 3 would share a GPU of a (GPU-2): start fewer ranks there")
    assert shared_gpu(places[:3]) == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks for the first GPU")
def test_the_first_gpu_is_taken() -> None:
    assert discover("auto", {}).device == torch.device("cuda", 0)


def test_weights_of_a_gpu_are_used_on_the_cpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = discover_or_cpu("cuda", {})
    assert found.device == torch.device("cpu")
    assert found.lacking
    assert discover_or_cpu("cpu", {}).lacking == ""
    with pytest.raises(UserError, match=r"train\.device: cuda"):
        discover("cuda", {})
