"""Datasets in which nothing is labelled: nothing can be learned from them, and no metric is defined on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ddptrain.config import load_config
from ddptrain.errors import UserError
from ddptrain.tasks.build import build_task

STREETS = "{{name: s, format: voc, root: {root}/streets, split: {split}, ignore: [car, bus]}}"


def notes(config: Path, *overrides: str) -> list[str]:
    return list(build_task(load_config(config, overrides)).notes)


def test_a_training_set_without_a_box_is_refused(config: Path, scenes: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.train: no box of any class in any training dataset, nothing can be learned; "):
        notes(config, f"data.train=[{STREETS.format(root=scenes, split='train')}]")
    # of a share of 0 nothing is drawn
    with pytest.raises(UserError, match=r"^data\.train: no box of any class"):
        notes(config, "data.train.0.share=0", "data.train.1.ignore=[car, bus]")


def test_a_validation_set_without_a_box_is_reported_and_refused_with_patience(config: Path, scenes: Path) -> None:
    val = f"data.val=[{STREETS.format(root=scenes, split='val')}]"
    line = "warning: no box of any class in any validation dataset: its metrics are undefined, and there is no best.pt"
    assert line in notes(config, val)
    with pytest.raises(UserError, match=r"^train\.patience: no box of any class in any validation dataset, .* to null$"):
        notes(config, val, "eval.every_steps=2", "train.patience=3")
    assert line not in notes(config, "eval.every_steps=2", "train.patience=3")


@pytest.mark.parametrize(
    ("task", "more", "what"),
    [("classification", ("loss={name: bce}", "data.balance=none"), "image"), ("segmentation", (), "pixel")],
)
def test_images_and_masks_of_which_nothing_is_left_are_refused(
    small_config: Callable[[str], Path], task: str, more: tuple[str, ...], what: str
) -> None:
    config = small_config(task)
    nothing = {"image": "ignore=[disc, square, stripes]", "pixel": "ignore=[ground, disc, square]"}[what]
    for part in ("train", "val"):
        with pytest.raises(UserError, match=f"no {what}s are left after its classes are mapped"):
            notes(config, *more, f"data.{part}.0.{nothing}")


def test_pairs_that_all_have_the_same_answer(small_config: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match=r"^data\.train: every pair interacts, nothing can be learned; "):
        notes(small_config("interaction"), "data.pairs.max_negatives_per_frame=0")
