"""`data.cache`: packed pixels are those that the files give, whoever makes the file, or they are not taken."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from key_probes import digest

from ddptrain.config import load_config, resolve
from ddptrain.config.data import AugmentConfig
from ddptrain.data.images.pixels import size_of
from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.loading.loader import Loader
from ddptrain.data.packed import build
from ddptrain.data.packed.build import Talk, provide
from ddptrain.data.packed.plan import Plan
from ddptrain.data.samples.base import FileList, ImageSamples, to_native
from ddptrain.data.tables.base import Paths
from ddptrain.errors import UserError
from ddptrain.structures import Sample, SampleKey
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task
from ddptrain.tasks.pixels import cache_pixels

SIZE = (14, 10)  # of the images here


def heard(lines: list[str] | None = None) -> Talk:
    """Talk that is written down."""
    lines = [] if lines is None else lines
    return Talk(lines.append, lines.append)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a test were all just written; only one test looks at that."""
    monkeypatch.setattr(build, "SETTLE_S", 0.0)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    r = np.random.default_rng(0)
    names = [str(tmp_path / f"{i}.png") for i in range(6)]
    for name in names:
        cv2.imwrite(name, r.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8))
    return names


def plan_of(paths: list[str], read: Callable[[str], np.ndarray] = read_image, side: int = 0) -> Plan:
    """`side`: claimed of all images, instead of the size that they have."""
    shape = (side, side, 3) if side else (*SIZE[::-1], 3)
    count = len(paths)
    used, halved = np.ones(count, bool), np.zeros(count, np.uint8)
    return Plan("images", 0, Paths.pack(paths), np.tile(np.array(shape), (count, 1)), halved, used, lambda i: read(paths[i]))


def made(paths: list[str], where: build.Where, folder: Path, read: Callable[[str], np.ndarray] = read_image) -> list[str]:
    """Provide the images, compare them with those of the files, and return what was said."""
    lines: list[str] = []
    packed = provide({"a": plan_of(paths, read)}, where, folder, heard(lines))["a"]
    for i, path in enumerate(paths):
        found = packed.get(i)
        try:
            expected = read_image(path)
        except BadImage:
            assert found is None
            continue
        assert found is not None
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, expected)
    assert packed.get(0, halved=1) is None
    return lines


def samples(task: Task) -> list[str]:
    """Of the first positions of training and of all validation samples."""
    positions = np.arange(40)
    keys = [SampleKey(*map(int, key)) for key in zip(positions, *task.sampler.keys(positions))]
    made = [task.train[key] for key in keys]
    made += [task.val_samples[SampleKey(i, d, i)] for d, (_, n) in enumerate(task.val) for i in range(n)]
    return [digest([s.image, s.targets, s.annotated, s.to_native, s.native_size, s.replaced]) for s in made]


OVERRIDES = {
    "detection": ["data.augment={mosaic: 0.5}"],
    "depth": ["model={in_channels: 5}"]
    + [f"data.{part}.{i}.{key}" for part in ("train", "val") for i, key in enumerate(("depth_missing=zeros", "depth=depth"))],
    "segmentation crop": ["data.augment={crop: true}"],
}


@pytest.mark.parametrize("where", ["disk", "ram"])
@pytest.mark.parametrize("run", ["detection", "depth", "classification", "segmentation", "segmentation crop", "interaction"])
def test_a_run_reads_nothing_but_what_is_packed(
    run: str, where: build.Where, small_config: Callable[[str], Path], small_data: Callable[[str], Path], tmp_path: Path
) -> None:
    kind = "detection" if run == "depth" else run.split()[0]
    data = shutil.copytree(small_data(kind), tmp_path / "data")
    config = small_config(kind)
    config.write_text(config.read_text().replace(str(small_data(kind)), str(data)))
    if run == "depth":
        for image in (data / "streets" / "JPEGImages").glob("*.jpg"):
            target = data / "streets" / "depth" / f"{image.stem}.png"
            target.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(target), np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 99)
    task = build_task(load_config(str(config), OVERRIDES.get(run, [])))
    expected = samples(task)
    cache_pixels(task, where, heard())
    for file in data.rglob("*"):
        if file.suffix in (".jpg", ".png"):
            file.unlink()
    assert samples(task) == expected


