"""A run's state as plain types in host memory, cut off from the tensors that training continues changing."""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LARGE = 1 << 20


def copy_to_host(state: Any, buffers: dict[str, Tensor] | None = None, where: str = "state") -> Any:
    """A copy of `state` in host memory that shares nothing with it.

    Args:
        buffers: tensors of an earlier copy by their place, written over where shape and dtype fit (fresh memory
            costs more than the copy); page-locked for tensors that come from CUDA.
        where: the place of `state`, for the message.

    Raises:
        TypeError: something in it is not of a plain type.
    """
    buffers = {} if buffers is None else buffers
    copy = _copy(state, buffers, where)
    if torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()  # page-locked copies are only queued
    return copy


def _copy(value: Any, buffers: dict[str, Tensor], where: str) -> Any:
    if isinstance(value, Tensor):
        buffer = buffers.get(where)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            buffer = buffers[where] = _locked_like(value) if value.is_cuda else torch.empty_like(value.detach())
        return buffer.copy_(value.detach(), non_blocking=value.is_cuda)
    if isinstance(value, dict):
        return {_copy(k, buffers, where): _copy(v, buffers, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_copy(v, buffers, f"{where}.{i}") for i, v in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is str:
        return sys.intern(value)  # pickle writes one object once: equal strings must be one for equal bytes
    if value is None or type(value) in (bool, int, float):
        return value
    raise TypeError(f"checkpoint: {where} is a {type(value).__name__}; only plain types and tensors can be saved")


def _locked_like(value: Tensor) -> Tensor:
    """Page-locked host memory for a tensor of a GPU. torch rounds what it locks up to a power of two, which doubles a large
    checkpoint: a large tensor gets pages of its own, as many as it needs."""
    if value.nbytes < _LARGE:
        return torch.empty_like(value.detach(), device="cpu", pin_memory=True)
    pages = torch.frombuffer(mmap.mmap(-1, value.nbytes), dtype=torch.uint8).view(value.dtype)
    if torch.cuda.cudart().cudaHostRegister(pages.data_ptr(), pages.nbytes, 0) != 0:
        # not locked, the copy is slower and as correct; CUDA would report the failure as one of the next kernel
        with suppress(RuntimeError):
            torch.ones((), device=value.device)
    return _laid_out(pages, value)


def _laid_out(flat: Tensor, like: Tensor) -> Tensor:
    """`[n]` values as a tensor of the shape and the layout of another, which has no gaps."""
    shape = torch.empty_like(like.detach(), device="meta")
    return flat.as_strided(shape.shape, shape.stride())
