"""Readers of whole-image labels: what they find in real and made-up layouts, and one clear line for every fault."""

from __future__ import annotations

import gzip
import struct
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ddptrain.config.classification import ClassificationDataset
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.data.tables.images import ImageTable
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.errors import UserError


def dataset(root: Path, **keys: object) -> ClassificationDataset:
    return ClassificationDataset.model_validate({"name": "d", "root": str(root), **keys})


def images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((8, 10, 3), i, np.uint8))


def paths(table: ImageTable) -> list[str]:
    return [table.path(i) for i in range(len(table))]


def test_real_folder_is_held_out_by_class(data_root: Path) -> None:
    parts = {}
    for split in ("train", "val"):
        config = dataset(data_root / "cifar10_1500", format="folder", holdout=0.1, split=split)
        table, faults = read_labelled(config)
        assert not faults.counts
        parts[split] = table
        expected = 135 if split == "train" else 15
        assert np.bincount(table.labels).tolist() == [expected] * 10
        assert (table.sizes == 32).all()
        for i in (0, len(table) - 1):
            assert Path(table.path(i)).parent.name == table.names[table.labels[i]]
    assert not set(paths(parts["train"])) & set(paths(parts["val"]))


def test_classes_are_mapped_and_dropped(tmp_path: Path) -> None:
    for name, count in (("Cat", 2), ("dog", 3), ("fish", 1)):
        images(tmp_path / "train" / name, count)
    config = dataset(tmp_path, format="folder", split="train", rename={"Cat": "cat"}, drop=("fish",))
    table, _ = read_labelled(config)
    space = LabelSpace.build(["dog", "cat"], [config], [table])
    mapped = space.apply(table)
    assert mapped.names == ("dog", "cat")
    assert mapped.labels.tolist() == [1, 1, 0, 0, 0]
    assert [Path(p).parent.name for p in paths(mapped)] == ["Cat", "Cat", "dog", "dog", "dog"]
    with pytest.raises(UserError, match="its classes Cat, fish are not among"):
        LabelSpace.build(["dog", "cat"], [dataset(tmp_path, format="folder", split="train")], [table])


@pytest.mark.parametrize("format", ["folder", "csv"])
def test_a_dataset_is_read_once_and_again_after_any_change(format: str, tmp_path: Path) -> None:
    """Also of a file outside the root; its faults are kept."""
    root, outside = tmp_path / "set", tmp_path / "pictures"
    for name, count in (("cat", 2), ("dog", 3)):
        images(root / "train" / name, count)
        images(outside / name, count)
    (root / "train" / "cat" / "notes.heic").touch()
    rows = [f"{name}/{i}.png,{name}\n" for name, count in (("cat", 2), ("dog", 3)) for i in range(count)]
    (root / "train.csv").write_text("".join(rows))
    keys = {} if format == "folder" else {"images": str(outside)}
    config = dataset(root, format=format, split="train", **keys)
    time.sleep(2.1)  # what was just written is not stored
    first, faults = read_labelled(config, folder=tmp_path / "cache")
    again, stored = read_labelled(config.model_copy(update={"name": "e"}), folder=tmp_path / "cache")
    assert first.digests is not None
    assert isinstance(again.labels.base, np.memmap)
    assert (again.name, again.names, paths(again)) == ("e", first.names, paths(first))
    assert stored.counts == faults.counts
    for column in ("sizes", "offsets", "labels", "digests"):
        np.testing.assert_array_equal(getattr(again, column), getattr(first, column))
    folder = root / "train" if format == "folder" else outside
    cv2.imwrite(str(folder / "dog" / "0.png"), np.zeros((5, 6, 3), np.uint8))
    changed, _ = read_labelled(config, folder=tmp_path / "cache")
    assert [6, 5] in changed.sizes.tolist()


@pytest.mark.parametrize("header", ["", "label,filename\n"])
def test_csv_with_and_without_header(tmp_path: Path, header: str) -> None:
    images(tmp_path / "images", 4)
    order = (lambda p, c: f"{c},{p}\n") if header else (lambda p, c: f"{p},{c}\n")
    rows = [order("0.png", "a | b"), order("1.png", "b"), order("2.png", ""), order("1.png", "a")]
    (tmp_path / "train.csv").write_text(header + "".join(rows))
    table, faults = read_labelled(dataset(tmp_path, format="csv", split="train"))
    assert not faults.counts
    assert table.names == ("a", "b")
    assert table.truth().tolist() == [[True, True], [True, True], [False, False]]


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist(tmp_path: Path, zipped: bool) -> None:
    r = np.random.default_rng(0)
    pixels, labels = r.integers(0, 256, (7, 28, 28), dtype=np.uint8), r.integers(0, 10, 7, dtype=np.uint8)
    write = (lambda p, d: p.with_suffix(".gz").write_bytes(gzip.compress(d))) if zipped else (lambda p, d: p.write_bytes(d))
    write(tmp_path / "t10k-images-idx3-ubyte", struct.pack(">4I", 0x803, 7, 28, 28) + pixels.tobytes())
    write(tmp_path / "t10k-labels-idx1-ubyte", struct.pack(">2I", 0x801, 7) + labels.tobytes())
    table, _ = read_labelled(dataset(tmp_path, format="mnist", split="test"))
    assert table.pixels is not None
    assert np.array_equal(table.pixels, pixels)
    assert table.labels.tolist() == labels.tolist()
    assert len(table.names) == 10