def test_images_that_are_in_memory_are_reported_as_not_packed(tmp_path: Path) -> None:
    for part, count in (("train", 8), ("t10k", 4)):
        images = np.arange(count * 28 * 28, dtype=np.uint8)
        header = np.array([0x803, count, 28, 28], ">i4").tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = np.array([0x801, count], ">i4").tobytes() + bytes(i % 10 for i in range(count))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    sets = {part: [{"name": "m", "format": "mnist", "root": str(tmp_path), "split": split}] for part, split in SPLITS}
    task = build_task(
        resolve({"task": "classification", "classes": [str(i) for i in range(10)], "data": {**sets, "image_size": 32}})
    )
    notes = cache_pixels(task, "ram", heard())
    assert notes[1:] == [f"data.cache=ram: {part} m is not packed: its images are in memory already" for part, _ in SPLITS]
    samples(task)


SPLITS = (("train", "train"), ("val", "t10k"))


@pytest.mark.parametrize("where", ["disk", "ram"])
def test_it_is_made_once_and_again_where_a_file_changes(where: build.Where, paths: list[str], tmp_path: Path) -> None:
    packing = f"a: packing 6 files into 0.00 GB ({'memory' if where == 'ram' else tmp_path}"
    lines: list[str] = []
    kept = provide(
        {"a": plan_of(paths)}, where, tmp_path, heard(lines)
    )  # what is in memory is gone with the last one that has it
    assert [line.startswith(start) for line, start in zip(lines, (packing, "a: packed in "))] == [True, True]
    assert made(paths, where, tmp_path) == []
    cv2.imwrite(paths[2], np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    lines = made(paths, where, tmp_path)
    assert lines[0] == "a: 1 of 6 files changed since they were packed; packing the dataset again"
    assert len(list((tmp_path / "pixels").glob("a.*"))) == 1
    assert kept["a"].get(2) is not None  # still those that it was made of


def test_memory_is_free_again_with_the_last_user(paths: list[str], tmp_path: Path) -> None:
    packed = provide({"a": plan_of(paths)}, "ram", tmp_path, heard())["a"]
    place = Path(packed.path)
    assert place.exists()
    del packed
    assert not place.exists()
    assert made(paths, "ram", tmp_path)[0].startswith("a: packing 6 files")


@pytest.mark.parametrize("where", ["disk", "ram"])
def test_another_process_maps_the_same_file(where: build.Where, paths: list[str], tmp_path: Path) -> None:
    packed = provide({"a": plan_of(paths)}, where, tmp_path, heard())["a"]
    sent = pickle.dumps(packed)
    assert len(sent) < 5000
    received = pickle.loads(sent)
    for i, path in enumerate(paths):
        np.testing.assert_array_equal(received.get(i), read_image(path))


def test_workers_of_a_server_map_it_too(small_config: Callable[[str], Path]) -> None:
    config = load_config(str(small_config("classification")))
    plain, packed = build_task(config), build_task(config)
    cache_pixels(packed, "ram", heard())
    keys = [SampleKey(*map(int, key)) for key in zip(range(8), *plain.sampler.keys(np.arange(8)))]
    with Loader(packed.train, iter([keys]), 1, False, served=True) as served:
        (worker,) = served.processes
        batch = next(served)
        assert Path(f"/proc/{worker.pid}/maps").read_text().count("memfd:ddptrain-pixels") == 1
    assert torch.equal(batch.images, plain.train.collate([plain.train[key] for key in keys]).images)


def test_samples_of_a_task_of_ones_own_are_packed_as_they_read(paths: list[str], tmp_path: Path) -> None:
    class Whole(ImageSamples[Any]):
        def make(self, key: SampleKey, source: np.ndarray) -> Sample:
            pixels, matrix = self.view(key.position).show(source)
            return Sample(key, pixels, {}, self.annotated[0], to_native(matrix), size_of(source))

    samples = Whole([FileList.of(paths)], np.ones((1, 1), bool), 32, AugmentConfig(scale=0.0))
    (plan,) = samples.plans()
    expected = [samples[SampleKey(i, 0, i)].image for i in range(len(paths))]
    samples.use({("images", 0): provide({"a": plan}, "ram", tmp_path, heard())["a"]})
    for path in paths:
        os.unlink(path)
    for i, image in enumerate(expected):
        np.testing.assert_array_equal(samples[SampleKey(i, 0, i)].image, image)


def test_an_image_that_cannot_be_read_is_left_to_its_reader(paths: list[str], tmp_path: Path) -> None:
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:40])
    os.unlink(paths[4])
    lines = made(paths, "disk", tmp_path)
    assert lines[1].endswith(", without 2 files that cannot be read")
    assert made(paths, "disk", tmp_path) == []


