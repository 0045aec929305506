"""How a global batch is divided into micro batches and over ranks, and what is proposed where it cannot be."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddptrain.config.batch import AT_ONCE, split_batch
from ddptrain.errors import UserError


def whole(global_batch: int, micro: int | None, ranks: int) -> int:
    """Checks that the parts make the whole; the micro batch."""
    split = split_batch(global_batch, micro, ranks)
    assert split.micro_batch * split.accumulation * ranks == split.micro_batch * split.micro_batches == global_batch
    return split.micro_batch


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 64))
def test_without_a_micro_batch_it_follows_from_the_ranks(global_batch: int, ranks: int) -> None:
    if global_batch % ranks == 0:
        micro = whole(global_batch, None, ranks)
        assert micro <= AT_ONCE
        assert not any(global_batch // ranks % larger == 0 for larger in range(micro + 1, AT_ONCE + 1))
        return
    with pytest.raises(UserError, match=r"^train\.global_batch: \d+ does not divide over \d+ ranks; set it to") as refused:
        split_batch(global_batch, None, ranks)
    proposed = [int(n) for n in re.findall(r"\d+", str(refused.value).partition("set it to")[2])]
    assert proposed == [n for n in (global_batch // ranks * ranks, (global_batch // ranks + 1) * ranks) if n]
    for size in proposed:
        whole(size, None, ranks)


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 200), st.integers(1, 32), st.integers(1, 64))
def test_a_micro_batch_is_kept_or_what_is_proposed_works(global_batch: int, micro: int, ranks: int) -> None:
    used = min(micro, global_batch)
    if global_batch % (used * ranks) == 0:
        assert whole(global_batch, micro, ranks) == used
        return
    with pytest.raises(UserError) as refused:
        split_batch(global_batch, micro, ranks)
    text = str(refused.value)
    numbers = lambda pattern: [int(n) for n in re.findall(r"\d+", re.search(pattern, text)[1])]  # type: ignore[index]  # noqa: E731
    if global_batch % ranks:
        for size in numbers(r"set it to ([\d or]+), the nearest"):
            assert whole(size, micro, ranks) == micro
    elif global_batch % used:
        for size in numbers(r"set it to ([\d or]+), the nearest"):
            assert whole(global_batch, size, ranks) == size
    else:
        for count in numbers(r"start ([\d or]+) ranks?, the nearest"):
            assert whole(global_batch, micro, count) == used
        for size in numbers(r"train\.micro_batch to ([\d or]+), with"):
            assert whole(global_batch, size, ranks) == size
