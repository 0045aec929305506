"""The stream of batches does not depend on workers, ranks or restarts; workers end when they should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_streams import Numbers, assert_equal, keys_of, stream

from ddptrain.config.detection import DetectionAugment, DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.data.loading.batches import eval_loader
from ddptrain.data.loading.loader import LoaderError
from ddptrain.data.samples.detection import DetectionSamples
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.errors import RankFailed
from ddptrain.structures import Batch

SIZES = [24, 24]


@pytest.fixture(autouse=True)
def no_handler_of_other_loaders() -> Iterator[None]:
    """A plain DataLoader of another test leaves torch's SIGCHLD handler behind, which raises a dead worker's error anywhere."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


def positions(batches: Iterator[Batch], count: int | None = None) -> list[list[int]]:
    return [b.keys[:, 0].tolist() for b in islice(batches, count)]


@pytest.fixture(scope="session")
def tables(scenes: Path) -> list[AnnotationTable]:
    out = []
    for name, layout in (("skyview", "visdrone"), ("streets", "voc")):
        config = DetectionDataset(name=name, format=layout, root=str(scenes / name), split="train")  # type: ignore[arg-type]
        out.append(read(config)[0])
    return out


@pytest.fixture
def pictures(tables: list[AnnotationTable]) -> DetectionSamples:
    return DetectionSamples(tables, np.ones((2, 12), bool), 96, DetectionAugment(rotate=5, shear=2), seed=4)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_the_workers(pictures: DetectionSamples, workers: int) -> None:
    with stream(pictures, steps=4, workers=0) as alone, stream(pictures, steps=4, workers=workers) as helped:
        pairs = list(zip(alone, helped, strict=True))
    assert len(pairs) == 4
    for a, b in pairs:
        assert_equal(a, b)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_continues_from_any_position(pictures: DetectionSamples, workers: int) -> None:
    with stream(pictures, steps=5, workers=workers) as whole:
        expected = list(whole)[3:]
    with stream(pictures, position=24, steps=2, workers=workers) as rest:
        for a, b in zip(expected, rest, strict=True):
            assert_equal(a, b)


def test_a_far_position_costs_no_more_than_a_near_one() -> None:
    start = time.perf_counter()
    assert positions(stream(position=10**9), 2) == [list(range(10**9, 10**9 + 8)), list(range(10**9 + 8, 10**9 + 16))]
    assert time.perf_counter() - start < 1


@settings(deadline=None, max_examples=25)
@given(
    world_size=st.integers(1, 5),
    accumulation=st.integers(1, 12),
    micro_batch=st.integers(1, 4),
    start=st.integers(0, 10**12),
)
def test_a_micro_batch_is_a_function_of_its_number(world_size: int, accumulation: int, micro_batch: int, start: int) -> None:
    """On any number of ranks: one after the other, the ranks hold what one rank would."""
    size = world_size * accumulation * micro_batch
    options = {"position": start, "steps": 2, "global_batch": size, "micro_batch": micro_batch}
    alone = positions(stream(**options))
    assert [p for m in alone for p in m] == list(range(start, start + 2 * size))
    assert {len(m) for m in alone} == {micro_batch}
    ranks = [positions(stream(rank=rank, world_size=world_size, **options)) for rank in range(world_size)]
    steps = [[m for mine in ranks for m in mine[s * accumulation : (s + 1) * accumulation]] for s in range(2)]
    assert [*steps[0], *steps[1]] == alone


def test_keys_are_those_of_the_sampler() -> None:
    batch = next(stream(position=100))
    at = batch.keys[:, 0].numpy()
    np.testing.assert_array_equal(batch.keys[:, 1:].numpy(), np.stack(keys_of(at), -1))


def test_a_split_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        stream(global_batch=8, micro_batch=2, world_size=3)
    with pytest.raises(ValueError, match="not a multiple"):
        stream(global_batch=8, micro_batch=3)


