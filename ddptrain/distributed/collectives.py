"""Every collective the package makes. Every rank must call them in the same order; `what` names the call in messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ddptrain.distributed import last_words
from ddptrain.distributed.waiting import Waiting
from ddptrain.errors import RankFailed, RunFailed, UserError

T = TypeVar("T")
BLOCK = 2**26
"""Bytes that are sent at once."""


def rank_and_size() -> tuple[int, int]:
    """This process's rank and the number of processes, of the process group where there is one, else 0 and 1."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def all_reduce_sum(tensor: Tensor, what: str) -> Tensor:
    """Sum `tensor` over the ranks, in place. Every rank must call it in the same order.

    Args:
        what: names the call in a message, should it fail; so in all functions below.
    """
    if dist.is_initialized():
        with Waiting(what):
            dist.all_reduce(tensor)
    return tensor


def gather_rows(row: Tensor, what: str) -> Tensor:
    """Of a tensor `[n]` of each rank, all of them, `[ranks, n]`, in the order of ranks, on every rank."""
    rank, size = rank_and_size()
    rows = row.new_zeros(size, len(row))
    rows[rank] = row
    return all_reduce_sum(rows, what)


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


def gather_to_main(obj: Any, what: str) -> list[Any]:
    """One picklable object per rank, in the order of ranks, on rank 0; elsewhere an empty list."""
    if not dist.is_initialized():
        return [obj]
    out: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    with Waiting(what):
        dist.gather_object(obj, out)
    return out or []


def gather_arrays(arrays: Sequence[np.ndarray], what: str) -> list[list[np.ndarray]]:
    """On rank 0 the arrays of each rank, in the order of ranks; elsewhere nothing. They travel as bytes, some at a time: no
    rank but 0 holds more than its own, and nothing is pickled but dtypes and shapes."""
    if not dist.is_initialized():
        return [list(arrays)]
    layouts = gather_to_main([(a.dtype.str, a.shape) for a in arrays], what)
    rank = dist.get_rank()
    out = [list(arrays)] if rank == 0 else []
    with Waiting(what):
        for array in arrays if rank else ():
            _move(array, partial(dist.send, dst=0))
        for source, layout in enumerate(layouts[1:], start=1):
            out.append([np.empty(shape, dtype) for dtype, shape in layout])
            for array in out[-1]:
                _move(array, partial(dist.recv, src=source))
    return out


def _move(array: np.ndarray, transfer: Callable[[Tensor], Any]) -> None:
    """Send or receive the bytes of an array, block by block, through gloo."""
    if not array.size:
        return
    for block in torch.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).split(BLOCK):
        transfer(block)


def broadcast_object(obj: Any, what: str) -> Any:
    """Rank 0's picklable object, on every rank."""
    if not dist.is_initialized():
        return obj
    box = [obj]
    with Waiting(what):
        dist.broadcast_object_list(box, src=0)
    return box[0]


def agree(build: Callable[[], T], what: str) -> T:
    """Run `build` on every rank; what is raised on any of them reaches all of them, so that none waits for ever.

    Raises:
        UserError: some rank met a user's mistake; on every rank alike.
        RunFailed: likewise, the run cannot continue.
        RankFailed: another rank met any other error; it raises that error itself.
    """
    result, error = _try(build)
    errors = gather_objects(None if error is None else _described(error), what)
    _raise(errors, error, what)
    return cast(T, result)


def on_main(build: Callable[[], T], what: str) -> T:
    """Rank 0's result of `build`, which it alone runs, on every rank; raises as `agree` does."""
    result, error = _try(build) if rank_and_size()[0] == 0 else (None, None)
    result, described = broadcast_object((result, None if error is None else _described(error)), what)
    _raise([described], error, what)
    return cast(T, result)


def _try(build: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return build(), None
    except Exception as e:
        return None, e


def _described(error: Exception) -> tuple[str, str]:
    """An error for other ranks: its kind, and its text."""
    if isinstance(error, UserError):
        return "user", str(error)
    if isinstance(error, RunFailed) and not isinstance(error, RankFailed):
        return "run", str(error)
    return "rank", last_words.of(error)


def _raise(errors: Sequence[tuple[str, str] | None], own: Exception | None, what: str) -> None:
    """Raise what some rank has met; `errors` are those of the ranks, `own` is this one's."""
    if own is not None and _described(own)[0] == "rank":
        raise own
    for rank, described in enumerate(errors):
        if described is None:
            continue
        kind, text = described
        if kind == "rank":
            raise RankFailed(f"rank {rank} {text} (in {what})")
        error = UserError(text if rank == 0 else f"rank {rank}: {text}") if kind == "user" else RunFailed(text)
        error.everywhere = True
        raise error


def first_true(value: str, what: str) -> str:
    """The first non-empty string over the ranks, on every rank."""
    return next((v for v in gather_objects(value, what) if v), "")


def share_weights(model: nn.Module) -> None:
    """Give every rank rank 0's parameters and buffers; a UserError on all of them where the networks differ."""
    if not dist.is_initialized():
        return
    tensors = [t for t in model.state_dict(keep_vars=True).values() if isinstance(t, Tensor)]
    shapes = [(t.dtype, tuple(t.shape)) for t in tensors]
    if any(theirs != shapes for theirs in gather_objects(shapes, "the comparison of the models")):
        error = UserError("the ranks have built different networks; start every rank with the same files and arguments")
        error.everywhere = True
        raise error
    with Waiting("the comparison of the models"), torch.no_grad():
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            alike = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.flatten() for t in alike])
            dist.broadcast(flat, src=0)
            for tensor, part in zip(alike, flat.split([t.numel() for t in alike])):
                tensor.copy_(part.view_as(tensor))
