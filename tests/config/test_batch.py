"""How a global batch is divided over ranks and accumulation steps, and what is proposed where it cannot be."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddptrain.config.batch import split_batch
from ddptrain.errors import UserError


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 32), st.integers(1, 64))
def test_the_parts_make_the_whole_or_the_nearest_sizes_are_named(global_batch: int, micro: int, ranks: int) -> None:
    if global_batch % ranks == 0:
        split = split_batch(global_batch, micro, ranks)
        assert split.micro_batch * split.accumulation * ranks == global_batch
        assert split.micro_batch <= micro
        return
    with pytest.raises(UserError, match=r"^train\.global_batch: \d+ does not divide over \d+ ranks; set it to") as refused:
        split_batch(global_batch, micro, ranks)
    proposed = [int(n) for n in re.findall(r"\d+", str(refused.value).partition("set it to")[2])]
    assert proposed == [n for n in (global_batch // ranks * ranks, (global_batch // ranks + 1) * ranks) if n]
    for size in proposed:
        split_batch(size, micro, ranks)