def cut_idx(root: Path) -> dict[str, object]:
    (root / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 7, 28, 28) + b"12")
    return {"format": "mnist"}


def empty_class(root: Path) -> dict[str, object]:
    images(root / "train/cat", 1)
    (root / "train/dog").mkdir()
    return {"format": "folder", "split": "train"}


def no_split(root: Path) -> dict[str, object]:
    images(root / "val/cat", 1)
    return {"format": "folder", "split": "train"}


def holdout_of_nothing(root: Path) -> dict[str, object]:
    images(root / "cat", 1)
    return {"format": "folder", "split": "test", "holdout": 0.5}


def broken_image(root: Path) -> dict[str, object]:
    images(root / "cat", 2)
    (root / "cat/0.png").write_bytes(b"nothing")
    return {"format": "folder"}


def missing_image(root: Path) -> dict[str, object]:
    (root / "train.csv").write_text("gone.png,cat\n")
    return {"format": "csv", "split": "train"}


def header_without_class(root: Path) -> dict[str, object]:
    (root / "train.csv").write_text("path,width\na.png,3\n")
    return {"format": "csv", "split": "train"}


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (cut_idx, "train-images-idx3-ubyte is not an idx file of 3 dimensions, or cut short"),
        (empty_class, "dog: empty class folder"),
        (no_split, "split train does not exist; splits in .*: val"),
        (holdout_of_nothing, "holdout makes the splits train and val"),
        (broken_image, "unreadable image: not an image"),
        (missing_image, "missing image"),
        (header_without_class, "no column class"),
    ],
)
def test_faults_are_reported_in_one_line(tmp_path: Path, make: object, line: str) -> None:
    with pytest.raises(UserError, match=line) as e:
        read_labelled(dataset(tmp_path, **make(tmp_path)))  # type: ignore[operator]
    assert "\n" not in str(e.value)


def test_faulty_parts_can_be_left_out(tmp_path: Path) -> None:
    empty_class(tmp_path)
    table, faults = read_labelled(dataset(tmp_path, format="folder", split="train"), "drop")
    assert len(table) == 1
    assert faults.counts["empty class folder"] == 1


def test_holdout_beside_splits_is_refused(tmp_path: Path) -> None:
    """Else most of the images would be left out, or the splits would be taken for classes."""
    for split in ("train", "val"):
        images(tmp_path / f"folders/{split}/cat", 2)
        images(tmp_path / f"csv/images/{split}", 2)
        (tmp_path / f"csv/{split}.csv").write_text("0.png,cat\n1.png,dog\n")
    images(tmp_path / "folders/extra/cat", 1)
    for format, root in (("csv", tmp_path / "csv"), ("folder", tmp_path / "folders")):
        with pytest.raises(UserError, match=r"holdout is for datasets without splits, but .* has train, val"):
            read_labelled(dataset(root, format=format, split="train", holdout=0.5))
    with pytest.raises(UserError, match=r"no split is chosen; splits in .*: train, val;"):
        read_labelled(dataset(tmp_path / "folders", format="folder"))


def test_holdout_of_the_only_split(tmp_path: Path) -> None:
    """The classes are those of its folder, and the note names a class of which the split has none."""
    images(tmp_path / "train/cat", 10)
    images(tmp_path / "train/dog", 2)
    table, faults = read_labelled(dataset(tmp_path, format="folder", split="val", holdout=0.2))
    assert table.names == ("cat", "dog")
    assert np.bincount(table.labels, minlength=2).tolist() == [2, 0]
    assert faults.notes == ["holdout 0.2 makes val: 2 of 12 images, none of dog"]
    with pytest.raises(UserError, match=r"holdout 0.01 of its 12 images leaves none for val; raise it"):
        read_labelled(dataset(tmp_path, format="folder", split="val", holdout=0.01))


def test_a_class_of_the_name_of_a_split(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        images(tmp_path / name, 1)
    assert read_labelled(dataset(tmp_path, format="folder"))[0].names == ("bus", "train")
