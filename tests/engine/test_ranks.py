"""The slowest rank, and what the ranks say of memory and utilisation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import train

from ddptrain.engine.ranks import RankUsage, of_all
from ddptrain.reporting.timing import Reading


def test_a_rank_is_as_fast_as_it_would_be_without_waiting_for_others() -> None:
    """100 images/s of two ranks in 10 s: 500 images each; one worked for all of the 10 s, the other waited for 5 of them."""
    reading = Reading(images_per_second=100, data_wait=0.1, step_seconds=1, eta_seconds=0, seconds=10)
    slow, fast = (RankUsage(torch.device("cpu"), 2).read(reading, waited) for waited in (0.0, 5.0))
    assert (slow["images_per_second"], fast["images_per_second"]) == (50, 100)
    assert 0 < slow["memory_gb"] < 100


def test_rank_0_tells_of_the_slowest_the_largest_and_the_least_busy() -> None:
    told = of_all(
        [
            {"images_per_second": 50.0, "data_wait": 0.1, "memory_gb": 2.0, "gpu_utilisation": 0.9},
            {"images_per_second": 40.0, "data_wait": 0.4, "memory_gb": 3.0, "gpu_utilisation": 0.7, "cpu_utilisation": 0.5},
        ]
    )
    assert told == {
        "time/slowest_rank": 1,
        "time/slowest_rank_images_per_second": 40,
        "time/largest_data_wait": 0.4,
        "system/memory_gb": 3,
        "system/cpu_utilisation": 0.5,
        "system/gpu_utilisation": 0.7,
    }


def test_on_two_ranks_one_of_them_is_the_slowest(small_config: Callable[[str], Path], tmp_path: Path) -> None:
    train(2, small_config("classification"), "train.steps=4", "train.micro_batch=6")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "train"][-1]
    assert last["time/slowest_rank"] in (0, 1)
    # each rank's part of the rate of both, and more where it waited
    assert last["time/slowest_rank_images_per_second"] >= last["time/images_per_second"] / 2 * (1 - 1e-9)
    assert re.search(r"system/memory_gb", json.dumps(last))
    assert last["system/memory_gb"] == pytest.approx(1, abs=5)
