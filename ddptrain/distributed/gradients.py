"""The gradients of a step, added over its micro batches and over the ranks.

Ordered: in the tree of `tree.py`. Every gradient is a part of a flat bucket; a bucket goes on its way as soon as the last
backward pass has filled it, so that communication and computing overlap. DistributedDataParallel has a hook for a bucket of
the last micro batch only, and would need another way for those before; without it, the whole is shorter.

Fast: one micro batch after the other, then DistributedDataParallel's own all-reduce.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from inspect import signature
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ddptrain.distributed.tree import Exchange, Node, TreeSum, joins, push
from ddptrain.distributed.waiting import Waiting
from ddptrain.distributed.world import World
from ddptrain.errors import UserError

Reduction = Literal["ordered", "fast"]
_BUCKET_BYTES = 4 << 20
_WHAT = "the gradients of a step"
_NOTHING: AbstractContextManager[Any] = nullcontext()


class Gradients(Protocol):
    """How a step gets its gradients.

    Attributes:
        model: what the forward pass calls.
        divided: what the sum over ranks was divided by.
    """

    model: nn.Module
    divided: int

    def micro_batch(self, number: int) -> AbstractContextManager[Any]:
        """Around forward and backward pass of this rank's micro batch `number`, 0 <= number < run."""

    def backward(self, total: Tensor, number: int) -> None:
        """The backward pass."""

    def reduce(self, number: int) -> None:
        """What it gave is added; after the last micro batch, to the gradients of all ranks."""

    def all(self) -> list[Tensor]:
        """The gradient of each parameter, zeros where no micro batch gave it one."""

    def clear(self) -> None:
        """Forget them, at the end of a step."""


def build_gradients(
    model: nn.Module, world: World, tree: TreeSum, reduction: Reduction = "ordered", overlap: bool = True
) -> Gradients:
    """The way that `train.reduction` asks for; a step of one micro batch adds nothing, and copies nothing.

    Args:
        overlap: send gradients during the last backward pass; not where that pass has collectives of its own, which nothing
            may come between.

    Raises:
        UserError: the model has norm layers that only work on CUDA.
    """
    synced = any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    if synced and world.size > 1 and world.device.type == "cpu":
        raise UserError(
            "model.norm: sync on the CPUs of a machine with GPUs: set train.device=cuda, or hide them (CUDA_VISIBLE_DEVICES=)"
        )
    if tree.micro_batches > 1 and reduction == "ordered":
        return OrderedGradients(model, tree, overlap)
    return PlainGradients(model, world, tree.run)


class PlainGradients:
    """As autograd leaves them, and on several ranks DistributedDataParallel."""

    def __init__(self, model: nn.Module, world: World, run: int) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._last, self.divided = run - 1, world.size
        self.model = _data_parallel(model, world) if world.size > 1 else model

    def micro_batch(self, number: int) -> AbstractContextManager[Any]:
        if number < self._last and isinstance(self.model, nn.parallel.DistributedDataParallel):
            return self.model.no_sync()
        return _NOTHING

    def backward(self, total: Tensor, number: int) -> None:
        with Waiting(_WHAT) if number == self._last and self.divided > 1 else _NOTHING:
            total.backward()

    def reduce(self, number: int) -> None:
        """DistributedDataParallel has done so during the backward pass."""

    def all(self) -> list[Tensor]:
        for p in self._parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        return [p.grad for p in self._parameters if p.grad is not None]

    def clear(self) -> None:
        for p in self._parameters:
            p.grad = None


