"""What the bits of a run depend on, and the line that says what to write for the same bits on any number of ranks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ddptrain.config import load_config
from ddptrain.config.batch import split_batch
from ddptrain.config.train import TrainConfig
from ddptrain.engine.arithmetic import advice, arithmetic, exactness, inputs_of_any_size

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_threads_and_kernels_are_those_of_the_config_for_the_time_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    before = torch.get_num_threads()
    with arithmetic(TrainConfig(threads=before + 1, deterministic=True), CPU):
        assert torch.get_num_threads() == before + 1
        assert not torch.are_deterministic_algorithms_enabled()  # all kernels of the CPU are
    assert torch.get_num_threads() == before
    with arithmetic(TrainConfig(deterministic=True), CUDA):
        assert torch.get_num_threads() == before
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic


@pytest.mark.parametrize("tf32", [True, False])
def test_a_gpu_computes_as_fast_as_the_config_allows(tf32: bool) -> None:
    """cuDNN measures while it trains, not while it evaluates; without a GPU nothing is touched."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    with arithmetic(TrainConfig(tf32=tf32), CUDA):
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == (True, tf32, tf32)
        with inputs_of_any_size():
            assert not cudnn.benchmark
        assert cudnn.benchmark
    with arithmetic(TrainConfig(deterministic=True), CUDA):
        assert not cudnn.benchmark
    with arithmetic(TrainConfig(tf32=not before[1]), CPU):
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == before
    assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == before


@pytest.mark.parametrize(
    ("precision", "capability", "words"),
    [
        ("bf16", (7, 5), "warning: Some GPU only emulates bf16, which is slow; use train.precision=fp16"),
        ("bf16", (8, 0), ""),
        ("none", (9, 0), "Some GPU computes faster, and in less memory, with train.precision=bf16"),
        ("none", (7, 0), ""),
        ("fp16", (9, 0), ""),
    ],
)
def test_the_log_says_which_precision_the_gpu_is_made_for(
    precision: str, capability: tuple[int, int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    said = advice(precision, CUDA)
    assert said.startswith(words)
    assert bool(said) == bool(words)


@pytest.mark.parametrize(
    ("precision", "has", "words"),
    [
        ("bf16", False, "warning: this CPU only emulates bf16, which is slow; use train.precision=none"),
        ("bf16", True, ""),
        ("bf16", None, ""),
        ("none", True, "this CPU computes most networks faster with train.precision=bf16"),
        ("none", False, ""),
        ("none", None, ""),
    ],
)
def test_the_log_says_which_precision_the_cpu_is_made_for(
    precision: str, has: bool | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddptrain.engine.arithmetic.bf16_instructions", lambda: has)
    said = advice(precision, CPU)
    assert said.startswith(words)
    assert bool(said) == bool(words)


def line(train: TrainConfig, ranks: int, device: torch.device = CPU, synced: bool = False) -> str:
    return exactness(split_batch(train.global_batch, train.micro_batch, ranks), train, device, synced)


def test_what_is_missing_is_named_and_is_enough(config: Path) -> None:
    """What the line proposes, followed literally, makes the run the same on all ranks that it lists."""
    threads = torch.get_num_threads()
    for ranks, batch, micro, where in ((1, 16, 8, "1 or 2 ranks"), (2, 16, 8, "1 or 2 ranks"), (4, 24, 6, "1, 2 or 4 ranks")):
        train = load_config(config, [f"train.global_batch={batch}"]).train
        said = line(train, ranks)
        assert f"write train.micro_batch={micro} train.threads={threads} for the same on {where}" in said
        proposed = said.partition("write ")[2].partition(" for ")[0].split()
        for count in (1, ranks):
            fixed = load_config(config, [f"train.global_batch={batch}", *proposed]).train
            assert line(fixed, count) == f"the same bits on {where}"
    assert line(TrainConfig(global_batch=1, threads=1, micro_batch=1), 1) == "the same bits on 1 rank"


def test_cuda_needs_its_kernels_and_no_threads() -> None:
    train = TrainConfig(global_batch=16, micro_batch=4, reduction="fast")
    assert "write train.reduction=ordered train.deterministic=true for the same on 1, 2 or 4 ranks" in line(train, 2, CUDA)
    assert "model.norm=sync" in line(train, 2, CUDA, synced=True)
