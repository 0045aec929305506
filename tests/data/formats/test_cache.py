"""The table cache gives back what was read, notices every change, and survives many processes and broken entries."""

import dataclasses
import multiprocessing
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddptrain.config.classification import ClassificationDataset
from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats import cache
from ddptrain.data.formats.build import read
from ddptrain.data.formats.cache import cache_folder, one_look, read_cached
from ddptrain.data.formats.fingerprint import fingerprint
from ddptrain.data.formats.labelled import read_label_csv
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.data.tables.images import ImageTable
from ddptrain.errors import UserError

GOOD = "0 0.5 0.5 0.2 0.2\n"


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    """A YOLO set of three images; c is background."""
    root = tmp_path / "set"
    for name, text in (("a", GOOD), ("b", GOOD + "1 0.3 0.3 0.1 0.1\n"), ("c", "")):
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 80)).save(root / "images" / f"{name}.png")
        (root / "labels" / f"{name}.txt").write_text(text)
    (root / "classes.txt").write_text("car\nbus\n")
    return DetectionDataset(name="y", format="yolo", root=str(root))


def load(config: DetectionDataset, tmp_path: Path, on_fault: str = "error") -> AnnotationTable:
    return read_cached(config, on_fault, tmp_path / "cache", settle=-60)[0]


def entries(tmp_path: Path) -> list[Path]:
    return sorted(p for p in (tmp_path / "cache" / "tables").glob("*") if p.is_dir())


def assert_equal(a: AnnotationTable, b: AnnotationTable) -> None:
    for f in dataclasses.fields(a):
        if f.name == "digests":  # the cache's own
            continue
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
        else:
            assert x is y is None or list(x) == list(y)


def is_mapped(array: np.ndarray) -> bool:
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = array.base  # type: ignore[assignment]
    return False


def test_what_is_read_comes_back(dataset: DetectionDataset, tmp_path: Path) -> None:
    plain = read(dataset)[0]
    for _ in range(2):
        table = load(dataset, tmp_path)
        assert_equal(table, plain)
        assert is_mapped(table.boxes)
        assert not table.boxes.flags.writeable
    assert len(entries(tmp_path)) == 1


