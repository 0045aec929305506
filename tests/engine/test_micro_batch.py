"""`train.micro_batch: auto` finds the largest that fits, or the fastest; a resumed run keeps what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import final_state, train

from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.engine.micro_batch import fastest, largest_that_fits, sizes


def test_the_candidates_divide_what_a_rank_computes() -> None:
    assert sizes(12) == [1, 2, 3, 4, 6, 12]
    assert sizes(7) == [1, 7]


@pytest.mark.parametrize(("budget", "found"), [(100, 12), (40, 6), (39, 4), (10, None)])
def test_the_largest_that_fits_a_stated_budget(budget: int, found: int | None) -> None:
    """A pass of n takes 10 + 5 n; nothing is tried above the first that does not fit."""
    tried = []

    def fits(size: int) -> bool:
        tried.append(size)
        return 10 + 5 * size <= budget

    assert largest_that_fits(sizes(12), fits) == found
    assert sum(10 + 5 * size > budget for size in tried) == (found != 12)


def test_the_fastest_for_each_sample_within_its_time() -> None:
    """A pass of n takes 4 + n seconds, above 4 samples 4 + n²: best are 4. After 30 s no further pass begins."""
    now = [0.0]

    def run(size: int) -> None:
        now[0] += 4 + (size if size <= 4 else size**2)

    assert fastest([1, 2, 4, 8], run, 1e9, lambda: now[0])[0] == 4
    now[0] = 0.0
    best, each = fastest([1, 2, 4, 8, 16], run, 18, lambda: now[0])
    assert (best, each) == (4, {1: 5.0, 2: 3.0, 4: 2.0})
    assert fastest([8], run, 0, lambda: now[0])[0] == 8


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_records_what_was_found_and_keeps_it(config: Path, tmp_path: Path, ranks: int) -> None:
    text = train(ranks, config, "train.steps=2", "train.micro_batch=auto")
    chosen = load_config(tmp_path / "run" / "config.yaml").train.micro_batch
    assert isinstance(chosen, int)
    assert (12 // ranks) % chosen == 0
    assert f"train.micro_batch: auto chose {chosen}" in text
    assert final_state(tmp_path / "run")["micro_batch"] == chosen
    train(ranks, config, "train.steps=3", "train.micro_batch=auto", "name=other", f"resume={tmp_path / 'run'}")
    assert final_state(tmp_path / "other")["micro_batch"] == chosen
    text = train(ranks, config, "train.steps=4", "train.micro_batch=auto", "resume=auto")
    assert f"train.micro_batch: auto keeps {chosen}" in text


@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ("classification", ["model={name: shufflenet_v2_x0_5}"]),
        ("detection", ["model.norm=batch", "model.strides=[8, 16, 32]", "data.image_size=32"]),
    ],
)
def test_a_batch_norm_over_a_single_pixel_is_reported_in_one_line(
    task: str, overrides: list[str], small_config: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for micro_batch in ("1", "auto"):
        small = ["train.global_batch=1", f"train.micro_batch={micro_batch}", "train.steps=1"]
        assert main(["train", str(small_config(task)), *overrides, *small]) == 2
        assert (
            "train.micro_batch: at data.image_size=32 the network reduces an image to a single pixel" in capfd.readouterr().err
        )
    assert (
        main(
            [
                "train",
                str(small_config(task)),
                *overrides,
                "name=two",
                "train.global_batch=2",
                "train.micro_batch=auto",
                "train.steps=1",
            ]
        )
        == 0
    )
