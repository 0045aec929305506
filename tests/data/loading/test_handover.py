"""Batches arrive where shared memory or open files are scarce, and no wait for one is without end."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import resource
import signal
import subprocess
import time
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
from loader_streams import Numbers, assert_equal, stream
from support import Ranks
from torch.utils.data import DataLoader

from ddptrain.data.loading.handover import Places
from ddptrain.data.loading.loader import LoaderError, Wait
from ddptrain.data.samples.detection import DetectionSamples
from ddptrain.structures import Batch, Sample, SampleKey
from ddptrain.system.limits import open_file_limit


class Large(Numbers):
    def __getitem__(self, key: SampleKey) -> Sample:
        return dataclasses.replace(super().__getitem__(key), image=np.full((200, 200, 3), key.position % 256, np.uint8))


def numbered(value: int) -> Batch:
    sample = Numbers()[SampleKey(value, 0, 0)]
    return DetectionSamples.collate([sample, sample, sample])


def load_both_ways(shared_memory: str, files: int, file_bytes: int) -> None:
    """In a process of its own: load the same batches with workers and without, and print the number of workers and what was
    reported."""
    if shared_memory:
        clone_newns = 0x00020000
        if ctypes.CDLL(None).unshare(clone_newns):
            print("not permitted")
            return
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={shared_memory}", "tmpfs", "/dev/shm"], check=True)
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    lines: list[str] = []
    with stream(Large(), workers=3, wait=Wait(report=lines.append)) as helped, stream(Large()) as alone:
        for a, b in zip(islice(helped, 12), alone):
            assert_equal(a, b)
        print(len(helped.processes), *lines, sep="\n")


def look(shared_memory: str = "", files: int = 0, file_bytes: int = 0) -> list[str]:
    ranks = Ranks(1, load_both_ways, shared_memory, files, file_bytes)
    assert ranks.wait() == [0], ranks.text
    lines = ranks.text.splitlines()
    if lines == ["not permitted"]:
        pytest.skip("this user may not mount a file system of its own")
    return lines


def test_batches_take_no_room_in_the_shared_memory_of_a_container() -> None:
    assert look("300k") == ["3"]


def test_batches_come_through_pipes_where_no_file_can_be_made_in_memory() -> None:
    workers, line = look(file_bytes=1 << 20)
    assert workers == "3"
    assert line == "batches are sent through pipes, which is slower: no file in memory can be made (File too large)"


def test_without_any_shared_memory_images_are_read_in_the_trainer() -> None:
    workers, line = look("4k")
    assert workers == "0"
    assert "no loader processes (No space left on device): images are read in this process" in line


def test_few_open_files() -> None:
    assert look(files=64) == ["3"]
    workers, line = look(files=18)
    assert workers == "0"
    assert "(Too many open files): images are read in this process, which is slower; only 18 files may be open" in line


def test_a_place_is_used_again_once_nothing_of_its_batch_is_held() -> None:
    """Also a part of a batch holds it; in another place the next batch does not overwrite it."""
    places = Places(1)
    first = places.pack(numbered(1)).open().batch
    part = first.images[1:, 0]
    second = places.pack(numbered(2)).open().batch
    del first
    third = places.pack(numbered(3))
    assert third.start not in {0, places.pack(numbered(4)).start}
    assert (part == 1).all()
    assert (second.images == 2).all()
    assert (third.open().batch.images == 3).all()
    del part
    assert places.pack(numbered(5)).start == 0
    places.close()
    assert (second.images == 2).all()


def test_more_batches_are_held_than_files_may_be_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held, said = [], r"taken from memory \(Too many open files\): only \d+ files may be open at once"
    with stream(workers=1) as loader:
        held.append(next(loader))
        free = os.dup(0)
        os.close(free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + 20, before[1]))
            with pytest.raises(LoaderError, match=said):
                held += islice(loader, 200)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_forked_process_frees_nothing() -> None:
    places = Places(1)
    held = [places.pack(numbered(1)).open().batch]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, from Python 3.12 on
        child = os.fork()
    if not child:
        held.clear()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert places.pack(numbered(2)).start != 0
    assert (held[0].images == 1).all()


def test_a_pinned_batch_has_left_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of the trainer copies it into page-locked memory, which only a GPU's driver can grant; here into other."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    places = Places(1)
    batch, why = places.pack(numbered(1)).pin_memory()
    assert not why
    assert places.pack(numbered(2)).start == 0
    assert_equal(batch, numbered(1))


def test_a_batch_arrives_as_it_was() -> None:
    """Every dtype, shape and order of memory."""
    batch = numbered(1)
    batch.targets = {
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T,
        "empty": torch.zeros(0, 4),
        "one": torch.arange(8).as_strided((1, 1), (0, 3)),
        "spread": torch.arange(24).reshape(4, 6)[::2, ::3],
        "flags": torch.tensor([True, False, True]),
    }
    places = Places(1)
    from_file = places.pack(batch).open().batch
    places.close()
    in_pipe = places.pack(batch)
    assert in_pipe.buffers is None
    for arrived in (from_file, in_pipe.open().batch):
        assert_equal(arrived, batch)
        assert arrived.images.stride() == batch.images.stride()


def test_the_limit_of_open_files_is_raised_to_what_is_granted() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
        assert open_file_limit() > 64
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == open_file_limit()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("asked", [False, True])
def test_no_wait_is_without_end(monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:
    for name, seconds in (("_LOOK_S", 0.1), ("_STOP_S", 4), ("_PATIENCE_S", 0.3)):
        monkeypatch.setattr(f"ddptrain.data.loading.loader.{name}", seconds)
    lines: list[str] = []
    wait = Wait(timeout_s=600 if asked else 4, stopped=lambda: asked, report=lines.append)
    loader = stream(Numbers(at=11, action="hang"), workers=1, wait=wait)
    next(loader)
    start = time.perf_counter()
    with pytest.raises(
        LoaderError, match=r"^no batch arrived for \d+ s.*check the disk they are on, or raise train.timeout_s \("
    ):
        next(loader)
    assert time.perf_counter() - start < 60
    assert lines[0].startswith("waiting for a batch for ")
    assert not any(p.is_alive() for p in loader.processes)


def test_a_slow_batch_comes_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddptrain.data.loading.loader._LOOK_S", 0.1)
    with stream(Numbers(at=11, action="doze"), workers=1) as loader:
        assert [b.keys[0, 0].item() for b in (next(loader), next(loader), next(loader))] == [0, 8, 16]


def test_a_worker_killed_for_shared_memory_is_named() -> None:
    """Also beside another DataLoader of the process, with torch's handler, which raises wherever the trainer is."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        others = iter(DataLoader(list(range(4)), num_workers=1))
        loader = stream(workers=2)
        next(loader)
        os.kill(loader.processes[0].pid, signal.SIGBUS)
        loader.processes[0].join()
        with pytest.raises(LoaderError, match=r"SIGBUS; data.workers is 2\): most likely shared memory ran out"):
            next(loader)
        assert len(list(others)) == 4
    finally:
        signal.signal(signal.SIGCHLD, before)
