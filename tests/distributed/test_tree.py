"""The tree in which a step's sums are added: one for any number of ranks."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Ranks

from ddptrain import distributed
from ddptrain.distributed.tree import Node, TreeSum, cover, joins, push, total


def expression(first: int, size: int, count: int) -> str:
    """The sum of the node `[first, first + size)` of the tree over `count` leaves, by its definition."""
    if size == 1:
        return str(first)
    half = size // 2
    left = expression(first, half, count)
    return left if first + half >= count else f"({left}+{expression(first + half, half, count)})"


def written(nodes: list[Node], terms: dict[tuple[int, int], str]) -> str:
    """What `push` and `total` make of nodes, in words instead of numbers."""
    stack: list[tuple[Node, str]] = []
    for node in nodes:
        text = terms[node.start, node.size]
        for _ in range(joins([n for n, _ in stack], node)):
            left, before = stack.pop()
            node, text = Node(left.start, left.size + node.size, ()), f"({before}+{text})"
        stack.append((node, text))
    while len(stack) > 1:
        _, right = stack.pop()
        left, before = stack.pop()
        stack.append((left, f"({before}+{right})"))
    return stack[0][1]


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 8), st.integers(1, 12))
def test_any_number_of_ranks_adds_in_the_order_of_the_tree(ranks: int, run: int) -> None:
    count = ranks * run
    depth = 1
    while depth < count:
        depth *= 2
    nodes = [node for r in range(ranks) for node in cover(r * run, (r + 1) * run)]
    terms = {(n.start, n.size): expression(n.start, n.size, count) for n in nodes}
    assert written(nodes, terms) == expression(0, depth, count)
    assert max(len(cover(r * run, (r + 1) * run)) for r in range(ranks)) <= 2 * run.bit_length()


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 8), st.integers(1, 12))
def test_the_counter_of_a_rank_arrives_at_its_largest_nodes(rank: int, run: int) -> None:
    nodes: list[Node] = []
    for m in range(rank * run, (rank + 1) * run):
        push(nodes, Node(m, 1, [torch.tensor([float(m)])]))
    assert [n[:2] for n in nodes] == [n[:2] for n in cover(rank * run, (rank + 1) * run)]
    assert [float(n.value[0]) for n in nodes] == [sum(range(n.start, n.start + n.size)) for n in nodes]


def numbers(count: int) -> list[torch.Tensor]:
    """Of each micro batch some numbers whose sum depends on its order."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(7, generator=generator) * 10.0**m for m in range(count)]


def _add(counts: list[int]) -> None:
    world = distributed.discover("cpu")
    with distributed.process_group(world, 60):
        for count in counts:
            tree = TreeSum(world.rank, world.size, count)
            mine = numbers(count)[tree.first : tree.first + tree.run]
            print("sum", count, tree.add(mine, "the test").tolist())


def test_ranks_add_to_the_last_bit_what_one_rank_does() -> None:
    """Runs that are one node of the tree, and runs that are several, on three ranks."""
    counts = [3, 6, 9, 12, 15]
    ranks = Ranks(3, _add, counts)
    assert ranks.wait() == [0] * 3, ranks.text
    found = sorted(line for line in ranks.text.splitlines() if line.startswith("sum"))
    expected = [f"sum {count} {TreeSum(0, 1, count).add(numbers(count), 'the test').tolist()}" for count in counts]
    assert found == sorted(3 * expected)
    in_turn = sum(numbers(9)[1:], start=numbers(9)[0])
    assert in_turn.tolist() != total([Node(m, 1, [x]) for m, x in enumerate(numbers(9))])[0].tolist()  # order matters
