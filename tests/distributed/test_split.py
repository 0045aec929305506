"""The promise: how a global batch is split over ranks and accumulation steps does not change what is learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Ranks, command_line, final_state, largest_difference, train

STEPS = 5


@pytest.mark.parametrize("norm", ["none", "group"])
def test_ranks_and_accumulation_do_not_change_the_parameters(config: Path, tmp_path: Path, norm: str) -> None:
    splits = [(1, 12), (1, 4), (2, 6), (2, 3), (3, 4)] if norm == "none" else [(1, 12), (3, 2)]
    states = {}
    for world_size, micro in splits:
        name = f"w{world_size}m{micro}"
        train(world_size, config, f"name={name}", f"model.norm={norm}", f"train.steps={STEPS}", f"train.micro_batch={micro}")
        states[name] = final_state(tmp_path / name)
    first, *others = states.values()
    for other in others:
        assert largest_difference(first["model"], other["model"]) < 1e-5
        assert largest_difference(first["ema"], other["ema"]) < 1e-5
        assert other["position"] == first["position"] == STEPS * 12


def test_metric_is_the_same_on_one_two_and_three_ranks(config: Path, tmp_path: Path) -> None:
    """Same weights, unpadded shards: exactly equal metrics, also where some rank has no image at all."""
    train(1, config, "name=one", "train.steps=20")
    found = []
    for world_size in (1, 2, 3):
        ranks = Ranks(world_size, command_line, ["eval", str(tmp_path / "one"), "eval.batch=8", "--json"])
        assert ranks.wait() == [0] * world_size, ranks.text
        found.append(ranks.text)
    # 12 images are two groups of 8: the third rank has none
    assert json.loads(found[0])["AP"] is not None
    assert found[0] == found[1] == found[2]