def test_the_second_time_nothing_is_parsed(dataset: DetectionDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(dataset, tmp_path)
    monkeypatch.setattr(cache, "parse", None)
    assert load(dataset, tmp_path).name == "y"
    # the name and what is done with the classes do not change what is read
    renamed = dataset.model_copy(update={"name": "z", "drop": ("bus",), "share": 2.0})
    assert load(renamed, tmp_path).name == "z"


def changes(root: Path) -> dict[str, object]:
    """Every way in which a dataset may change, by name."""

    def same_size_and_time() -> None:
        path = root / "labels/a.txt"
        times = path.stat()
        path.write_text(GOOD.replace("0 ", "1 "))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    return {
        "label edited": lambda: (root / "labels/a.txt").write_text("1 0.5 0.5 0.2 0.2\n"),
        "label edited, time put back": same_size_and_time,
        "label added": lambda: (root / "labels/c.txt").write_text(GOOD),
        "label removed": lambda: (root / "labels/b.txt").unlink(),
        "image added": lambda: Image.new("RGB", (10, 10)).save(root / "images/d.png"),
        "image removed": lambda: [(root / f).unlink() for f in ("images/a.png", "labels/a.txt")],
        "image resized": lambda: Image.new("RGB", (200, 80)).save(root / "images/a.png"),
        "classes renamed": lambda: (root / "classes.txt").write_text("car\ntram\n"),
        "image in a new folder": lambda: (
            (root / "images/deep").mkdir(),
            Image.new("RGB", (10, 10)).save(root / "images/deep/e.png"),
        ),
    }


@pytest.mark.parametrize("change", list(changes(Path())))
def test_every_change_is_noticed(dataset: DetectionDataset, tmp_path: Path, change: str) -> None:
    before = load(dataset, tmp_path)
    changes(Path(dataset.root))[change]()  # type: ignore[operator]
    after = load(dataset, tmp_path)
    assert_equal(after, read(dataset)[0])
    with pytest.raises(AssertionError):
        assert_equal(before, after)


@pytest.mark.parametrize("layout", ["images", "data.yaml", "list"])
def test_files_outside_the_root_are_watched(dataset: DetectionDataset, tmp_path: Path, layout: str) -> None:
    elsewhere, root = tmp_path / "elsewhere", Path(dataset.root)
    elsewhere.mkdir()
    for name in ("images", "labels"):
        shutil.move(root / name, elsewhere / name)
    if layout == "images":
        config = dataset.model_copy(update={"images": "../elsewhere/images"})
    else:
        train = "images" if layout == "data.yaml" else "train.txt"
        (elsewhere / "train.txt").write_text("images/a.png\nimages/b.png\n")
        (root / "data.yaml").write_text(f"path: {elsewhere}\ntrain: {train}\nnames: [car, bus]\n")
        config = dataset.model_copy(update={"split": "train"})
    assert load(config, tmp_path).sizes[0].tolist() == [100, 80]
    Image.new("RGB", (200, 80)).save(elsewhere / "images/a.png")
    assert load(config, tmp_path).sizes[0].tolist() == [200, 80]
    (elsewhere / "labels/a.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    assert load(config, tmp_path).labels[0] == 1
    if layout == "list":
        (elsewhere / "train.txt").write_text("images/b.png\n")
        assert len(load(config, tmp_path)) == 1
        return
    for folder in ("images", "labels"):
        shutil.copytree(elsewhere / folder, elsewhere / folder / "more")
    assert len(load(config, tmp_path)) == (6 if layout == "images" else 3 + 3)
    shutil.copytree(elsewhere / "images/more", elsewhere / "images/more/deep")
    assert len(load(config, tmp_path, "drop")) == 9


def test_a_data_yaml_outside_the_root_is_watched(dataset: DetectionDataset, tmp_path: Path) -> None:
    yaml = tmp_path / "elsewhere/data.yaml"
    yaml.parent.mkdir()
    config = dataset.model_copy(update={"annotations": str(yaml), "split": "train"})
    for name in ("car", "truck"):
        yaml.write_text(f"path: {dataset.root}\ntrain: images\nnames: [{name}, bus]\n")
        assert load(config, tmp_path).names == (name, "bus")


def test_each_task_and_each_version_of_the_libraries_has_its_own_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "set/a.png")
    (tmp_path / "set/train.csv").write_text("path,x1,y1,x2,y2,class\na.png,1,1,9,9,car\n")
    keys = {"name": "d", "format": "csv", "root": str(tmp_path / "set"), "split": "train"}
    of_boxes, of_labels = DetectionDataset.model_validate(keys), ClassificationDataset.model_validate(keys)

    def parse() -> tuple[ImageTable, Faults]:
        faults = Faults()
        return read_label_csv(of_labels, faults), faults

    for _ in range(2):
        boxes, faults = read_cached(of_boxes, "error", tmp_path / "cache", settle=-60)
        labels, more = cache.cached(of_labels, "error", parse, ImageTable, tmp_path / "cache", settle=-60)
        assert (len(boxes.boxes), labels.labels.tolist()) == (1, [0])
        assert not faults.counts
        assert not more.counts
    assert len(entries(tmp_path)) == 2
    monkeypatch.setattr(cache, "decoders", lambda: "another OpenCV")
    cache._readers_version.cache_clear()
    load(of_boxes, tmp_path)
    cache._readers_version.cache_clear()
    assert len(entries(tmp_path)) == 3


def test_what_has_just_changed_is_not_stored(dataset: DetectionDataset, tmp_path: Path) -> None:
    assert len(read_cached(dataset, folder=tmp_path / "cache")[0]) == 3
    assert not (tmp_path / "cache").exists()


def test_another_split_or_format_has_its_own_entry(dataset: DetectionDataset, tmp_path: Path) -> None:
    load(dataset, tmp_path)
    named = load(dataset.model_copy(update={"names": ("Car", "Bus")}), tmp_path)
    assert named.names == ("Car", "Bus")
    assert load(dataset, tmp_path).names == ("car", "bus")


def test_faults_are_kept_and_judged_again(dataset: DetectionDataset, tmp_path: Path) -> None:
    (Path(dataset.root) / "labels/a.txt").write_text(f"{GOOD}0 0.5 nan 0.2 0.2\n")
    for _ in range(2):
        _, faults = read_cached(dataset, "drop", tmp_path / "cache", settle=-60)
        assert faults.text() == "1 non-finite number (left out)"
        with pytest.raises(UserError, match=r"a.txt:2: non-finite number"):
            load(dataset, tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "remove file", "remove entry", "meta", "pointer"])
def test_a_dataset_with_a_broken_entry_is_read_again(dataset: DetectionDataset, tmp_path: Path, damage: str) -> None:
    plain = load(dataset, tmp_path)
    (entry,) = entries(tmp_path)
    if damage == "truncate":
        # a new file, so that the table mapped above keeps its own
        content = (entry / "boxes.npy").read_bytes()
        (entry / "boxes.npy").unlink()
        (entry / "boxes.npy").write_bytes(content[:-8])
    elif damage == "remove file":
        (entry / "labels.npy").unlink()
    elif damage == "remove entry":
        shutil.rmtree(entry)
    elif damage == "meta":
        (entry / "meta.json").write_text("{")
    else:
        next(entry.parent.glob("*.json")).write_text("[]")
    for _ in range(2):
        assert_equal(load(dataset, tmp_path), plain)
    assert is_mapped(load(dataset, tmp_path).boxes)


