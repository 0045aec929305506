"""What a loader says about the cost of its batches: true to the clock, and without a trace in the batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddptrain.config import load_config
from ddptrain.data.loading.batches import train_loader
from ddptrain.data.loading.costs import COLLATE, PARTS, REST, WORK, Costs, watched
from ddptrain.structures import Batch, SampleKey
from ddptrain.system.clock import Clock
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task

OVERRIDES = {"detection": ("data.augment={mosaic: 0.5, mixup: 0.5, close_epochs: 0}",), "segmentation": ()}


def task_of(config: Path, *overrides: str) -> Task:
    return build_task(load_config(config, list(overrides)))


def batches(task: Task, costs: Costs | None, workers: int = 0) -> list[Batch]:
    split: Any = {"global_batch": 4, "micro_batch": 4, "rank": 0, "world_size": 1}
    with train_loader(task.train, task.sampler.keys, position=0, steps=4, workers=workers, costs=costs, **split) as loader:
        return list(loader)


def same(a: Batch, b: Batch) -> bool:
    rows = zip([a.images, a.keys, *a.targets.values()], [b.images, b.keys, *b.targets.values()])
    return all(torch.equal(x, y) for x, y in rows)


@pytest.mark.parametrize("task", OVERRIDES)
def test_each_part_takes_time_and_the_batches_stay_the_same(small_config: Callable[[str], Path], task: str) -> None:
    built, costs = task_of(small_config(task), *OVERRIDES[task]), Costs()
    costs.wanted = 2
    found = batches(built, costs)
    assert all(same(a, b) for a, b in zip(found, batches(built, None), strict=True))
    assert [bool(batch.seconds) for batch in found] == [True, True, False, False]
    assert costs.wanted == 0
    assert costs.samples == 8
    assert list(costs.totals()) == list(PARTS)
    assert all(seconds.wall > 0 and seconds.cpu > 0 for seconds in costs.totals().values())
    costs.clear()
    assert (costs.samples, costs.totals()) == (0, {})


def test_a_worker_tells_what_its_batches_took(small_config: Callable[[str], Path]) -> None:
    costs = Costs()
    costs.wanted = 3
    batches(task_of(small_config("detection")), costs, workers=1)
    assert costs.samples == 12
    assert set(costs.totals()) == set(PARTS)


def test_waits_for_the_disk_are_no_computing(small_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that waits is told from one that computes."""
    samples: Any = task_of(small_config("detection")).train
    opened = open

    def slow(*args: Any) -> Any:
        time.sleep(0.02)
        return opened(*args)

    monkeypatch.setattr("builtins.open", slow)
    began, clock = time.perf_counter(), Clock(REST)
    with watched(clock):
        for i in range(3):
            samples[SampleKey(i, 0, i)]
    found, passed = clock.read(), time.perf_counter() - began
    assert 0.06 < found["read"].wall < sum(seconds.wall for seconds in found.values()) <= passed
    assert found["read"].cpu < found["read"].wall / 2


def test_an_error_within_a_part_closes_it() -> None:
    clock = Clock(REST)
    read, *_ = WORK["read"]
    with watched(clock):
        for _ in range(3):
            with pytest.raises(Exception, match="No such"):
                read("/no such file")
        sum(range(200_000))
    found = clock.read()
    assert found[REST].wall > found["read"].wall
    assert COLLATE not in found
