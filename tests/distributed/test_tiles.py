"""A run on tiles is a function of its config and its seed: on any number of ranks, with any number of workers, resumed."""

from __future__ import annotations

from pathlib import Path

from support import cut_back, equal, final_state, in_turn

from ddptrain.cli import main

TILES = (
    "data.train.0.tiles={size: 96, overlap: 0.25, scales: [1.0, 0.75], keep: 0.5, empty: 0.3}",
    "data.augment={mosaic: 0.5, close_epochs: 0}",
    *("train.steps=5", "train.micro_batch=6", "checkpoint.every_steps=2", "checkpoint.keep_last=9"),
)


def test_ranks_workers_and_a_stop_change_nothing(config: Path, tmp_path: Path) -> None:
    assert main(["train", str(config), "name=one", *TILES]) == 0
    cut_back(tmp_path / "one", tmp_path / "two", 2)
    in_turn(2, [["train", str(config), "name=two", *TILES, "data.workers=2", "resume=auto"]])
    one, two = (final_state(tmp_path / name) for name in ("one", "two"))
    equal(one["model"], two["model"])
    assert one["position"] == two["position"] == 60
