"""Where the time goes: what a run says of it adds up to the clock, and changes nothing."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ddptrain
from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.config.data import DataConfig
from ddptrain.data.loading.costs import PARTS
from ddptrain.data.samples.base import ImageSamples
from ddptrain.engine.pace import TOLD_S, TOLD_WAIT, Pace, advice
from ddptrain.engine.profile import OTHER, STEP_PARTS, step_table
from ddptrain.reporting.timing import Reading
from ddptrain.system.clock import Clock, Seconds


def trained(config: Path, name: str, *overrides: str) -> Path:
    return Path(ddptrain.train(config, f"name={name}", "train.micro_batch=6", *overrides).folder)


def rows(folder: Path) -> dict[str, list[str]]:
    """The cells of each part in the table of a profile."""
    lines = (folder / "profile" / "steps.txt").read_text().splitlines()[3:]
    return {cells[0]: cells[1:] for cells in (re.split(r"\s{2,}", line.strip()) for line in lines)}


def test_a_profile_adds_up_and_changes_no_bits(small_config: Callable[[str], Path]) -> None:
    config, steps = small_config("classification"), "train.steps=9"
    plain = trained(config, "plain", steps)
    assert not (plain / "profile").exists()
    seen = trained(config, "seen", steps, "monitor.profile=2", "eval.every_steps=4")
    digests = [load_checkpoint(folder / "checkpoints" / "last.pt").digest for folder in (plain, seen)]
    assert digests[0] == digests[1]
    found = rows(seen)
    assert list(found) == [*PARTS, *STEP_PARTS, "step"]
    times = {part: float(cells[0]) for part, cells in found.items()}
    assert sum(ms for part, ms in times.items() if part != "step") == pytest.approx(times["step"], abs=0.02)
    assert all(times[part] > 0 for part in (*PARTS, "forward", "loss", "backward", "update", OTHER))
    cpu = {part: float(found[part][2]) for part in (*PARTS, "step")}
    assert sum(cpu[part] for part in PARTS) == pytest.approx(cpu["step"], abs=0.01)
    log = (seen / "log.txt").read_text()
    assert "the mean of steps 4 to 5 of this process without" in log
    assert "  forward  " in log
    trace = json.loads(gzip.decompress((seen / "profile" / "rank0.pt.trace.json.gz").read_bytes()))
    named = [event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    # two steps of two micro batches
    assert [name for name in named if name.startswith("ProfilerStep#")] == ["ProfilerStep#0", "ProfilerStep#1"]
    assert [named.count(part) for part in ("transfer", "forward", "loss", "backward")] == [4, 4, 4, 4]
    assert any(event["name"] == "aten::convolution_backward" for event in trace["traceEvents"])


def test_a_run_that_ends_early_tells_what_it_has_seen(small_config: Callable[[str], Path]) -> None:
    folder = trained(small_config("classification"), "short", "train.steps=5", "monitor.profile=9", "data.workers=1")
    assert "the mean of steps 4 to 5 of this process" in (folder / "log.txt").read_text()
    found = rows(folder)
    assert all(found[part][0] == "-" and float(found[part][2]) > 0 for part in PARTS)
    assert float(found["wait for data"][0]) > 0
    assert [path.name for path in (folder / "profile").iterdir()] == ["steps.txt"]


def test_a_moment_counts_to_the_innermost_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = Clock("rest")
    with clock.part("outer"):
        now += 1
        with suppress(RuntimeError), clock.part("inner"):
            now += 2
            raise RuntimeError
        now += 4
    now += 8
    assert {part: seconds.wall for part, seconds in clock.read().items()} == {"outer": 5, "inner": 2, "rest": 8}


def test_the_work_of_loader_processes_is_no_part_of_the_step() -> None:
    parts = {"wait for data": Seconds(3.0, 0.0), "forward": Seconds(1.0, 1.0)}
    making = {"decode": Seconds(2.0, 1.0)}
    alone = step_table(parts, making, steps=2, samples=10, workers=0)
    assert [row[1] for row in alone.rows if row[0] in ("decode", "wait for data", "step")] == [1000, 500, 2000]
    served = step_table(parts, making, steps=2, samples=10, workers=3)
    assert [row[1] for row in served.rows if row[0] in ("decode", "wait for data", "step")] == [None, 1500, 2000]
    assert [row[3] for row in served.rows if row[3] is not None] == [100, 100]


def test_a_run_that_waits_for_data_says_why_once(small_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    collate = ImageSamples.collate

    def slow(cls: type[ImageSamples[Any]], samples: Any) -> Any:
        time.sleep(0.2)
        return collate(samples)

    monkeypatch.setattr(ImageSamples, "collate", classmethod(slow))
    folder = trained(small_config("classification"), "slow", "train.steps=10", "monitor.every_steps=3")
    said = re.findall(r"warning: the run waits for data .*", (folder / "log.txt").read_text())
    assert len(said) == 1
    assert re.search(r"waits for data \d\d% of the time; making a sample takes .* ms \(.*\), mostly collate: ", said[0])
    assert "raise data.workers (0 now" in said[0]


def test_nothing_is_measured_while_data_come_in_time() -> None:
    state: Any = SimpleNamespace(steps=9, step=0, split=SimpleNamespace(accumulation=1), stepper=SimpleNamespace(part=None))
    world: Any = SimpleNamespace(main=True, device=torch.device("cpu"), local_size=1, launcher="single")
    pace = Pace(state, world, DataConfig.model_construct(workers=1), SimpleNamespace(), Path("nowhere"), 0)  # type: ignore[arg-type]

    def told(wait: float, seconds: float) -> int:
        pace.tell(Reading(9.0, wait, 0.1, 9.0, seconds))
        return pace.costs.wanted

    assert told(TOLD_WAIT, 60.0) == told(0.9, TOLD_S / 2) == 0
    assert told(TOLD_WAIT + 0.01, TOLD_S) > 0
    assert state.stepper.part is None


def test_advice_names_what_costs_most_and_what_would_help() -> None:
    computing = {"read": Seconds(0.2, 0.1), "decode": Seconds(7.0, 6.9), "collate": Seconds(0.1, 0.1)}
    few, many = (DataConfig.model_construct(workers=n, cache=cache) for n, cache in ((2, "none"), (16, "ram")))
    assert advice(0.34, computing, few, 16) == (
        "the run waits for data 34% of the time; making a sample takes 7.3 ms (read 0.2, decode 7.0, collate 0.1), mostly "
        "decode: raise data.workers (2 now, 16 cores), keep decoded pixels (data.cache=disk) or lower data.image_size"
    )
    assert advice(0.34, computing, many, 16).endswith("mostly decode: lower data.image_size")
    waiting = {"read": Seconds(30.0, 0.1), "decode": Seconds(7.0, 6.9)}
    assert advice(0.34, waiting, many, 16).endswith("most of it waiting for the disk: raise data.workers (16 now, 16 cores)")
