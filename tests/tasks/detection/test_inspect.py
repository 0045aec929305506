"""What is said of the boxes of a detection run before anything is learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddptrain.config import load_config
from ddptrain.data.inspect.statistics import sides_in_network
from ddptrain.tasks.build import build_task


def test_boxes_that_the_head_cannot_predict_are_counted(config: Path) -> None:
    """Before any run, and of what the network sees: in a tile a box may be longer than in its image."""
    said = {}
    for name, keys in {"whole": (), "tiles": ("data.train.0.tiles={size: 32, keep: 0}",), "far": ("model.reg_max=16",)}.items():
        run = load_config(config, ["model.strides=[4, 8]", "model.reg_max=2", *keys])
        task = build_task(run)
        task.read()
        said[name] = [note for note in task.notes if "longer than" in note]
        if name == "whole":
            table, size = task.train.tables[0], run.data.image_size
            longest = sides_in_network(table, size).max(1)
            count = int((longest > 16).sum())
            assert count
            what = f"{count} of {len(longest)} boxes are longer than the 16 px that the head can predict"
            limits = f"at most {longest.max():.0f} px at data.image_size={size}; add a coarser stride, or raise model.reg_max"
            assert said[name][0] == f"warning: train skyview: {what}, {limits}"
    assert not said["far"]
    assert said["tiles"]
    assert said["tiles"][0] != said["whole"][0]


@pytest.mark.parametrize(
    ("keys", "advised"),
    [
        (["train.global_batch=16"], True),
        (["train.global_batch=8"], True),
        (["train.global_batch=4"], False),
        (["train.steps=9"], False),
        (["train.epochs=100000"], False),
        (["model.backbone=resnet18", "model.pretrained=true"], False),
    ],
)
def test_a_run_of_few_updates_advises_smaller_batches(config: Path, keys: list[str], advised: bool) -> None:
    run = load_config(config, ["train.epochs=20", "train.steps=null", *keys])
    task = build_task(run)
    batch, samples = run.train.global_batch, task.sampler.mixture.samples_per_epoch
    updates = -(-20 * samples // batch)
    more = f"train.global_batch=4 gives {updates * (batch // 4):,} from the same images, on at most 4 ranks"
    line = f"{updates} updates are few for a network that starts from scratch; {more}"
    assert [note for note in task.notes if "updates" in note] == [line] * advised
