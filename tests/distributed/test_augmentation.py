"""Multi-scale and copy-paste: the same sizes and the same counts on any number of ranks, and after a stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support import cut_back, equal, final_state, in_turn, summary, train

from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.structures import SampleKey
from ddptrain.tasks.build import build_task

RUN = (
    "train={steps: 5, global_batch: 12, micro_batch: 3}", "eval.every_epochs=null", "checkpoint.every_steps=1",
    "checkpoint.keep_last=9", "data.image_size=64",
    "data.augment={multi_scale: 0.5, copy_paste: 1, mosaic9: 0.3, cutmix: 0.3, cutout: 0.3, perspective: 0.2, close_epochs: 0}",
)  # fmt: skip


def test_ranks_and_a_stop_change_nothing_and_a_step_can_be_made_again(config: Path, tmp_path: Path) -> None:
    train(1, config, "name=one", *RUN)
    in_turn(2, [["train", str(config), "name=two", *RUN, "data.workers=1"]])
    cut_back(tmp_path / "two", tmp_path / "again", 2)
    train(1, config, "name=again", *RUN, "resume=auto")
    whole = final_state(tmp_path / "one")
    for name in ("two", "again"):
        state = final_state(tmp_path / name)
        for key in ("model", "ema", "optimizer", "samples_by_dataset", "pasted_by_dataset"):
            equal(whole[key], state[key], f"{name}.{key}")
    assert main(["replay", str(tmp_path / "two"), "--step", "4", "--images", "1"]) == 0

    task = build_task(load_config(str(config), list(RUN)))
    assert len({task.at_step(task.train.collate([task.train[SampleKey(0, 0, 0)]]), n).images.shape for n in range(5)}) > 1
    pasted = [0, 0]
    for position, (dataset, index) in enumerate(zip(*(c.tolist() for c in task.sampler.keys(np.arange(5 * 12))))):
        pasted[dataset] += task.train[SampleKey(position, dataset, index)].pasted
    assert min(pasted) > 20
    assert [row["pasted"] for row in summary(tmp_path / "two")["mixture"]] == pasted