class OrderedGradients:
    """In the order of the tree: the same bits on any number of ranks.

    Takes memory for 1 + log2(run) copies of the gradients, and on several ranks for what is received: one more where a rank's
    run is one node of the tree, else up to two for each node of it.
    """

    divided = 1

    def __init__(self, model: nn.Module, tree: TreeSum, overlap: bool) -> None:
        self.model, self._tree, self._last = model, tree, tree.run - 1
        parameters = [p for p in model.parameters() if p.requires_grad]
        buckets = list(_buckets(reversed(parameters)))
        self._sums = [_flat(bucket, tree) for bucket in buckets]
        self._all: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        self._kept: list[Node] = []
        self._sizes = [len(bucket) for bucket in buckets]
        self._missing: list[int] = []
        self._on_their_way: list[Exchange] = []
        for number, bucket in enumerate(buckets if overlap and tree.ranks > 1 else ()):
            for p in bucket:
                p.register_post_accumulate_grad_hook(partial(self._filled, number))

    def micro_batch(self, number: int) -> AbstractContextManager[Any]:
        return _NOTHING

    def backward(self, total: Tensor, number: int) -> None:
        last = number == self._last
        if last:
            self._missing, self._on_their_way = list(self._sizes), []
        with Waiting(_WHAT) if last and self._tree.ranks > 1 else _NOTHING:
            total.backward()
        self._missing = []

    def reduce(self, number: int) -> None:
        if number < self._last:
            self._keep(number)
            return
        with Waiting(_WHAT) if self._tree.ranks > 1 else _NOTHING:
            self._finish()
        self._kept = []

    def all(self) -> list[Tensor]:
        return self._all

    def clear(self) -> None:
        torch._foreach_zero_(self._sums)

    def _keep(self, number: int) -> None:
        push(self._kept, Node(self._tree.first + number, 1, self._sums))
        if self._kept[-1].value is self._sums:
            self._kept[-1] = self._kept[-1]._replace(value=[s.clone() for s in self._sums])
        self.clear()

    def _filled(self, bucket: int, parameter: Tensor) -> None:
        if not self._missing:  # not the last micro batch
            return
        self._missing[bucket] -= 1
        if self._missing[bucket] < 0:
            raise RuntimeError("a parameter got its gradient twice in one backward pass: set train.reduction=fast")
        sent = len(self._on_their_way)
        while sent < len(self._sums) and not self._missing[sent]:  # in the same order on every rank
            self._send(sent)
            sent += 1

    def _send(self, bucket: int) -> None:
        """Start the exchange of a bucket that is filled."""
        apart = self._join(bucket)
        values = [*(node.value[bucket] for node in apart), self._sums[bucket]]
        self._on_their_way.append(self._tree.start(values))

    def _join(self, bucket: int) -> list[Node]:
        """Add to a bucket what was kept of it, as far as the last micro batch completes it; returns the nodes apart from it."""
        leaf = Node(self._tree.first + self._last, 1, ())
        joined = len(self._kept) if self._tree.ranks == 1 else joins(self._kept, leaf)
        apart = len(self._kept) - joined
        for node in reversed(self._kept[apart:]):
            self._sums[bucket] += node.value[bucket]
        return self._kept[:apart]

    def _finish(self) -> None:
        buckets = range(len(self._sums))
        if self._tree.ranks == 1:
            for bucket in buckets:
                self._join(bucket)
            return
        for bucket in buckets[len(self._on_their_way) :]:
            self._send(bucket)
        gathered = [self._tree.finish(exchange, sums) for exchange, sums in zip(self._on_their_way, self._sums)]
        for work in gathered:
            work.wait()
        self._on_their_way = []


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one kind that follow each other, up to some MB; the same on any number of ranks."""
    bucket: list[nn.Parameter] = []
    size = 0
    for p in parameters:
        if bucket and (size >= _BUCKET_BYTES or (p.dtype, p.device) != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += p.numel() * p.element_size()
    if bucket:
        yield bucket


def _flat(bucket: list[nn.Parameter], tree: TreeSum) -> Tensor:
    """A bucket of zeros; each parameter's gradient becomes a part of it, stored in the order of the parameter."""
    flat = torch.zeros(tree.padded(sum(p.numel() for p in bucket)), dtype=bucket[0].dtype, device=bucket[0].device)
    at = 0
    for p in bucket:
        dense = torch.empty_like(p).stride()  # the parameter's own where it has no gaps
        p.grad = flat.as_strided(p.shape, dense, at)
        at += p.numel()
    return flat


def _data_parallel(model: nn.Module, world: World) -> nn.Module:
    """The model in DDP. Buffers are not broadcast: the step settles them."""
    ddp = nn.parallel.DistributedDataParallel
    # renamed in torch 2.15
    name = "forward_sync_buffers" if "forward_sync_buffers" in signature(ddp).parameters else "broadcast_buffers"
    buffers: dict[str, Any] = {name: False}
    ids = [world.device] if world.device.type == "cuda" else None
    with Waiting("the comparison of the models"):
        return ddp(model, device_ids=ids, gradient_as_bucket_view=True, **buffers)