def test_torchs_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with stream(workers=1, steps=1) as loader:
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("world_size", "batch"), [(1, 4), (2, 4), (3, 7), (5, 16)])
def test_evaluation_sees_every_image_once_in_fixed_groups(world_size: int, batch: int) -> None:
    def groups(world_size: int, rank: int) -> list[list[list[int]]]:
        loader = eval_loader(Numbers(), [10, 0, 3, 6], batch=batch, rank=rank, world_size=world_size, workers=0)
        return [b.keys.tolist() for b in loader]

    alone = groups(1, 0)
    shards = [groups(world_size, rank) for rank in range(world_size)]
    assert [shards[g % world_size][g // world_size] for g in range(len(alone))] == alone
    assert sum(len(s) for s in shards) == len(alone) == -(-19 // batch)
    keys = [key for group in alone for key in group]
    assert [k[0] for k in keys] == list(range(19))
    assert [tuple(k[1:]) for k in keys] == [(d, i) for d, n in ((0, 10), (2, 3), (3, 6)) for i in range(n)]


def test_evaluation_with_workers_inside_inference_mode(tables: list[AnnotationTable]) -> None:
    samples = DetectionSamples(tables, np.ones((2, 12), bool), 64, None)
    with torch.inference_mode():
        options: dict[str, Any] = {"batch": 10, "rank": 0, "world_size": 2}
        with (
            eval_loader(samples, SIZES, workers=2, **options) as helped,
            eval_loader(samples, SIZES, workers=0, **options) as alone,
        ):
            for a, b in zip(alone, helped, strict=True):
                assert_equal(a, b)


def test_close_ends_the_workers_soon_and_twice_is_fine(pictures: DetectionSamples) -> None:
    loader = stream(pictures, workers=2)
    next(loader)
    workers = list(loader.processes)
    assert len(workers) == 2
    start = time.perf_counter()
    loader.close()
    loader.close()
    assert time.perf_counter() - start < 2
    assert not any(p.is_alive() for p in workers)
    with pytest.raises(StopIteration):
        next(loader)


def test_workers_end_with_the_last_batch() -> None:
    loader = stream(steps=2, workers=1)
    assert len(list(loader)) == 2
    assert not any(p.is_alive() for p in loader.processes)


def test_a_worker_that_hangs_is_ended_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddptrain.data.loading.loader._PATIENCE_S", 0.3)
    loader = stream(Numbers(at=11, action="hang"), workers=1)
    next(loader)
    start = time.perf_counter()
    loader.close()
    assert time.perf_counter() - start < 8
    assert not any(p.is_alive() for p in loader.processes)


@pytest.mark.parametrize("when", ["waiting", "between"])
def test_a_killed_worker_is_reported_in_one_line(when: str) -> None:
    loader = stream(Numbers(at=8 * 3, action="die" if when == "waiting" else "none"), workers=2)
    if when == "between":
        next(loader)
        loader.processes[1].kill()
        loader.processes[1].join()
    with pytest.raises(LoaderError) as caught:
        positions(loader, 20)
    line = str(caught.value)
    assert "\n" not in line
    assert "SIGKILL" in line
    assert "ran out of memory" in line
    assert "data.workers is 2" in line
    assert isinstance(caught.value, RankFailed)
    assert not any(p.is_alive() for p in loader.processes)


def test_a_users_error_in_a_worker_comes_through_as_it_is() -> None:
    loader = stream(Numbers(at=8, action="refuse"), workers=2)
    next(loader)
    with pytest.raises(RankFailed, match=r"^a\.jpg: the disk is gone$"):
        next(loader)
    assert not any(p.is_alive() for p in loader.processes)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_a_worker_keeps_its_traceback(workers: int) -> None:
    with stream(Numbers(at=0, action="bug"), workers=workers) as loader, pytest.raises(KeyError, match="a bug"):
        next(loader)


def test_workers_leave_the_trainers_signals_to_the_trainer(pictures: DetectionSamples) -> None:
    with stream(pictures, steps=6, workers=2) as loader:
        next(loader)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            for process in loader.processes:
                os.kill(process.pid, number)
        assert len(list(loader)) == 5


def test_the_trainers_own_handlers_stay() -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD]
    before = [signal.getsignal(n) for n in numbers]
    with stream(workers=1, steps=1) as loader:
        list(loader)
    assert [signal.getsignal(n) for n in numbers] == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


SCRIPT = """
import sys, time
import torch
from ddptrain.data.loading.batches import train_loader

class Endless:
    def __getitem__(self, key):
        return key
    def collate(self, keys):
        return torch.tensor(keys)

loader = train_loader(Endless(), lambda at: (at, at), position=0, steps=None, global_batch=8, micro_batch=8,
    rank=0, world_size=1, workers=2)
next(loader)
print(*(p.pid for p in loader.processes), flush=True)
"""


def script(end: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).resolve().parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + end], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )


def test_workers_end_with_their_process_however_it_ends() -> None:
    with script("sys.exit(3)") as leaves, script("time.sleep(600)") as killed:
        for process in (leaves, killed):
            assert process.stdout is not None
            assert len(process.stdout.readline().split()) == 2
        killed.kill()
        # the workers hold the pipe too, so its end comes when the last of them is gone; one that ignores SIGTERM would
        # keep the process that leaves without closing its loader waiting forever
        for process, status in ((killed, -signal.SIGKILL), (leaves, 3)):
            assert process.communicate(timeout=60) == ("", None)
            assert process.returncode == status


def test_real_images_through_workers(data_root: Path) -> None:
    config = DetectionDataset(name="bccd", format="voc", root=str(data_root / "bccd"), split="test")
    table, _ = read(config, "drop")
    samples = DetectionSamples([table], np.ones((1, 3), bool), 320, None)
    with eval_loader(samples, [len(table)], batch=16, rank=0, world_size=1, workers=2) as loader:
        batches = list(loader)
    assert sum(len(b) for b in batches) == len(table) == 72
    assert sum(len(b.targets["boxes"]) for b in batches) == len(table.boxes)
    assert not any(b.replaced for b in batches)
