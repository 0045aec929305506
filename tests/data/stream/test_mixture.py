"""The plan of a mixture and the counts that its ledger is made of."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ddptrain.data.stream.mixture import Mixture


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), min_size=1, max_size=5).filter(
        lambda rows: any(share for _, share in rows)
    ),
    st.sampled_from([1, 6, 32, 256]),
    st.integers(0, 3000),
    st.sampled_from([0, 10**12]),
)
def test_drawn_counts_the_samples_of_the_stream(rows: list[tuple[int, int]], block: int, position: int, far: int) -> None:
    m = Mixture([str(d) for d in range(len(rows))], [n for n, _ in rows], [s for _, s in rows], block=block)
    dataset, draw = m.assign(np.arange(far, far + position))
    before, after = m.drawn(far), m.drawn(far + position)
    assert (after - before).tolist() == np.bincount(dataset, minlength=len(rows)).tolist()
    assert after.sum() == far + position
    # the draws of a dataset are numbered without a gap wherever whole blocks are looked at
    if far % block == 0 and position % block == 0:
        for d in range(len(rows)):
            assert sorted(draw[dataset == d]) == list(range(before[d], after[d]))


def test_plan() -> None:
    m = Mixture(["big", "small", "off"], [1000, 10, 5], [3, 1, 0], samples_per_epoch=400)
    big, small, off = m.plan()
    assert (big.name, big.size, big.share, big.samples_per_epoch) == ("big", 1000, 0.75, 300)
    assert np.allclose([big.passes_per_epoch, big.epochs_per_pass], [0.3, 10 / 3])
    assert np.allclose([small.passes_per_epoch, small.epochs_per_pass], [10, 0.1])
    assert off.samples_per_epoch == 0
    assert off.epochs_per_pass == math.inf


def test_warnings_say_what_looks_unintended() -> None:
    assert Mixture(["a", "b"], [1000, 500]).warnings() == []
    lines = Mixture(["big", "small", "off"], [10_000, 10, 5], [3, 1, 0], samples_per_epoch=1000).warnings()
    assert len(lines) == 3
    assert lines[0].startswith("big: an epoch holds 7.50% of its 10000 samples, a pass takes 13.3 epochs")
    assert lines[1].startswith("small: each of its 10 samples is seen 25 times an epoch")
    assert lines[2] == "off: its share is 0, it is never drawn"


def test_floats_are_taken_as_the_decimals_they_are_written_as() -> None:
    assert Mixture("abc", [10] * 3, [0.7, 0.2, 0.1]).weights == (7, 2, 1)
    assert Mixture("ab", [10] * 2, [2 / 3, 1 / 3]).weights == (2, 1)
    assert Mixture("ab", [10] * 2, [Fraction(1, 3), Fraction(1, 6)]).weights == (2, 1)
    assert Mixture("ab", [10] * 2, np.array([4, 2])).weights == (2, 1)
    assert Mixture("ab", [10] * 2, [1, 1e-6]).weights == (10**6, 1)


def test_the_fingerprint_is_short_and_differs_between_streams() -> None:
    a = Mixture("ab", [10, 20], block=8)
    assert len(a.fingerprint) == 16
    int(a.fingerprint, 16)
    others = [
        Mixture("ab", [20, 10], block=8),
        Mixture("ab", [10, 20], block=4),
        Mixture("ab", [10, 20], seed=1, block=8),
    ]
    assert len({m.fingerprint for m in [a, *others]}) == 4
    assert Mixture("cd", [10, 20], block=8).fingerprint == a.fingerprint