@pytest.mark.parametrize("place", [0, 40, 70, -1])
def test_a_file_that_is_not_whole_is_not_taken(place: int, paths: list[str], tmp_path: Path) -> None:
    """Neither with another byte in its head or stamps, nor cut short."""
    made(paths, "disk", tmp_path)
    (file,) = (tmp_path / "pixels").glob("*.pixels")
    data = bytearray(file.read_bytes())
    if place < 0:
        data = data[:place]
    else:
        data[place] ^= 1
    file.write_bytes(data)
    lines = made(paths, "disk", tmp_path)
    assert lines[0] == f"{file} is damaged; packing the dataset again"


@pytest.mark.parametrize("where", ["disk", "ram"])
def test_what_has_no_room_is_refused_before_anything_is_written(where: build.Where, paths: list[str], tmp_path: Path) -> None:
    plans = {"a": plan_of(paths), "large": plan_of(paths, side=10**6)}
    other = "data.cache=disk" if where == "ram" else "DDPTRAIN_CACHE to a larger disk"
    with pytest.raises(UserError, match=rf"data.cache={where} needs 18000.00 GB \(most of it for large\), .*; set {other}"):
        provide(plans, where, tmp_path, heard())
    assert [p.name for p in (tmp_path / "pixels").iterdir()] == ["lock"]


def in_children(count: int, run: Callable[[], None]) -> list[int]:
    """Fork processes that do something, and return how they ended."""
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            try:
                run()
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]


def test_one_of_many_processes_packs_and_the_others_wait(paths: list[str], tmp_path: Path) -> None:
    """In memory, each holds what it found until all have found it."""
    log, said = tmp_path / "read", tmp_path / "said"
    together = get_context("fork").Barrier(3)

    def read(path: str) -> np.ndarray:
        with log.open("a") as file:
            file.write(f"{path}\n")
        time.sleep(0.2)  # for the others' few lines up to the lock
        return read_image(path)

    def run() -> None:
        together.wait(60)
        lines = made(paths, "disk", tmp_path, read)
        with said.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))

    assert in_children(3, run) == [0, 0, 0]
    assert sorted(log.read_text().split()) == paths
    waits = [line for line in said.read_text().splitlines() if line.startswith("waiting for another process that packs images")]
    assert len(waits) == 2


@pytest.mark.parametrize("where", ["disk", "ram"])
def test_a_killed_process_leaves_nothing_that_is_used(where: build.Where, paths: list[str], tmp_path: Path) -> None:
    def die(path: str) -> np.ndarray:
        if path == paths[3]:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(path)

    assert in_children(1, lambda: provide({"a": plan_of(paths, die)}, where, tmp_path, heard())) == [signal.SIGKILL]
    assert made(paths, where, tmp_path)[0].startswith("a: packing 6 files")
    left = {"lock"} | ({p.name for p in (tmp_path / "pixels").glob("a.*")})
    assert {p.name for p in (tmp_path / "pixels").iterdir()} == left


def test_a_stop_signal_ends_the_packing(paths: list[str], tmp_path: Path) -> None:
    talk = Talk(lambda line: None, lambda line: None, lambda: int(signal.SIGTERM))
    with pytest.raises(SystemExit) as e:
        provide({"a": plan_of(paths)}, "disk", tmp_path, talk)
    assert e.value.code == 128 + signal.SIGTERM
    assert [p.name for p in (tmp_path / "pixels").iterdir()] == ["lock"]


def test_files_that_were_just_written_are_given_time(paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SETTLE_S", 0.5)
    os.utime(paths[0])
    written = time.time()
    made(paths, "disk", tmp_path)
    assert time.time() - written >= 0.5
