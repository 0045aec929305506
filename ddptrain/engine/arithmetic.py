"""What the bits of a run depend on beside its data: micro batch, threads, kernels; and what to write in order to fix them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

from ddptrain.config.batch import Split
from ddptrain.config.train import TrainConfig


@contextmanager
def arithmetic(threads: int | None, deterministic: bool, device: torch.device) -> Iterator[None]:
    """Compute with `train.threads` and `train.deterministic`, around a run; what the process had is put back.

    On CUDA an operation without a deterministic kernel is named in a warning. On the CPU all kernels are deterministic.
    """
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    cudnn, memory = torch.backends.cudnn, cast(Any, torch.utils.deterministic)
    fill = memory.fill_uninitialized_memory
    kernels = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    choice = (cudnn.deterministic, cudnn.benchmark)
    if deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first matrices are multiplied
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # nothing reads it
        cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(kernels[0], warn_only=kernels[1])
        memory.fill_uninitialized_memory = fill
        cudnn.deterministic, cudnn.benchmark = choice


def exactness(split: Split, train: TrainConfig, device: torch.device, synced: bool) -> str:
    """One line: on which numbers of ranks the run has the same bits, or what to write so that it has.

    Args:
        synced: the model has batch norms over all ranks.
    """
    if synced:
        return "the bits depend on the number of ranks: model.norm=sync takes statistics over all of them"
    micro, alone = split.micro_batch, split.micro_batches == 1 < split.global_batch
    if alone:
        micro = max(b for b in range(1, micro) if micro % b == 0)
    wanted: dict[str, Any] = {"micro_batch": micro, "reduction": "ordered"}
    wanted |= {"threads": train.threads or torch.get_num_threads()} if device.type == "cpu" else {"deterministic": True}
    missing = [f"train.{key}={str(value).lower()}" for key, value in wanted.items() if getattr(train, key) != value]
    count = split.global_batch // micro
    ranks = [str(r) for r in range(1, count + 1) if count % r == 0]
    where = f"{', '.join(ranks[:-1])} or {ranks[-1]} ranks" if len(ranks) > 1 else "1 rank"
    if not missing:
        return f"the same bits on {where}"
    why = "one micro batch is for one rank" if alone else "the bits depend on the number of ranks"
    return f"{why}; write {' '.join(missing)} for the same on {where}"
