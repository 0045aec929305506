"""How a second image is mixed in: often enough, by a box of the drawn area, or as a whole."""

from __future__ import annotations

import numpy as np

from ddptrain.data.augment.mix import random_mix


def test_the_part_is_what_the_box_leaves() -> None:
    mixes = [random_mix(0.25, 0.25, 1.0, 64, np.random.default_rng(seed)) for seed in range(800)]
    drawn = [mix for mix in mixes if mix is not None]
    pasted = [(part, box) for part, box in drawn if box.any()]
    assert 0.44 < len(drawn) / 800 < 0.56
    assert 0.19 < len(pasted) / 800 < 0.31
    for part, (x1, y1, x2, y2) in pasted:
        assert 0 <= x1 <= x2 <= 64
        assert 0 <= y1 <= y2 <= 64
        assert part == 1 - (x2 - x1) * (y2 - y1) / 64**2
    parts = [part for part, box in drawn if not box.any()]
    assert 0 <= min(parts) < 0.1
    assert 0.9 < max(parts) <= 1
