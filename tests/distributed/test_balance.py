"""`data.balance` and the plateau schedule follow the evaluations: the same on any number of ranks, and after a stop."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from support import cut_back, equal, final_state, in_turn, summary, train

from ddptrain.config import load_config
from ddptrain.tasks.build import build_task

RUN = (
    "train.steps=8", "train.micro_batch=6", "eval.every_steps=2", "checkpoint.every_steps=1", "checkpoint.keep_last=9",
    "eval.score_threshold=0.01", "optimizer={name: sgd, lr: 0.02}", "schedule={name: plateau, patience: 1, warmup_epochs: 0}",
    "data.balance=image_weights", "data.balance_by=ap",
)  # fmt: skip


def test_one_and_two_ranks_and_a_stop_anywhere_end_alike(config: Path, tmp_path: Path) -> None:
    """Stopped before an evaluation, right after one, and between two; the weights that hold come from its AP."""
    train(1, config, "name=one", *RUN)
    in_turn(2, [["train", str(config), "name=two", *RUN]])
    starts = (3, 4, 6)
    for step in starts:
        cut_back(tmp_path / "two", tmp_path / f"two{step}", step)
    in_turn(2, [["train", str(config), f"name=two{step}", *RUN, "resume=auto", "data.workers=1"] for step in starts])
    whole = final_state(tmp_path / "one")
    for name in ("two", *(f"two{step}" for step in starts)):
        state = final_state(tmp_path / name)
        for key in ("model", "ema", "optimizer", "balance", "plateau", "samples_by_dataset"):
            equal(whole[key], state[key], f"{name}.{key}")
    assert whole["balance"]["since"] == 8 * 12
    assert whole["plateau"]["lowered"] >= 1
    classes = summary(tmp_path / "two3")["classes"]
    assert [row["drawn"] for row in classes] == whole["balance"]["drawn"]
    assert [row["drawn_by_ap"] for row in classes] == whole["balance"]["ap"]


def test_the_rate_of_a_step_is_that_of_the_evaluation_before_it(config: Path, tmp_path: Path) -> None:
    train(1, config, "name=run", *RUN, "optimizer.lr=1.0e-9", "ema.enabled=false")
    with (tmp_path / "run" / "history.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    # the first evaluation is the best; each of the others brings nothing better
    np.testing.assert_allclose(rates, [1e-9, 1e-9, 1e-10, 1e-11])


def test_what_is_counted_is_what_was_drawn(config: Path, tmp_path: Path) -> None:
    """Of the images of 8 steps, those that show each class, counted anew from the tables."""
    overrides = ("train.steps=8", "data.balance=class_balanced")
    train(1, config, *overrides)
    task = build_task(load_config(config, overrides))
    dataset, index = task.sampler.keys(np.arange(8 * 12))
    drawn = np.zeros(3, int)
    for d, i in zip(dataset.tolist(), index.tolist()):
        table = task.train.tables[d]
        rows = table.rows(i)
        drawn[np.unique(table.labels[rows][table.learned()[rows]])] += 1
    assert [row["drawn"] for row in summary(tmp_path / "run")["classes"]] == drawn.tolist()
    assert [row["share_drawn"] for row in summary(tmp_path / "run")["mixture"]] == [2 / 3, 1 / 3]
    assert "with data.balance" in (tmp_path / "run" / "log.txt").read_text()