@pytest.mark.parametrize("change", ["labels", "names", "other entry", "checksum"])
def test_an_entry_that_was_changed_is_reported_and_read_again(dataset: DetectionDataset, tmp_path: Path, change: str) -> None:
    plain = load(dataset, tmp_path)
    (entry,) = entries(tmp_path)
    meta = entry / "meta.json"
    if change == "labels":
        labels = 1 - np.load(entry / "labels.npy")
        (entry / "labels.npy").unlink()  # the table above keeps its own
        np.save(entry / "labels.npy", labels)
    elif change == "names":
        meta.write_text(meta.read_text().replace('["car", "bus"]', '["bus", "car"]'))
    elif change == "other entry":
        (Path(dataset.root) / "labels/a.txt").write_text(GOOD.replace("0 ", "1 "))
        load(dataset, tmp_path)
        (other,) = [e for e in entries(tmp_path) if e != entry]
        shutil.rmtree(other)
        shutil.copytree(entry, other)
        plain = dataclasses.replace(read(dataset)[0])
    else:
        meta.write_text(re.sub(r'"checksum": \d+', '"checksum": 1', meta.read_text()))
    table, faults = read_cached(dataset, "error", tmp_path / "cache", settle=-60)
    assert_equal(table, plain)
    assert faults.text() == "1 damaged cache entry (dataset read again)"
    assert "is not what was stored" in faults.kept[0].what
    table, faults = read_cached(dataset, "error", tmp_path / "cache", settle=-60)
    assert_equal(table, plain)
    assert faults.text() == "no faults"


def test_a_cache_that_cannot_be_written_is_not_used(dataset: DetectionDataset, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder is due")
    assert len(load(dataset, tmp_path)) == 3


def test_old_entries_are_removed_after_a_while(dataset: DetectionDataset, tmp_path: Path) -> None:
    for size in (101, 102):
        load(dataset, tmp_path)
        Image.new("RGB", (size, 80)).save(Path(dataset.root) / "images/a.png")
    first, second = entries(tmp_path)
    long_ago = time.time() - 86400 * (cache.KEEP_DAYS + 1)
    os.utime(first, (long_ago, long_ago))
    load(dataset, tmp_path)
    assert first not in entries(tmp_path)
    assert second in entries(tmp_path)


def _read_in_a_process(config: DetectionDataset, folder: Path, results: "multiprocessing.Queue[int]") -> None:
    results.put(sum(len(read_cached(config, "error", folder, settle=-60)[0].boxes) for _ in range(5)))


def test_many_processes_at_once(dataset: DetectionDataset, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (dataset, tmp_path / "cache", results)
    processes = [context.Process(target=_read_in_a_process, args=arguments) for _ in range(4)]
    for p in processes:
        p.start()
    assert [results.get(timeout=60) for _ in processes] == [15] * 4
    for p in processes:
        p.join()
    assert len(entries(tmp_path)) == 1
    assert [p.name for p in (tmp_path / "cache/tables").glob(".*")] == []


def test_one_look_serves_all_datasets_of_a_folder_until_one_is_read(
    dataset: DetectionDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def look(root: Path, *more: object) -> tuple[str, float]:
        looks.append(root)
        return fingerprint(root, *more)

    monkeypatch.setattr(cache, "fingerprint", look)
    before = load(dataset, tmp_path)
    looks.clear()
    with one_look():
        for name in ("a", "b", "c"):
            assert load(dataset.model_copy(update={"name": name}), tmp_path).name == name
        assert len(looks) == 1
        (Path(dataset.root) / "labels" / "a.txt").unlink()
        load(dataset.model_copy(update={"exif": "ignore"}), tmp_path)  # not stored yet
        assert len(load(dataset, tmp_path).boxes) < len(before.boxes)


def test_folders_linked_in_a_circle(dataset: DetectionDataset) -> None:
    before = fingerprint(Path(dataset.root))
    (Path(dataset.root) / "images" / "self").symlink_to(dataset.root)
    (Path(dataset.root) / "images" / "dangling.txt").symlink_to("nowhere")
    assert fingerprint(Path(dataset.root)) != before


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DDPTRAIN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("DDPTRAIN_CACHE")
    assert cache_folder().name == "ddptrain"
