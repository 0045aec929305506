"""Sums over the micro batches of a step in one fixed binary tree, so that they have the same bits on any number of ranks.

A node of the tree over micro batches 0..M-1 holds an aligned run of them, `[i·2^l, (i+1)·2^l)` without what lies beyond M, and
is the sum of its two halves. A rank adds up its own run of micro batches like a binary counter, which leaves the few largest
nodes inside it; the ranks exchange pieces of them, each adds its piece in the order of the tree, and gathers those of the
others: the traffic of a ring all-reduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ddptrain.distributed.waiting import Waiting

Tensors = list[Tensor] | tuple[Tensor, ...]


class Node(NamedTuple):
    """The sum of the micro batches `[start, start + size)`, in one tensor or in several."""

    start: int
    size: int
    value: Tensors


def joins(nodes: Sequence[Node], node: Node) -> int:
    """How many of the last `nodes` the next one completes, from the last one on."""
    count, size = 0, node.size
    while count < len(nodes) and nodes[-1 - count].size == size and nodes[-1 - count].start % (2 * size) == 0:
        count, size = count + 1, 2 * size
    return count


def push(nodes: list[Node], node: Node) -> None:
    """Append the next node; two halves become one node, in place of the left one's value."""
    for _ in range(joins(nodes, node)):
        left = nodes.pop()
        torch._foreach_add_(left.value, node.value)
        node = Node(left.start, left.size + node.size, left.value)
    nodes.append(node)


def total(nodes: Sequence[Node]) -> Tensors:
    """The root over neighbouring nodes that begin with micro batch 0, in place of some value of theirs."""
    stack: list[Node] = []
    for node in nodes:
        push(stack, node)
    value = stack.pop().value
    while stack:
        torch._foreach_add_(value, stack.pop().value)
    return value


def cover(first: int, end: int) -> list[Node]:
    """The largest nodes that `[first, end)` consists of, without values."""
    nodes: list[Node] = []
    while first < end:
        size = 1
        while first % (2 * size) == 0 and first + 2 * size <= end:
            size *= 2
        nodes.append(Node(first, size, ()))
        first += size
    return nodes


class Exchange(NamedTuple):
    """Pieces of nodes on their way to the ranks that add them up."""

    work: Any
    sent: Tensor
    received: Tensor


class TreeSum:
    """The place of this rank in the tree, and sums over all of it.

    Attributes:
        ranks: number of ranks.
        micro_batches: of a step, over all ranks; a multiple of `ranks`.
        run: micro batches of each rank.
        first: number of this rank's first one.
    """

    def __init__(self, rank: int = 0, ranks: int = 1, micro_batches: int = 1) -> None:
        self.ranks, self.micro_batches, self.run = ranks, micro_batches, micro_batches // ranks
        self.first = rank * self.run
        self._nodes = [cover(r * self.run, (r + 1) * self.run) for r in range(ranks)]

    def padded(self, length: int) -> int:
        """The next length that can be cut into a piece for each rank."""
        return -(-length // self.ranks) * self.ranks

    def start(self, values: Sequence[Tensor]) -> Exchange:
        """Send the pieces of this rank's nodes to the ranks that add them up; returns at once. Every rank must call it in the
        same order, and not touch the values until `finish`.

        Args:
            values: of each of this rank's nodes, flat, of a `padded` length.
        """
        piece = values[0].numel() // self.ranks
        sent = values[0] if len(values) == 1 else torch.stack([v.view(self.ranks, piece) for v in values], 1).flatten()
        counts = [len(nodes) * piece for nodes in self._nodes]
        received = sent.new_empty(sum(counts))
        work = dist.all_to_all_single(received, sent, counts, [len(values) * piece] * self.ranks, async_op=True)
        return Exchange(work, sent, received)

    def finish(self, exchange: Exchange, out: Tensor) -> Any:
        """Add up this rank's piece and gather the others' into `out` `[padded length]`; returns a handle to wait for."""
        exchange.work.wait()
        everyone = [node for nodes in self._nodes for node in nodes]
        rows = exchange.received.view(len(everyone), -1)
        (piece,) = total([node._replace(value=(row,)) for node, row in zip(everyone, rows)])
        # renamed in torch 2.14
        gather: Any = dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
        return gather(out, piece, async_op=True)

    def add(self, rows: Sequence[Tensor], what: str) -> Tensor:
        """The sum of a small tensor `[n]` over all micro batches, on every rank.

        Args:
            rows: of each micro batch of this rank; they are written into.
            what: names the call in a message, should it fail.
        """
        nodes: list[Node] = []
        for number, row in enumerate(rows):
            push(nodes, Node(self.first + number, 1, (row,)))
        if self.ranks == 1:
            return total(nodes)[0]
        length = rows[0].numel()
        missing = self.padded(length) - length
        values = [torch.nn.functional.pad(node.value[0], (0, missing)) for node in nodes]
        out = torch.empty_like(values[0])
        with Waiting(what):
            self.finish(self.start(values), out).wait()
        return out[:length]
