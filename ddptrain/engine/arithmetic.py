"""What the bits of a run depend on beside its data: micro batch, threads, kernels; and what to write in order to fix them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch

from ddptrain.config.batch import Split
from ddptrain.config.train import TrainConfig
from ddptrain.system.limits import bf16_instructions


@contextmanager
def arithmetic(train: TrainConfig, device: torch.device) -> Iterator[None]:
    """Compute with `train.threads`, `train.deterministic` and `train.tf32`, around a run; what the process had is put back.

    On CUDA cuDNN measures once which of its algorithms is the fastest, unless deterministic ones are asked for; an operation
    without a deterministic kernel is named in a warning. On the CPU all kernels are deterministic.
    """
    before = torch.get_num_threads()
    if train.threads is not None:
        torch.set_num_threads(train.threads)
    cudnn, matmul, memory = torch.backends.cudnn, torch.backends.cuda.matmul, cast(Any, torch.utils.deterministic)
    fill = memory.fill_uninitialized_memory
    kernels = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    choice = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    if device.type == "cuda":
        cudnn.allow_tf32 = matmul.allow_tf32 = train.tf32
        cudnn.deterministic, cudnn.benchmark = train.deterministic, not train.deterministic
    if train.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first matrices are multiplied
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # nothing reads it
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(kernels[0], warn_only=kernels[1])
        memory.fill_uninitialized_memory = fill
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = choice


@contextmanager
def inputs_of_any_size() -> Iterator[None]:
    """Without cuDNN's measurements, which it would repeat for each size."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def advice(precision: str, device: torch.device) -> str:
    """What to say about `train.precision` on this device, in one line; empty for nothing."""
    if device.type == "cpu":
        has = bf16_instructions()
        if precision == "bf16" and has is False:
            return "warning: this CPU only emulates bf16, which is slow; use train.precision=none"
        faster = "this CPU computes most networks faster with train.precision=bf16 (this changes the resulting weights)"
        return faster if precision == "none" and has else ""
    native, name = torch.cuda.get_device_capability(device) >= (8, 0), torch.cuda.get_device_name(device)
    if precision == "bf16" and not native:
        return f"warning: {name} only emulates bf16, which is slow; use train.precision=fp16"
    if precision == "none" and native:
        return f"{name} computes faster, and in less memory, with train.precision=bf16 (this changes the resulting weights)"
    return ""


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


_NOTHING: AbstractContextManager[Any] = nullcontext()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context of a forward pass at a precision: "none", "bf16" or "fp16"."""
    if precision == "none":
        return _NOTHING
    return torch.autocast(device.type, torch.float16 if precision == "fp16" else torch.bfloat16)


def device_decides(device: torch.device, precision: str, optimizer: torch.optim.Optimizer) -> bool:
    """Whether the device computes by itself if a step updates: on the CPU there is nothing to wait for, under fp16 the scale
    follows from the step before, and of the optimizers only fused ones can be told to do nothing."""
    return device.type == "cuda" and precision != "fp16" and bool(optimizer.defaults.get("fused"))
