"""Images with labels of their whole: a folder for each class, a CSV, or MNIST's idx files."""

import gzip
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ddptrain.config.data import HoldoutDataset
from ddptrain.data.formats.build import SPLIT_FOLDERS, check, of_split, whole
from ddptrain.data.formats.cache import cached
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import ImageCollector
from ddptrain.data.formats.csv import COLUMNS, csv_files, csv_rows, is_header, required
from ddptrain.data.formats.files import (
    Bounds,
    annotation_file,
    dataset_root,
    folders_in,
    image_folders,
    image_path,
    images_below,
    no_split,
    note_unlabelled,
    report_unlisted,
)
from ddptrain.data.tables.base import Paths, to_offsets
from ddptrain.data.tables.faults import Faults, OnFault
from ddptrain.data.tables.images import ImageTable
from ddptrain.errors import UserError
from ddptrain.system.printable import counted, unguarded


class LabelCollector(ImageCollector):
    """Takes images and labels of whole images in any order of labels, and makes an `ImageTable` of them."""

    def __init__(self, config: HoldoutDataset, faults: Faults) -> None:
        super().__init__(config, faults)
        self.labels: list[tuple[int, int]] = []  # image, own class

    def image(self, path: str, named_by: str) -> int:
        """Number of an image; it may be named more than once."""
        known = self.known(path)
        return self.add(path, named_by) if known is None else known

    def table(self, names: tuple[str, ...], keep: Callable[[str], bool]) -> ImageTable:
        """The table of all images that are sound and that `keep` keeps; each fault is counted in `faults`."""
        sizes = self.sizes({i for i, path in enumerate(self.paths) if not keep(path)})
        sound = sizes[:, 0] > 0
        labels = np.unique(np.array(self.labels, np.int64).reshape(-1, 2), axis=0)
        labels = labels[sound[labels[:, 0]]]
        return ImageTable(
            names=names,
            offsets=to_offsets(np.bincount(labels[:, 0], minlength=len(sizes))[sound]),
            labels=labels[:, 1].astype(np.int32),
            **self.columns(sizes),
        )


def read_labelled(config: HoldoutDataset, on_fault: OnFault = "error", folder: Path | None = None) -> tuple[ImageTable, Faults]:
    """The table of one dataset and the faults that were found in it, through the cache in `folder` unless one file holds all
    of its images; raises `UserError` like `formats.build.read`."""

    def parse() -> tuple[ImageTable, Faults]:
        faults = Faults()
        return READERS[config.format](config, faults), faults

    if config.format == "mnist":
        return check(config, *parse(), on_fault)
    return cached(config, on_fault, parse, ImageTable, folder)


def read_folder(config: HoldoutDataset, faults: Faults) -> ImageTable:
    """`<root>/<split>/<class>/…` or `<root>/<class>/…`; images may lie in further subfolders of their class. Two folders that
    have names of splits are splits, whatever lies beside them, and so is one alone; `train` beside others is a class."""
    root = dataset_root(config)
    base, split = root, config.split
    if split is not None and config.holdout is None:
        base = root / split
        if not base.is_dir():
            raise no_split(config, folders_in(root))
    folders = folders_in(base)
    splits = [f for f in folders if f.lower() in SPLIT_FOLDERS]
    if base == root and splits and (len(splits) > 1 or splits == folders):
        if config.holdout is None:
            raise no_split(config, splits)
        base = root / str(whole(config, splits).split)
        folders = folders_in(base)
    if not folders:
        raise UserError(f"{config.name}: no folder of a class in {base}; correct root or split")
    collector = LabelCollector(config, faults)
    labels = {folder: label for label, folder in enumerate(folders)}
    groups: dict[str, str] = {}
    loose = []  # in no folder of a class
    for path in images_below(base, faults):
        folder, *below = os.path.relpath(path, base).split(os.sep)
        if below:
            collector.labels.append((collector.image(path, str(base / folder)), labels[folder]))
            groups[path] = folder
        else:
            loose.append(path)
    note_unlabelled(loose, faults)
    for folder in sorted(labels.keys() - set(groups.values())):
        faults.add("empty class folder", str(base / folder), "a class folder without images")
    names = class_names(config, folders, str(base), faults)
    return collector.table(names, of_split(config, groups, faults))


def read_label_csv(config: HoldoutDataset, faults: Faults) -> ImageTable:
    """`path, class` in each row, under a header or in this order. An image of several classes stands in several rows,
    or has them in one, `a|b`; a row without a class is an image of none."""
    files = csv_files(config)
    held_of = config if config.holdout is None or config.annotations is not None else whole(config, sorted(dict(files)))
    file = annotation_file(config, files, "CSV", faults)
    rows = list(_rows(config, file, faults))
    occurring = sorted({label for _, _, labels in rows for label in labels})
    names = class_names(config, config.names or occurring, str(file), faults)
    numbers = {name: i for i, name in enumerate(names)}
    folders = image_folders(config, held_of.split or file.stem, file.parent)
    collector = LabelCollector(config, faults)
    bounds = Bounds((config.root, *folders))
    groups: dict[str, str] = {}
    for where, name, labels in rows:
        path = image_path(name, folders)
        if not bounds.hold(path, where, faults):
            continue
        image = collector.image(path, where)
        groups[collector.paths[image]] = "|".join(labels)
        for label in labels:
            if label in numbers:
                collector.labels.append((image, numbers[label]))
            else:
                faults.add("unknown class", where, f"{label!r} is not listed in names")
    report_unlisted(config, folders[0], len(dict(files)) == 1, collector.paths, faults)
    return collector.table(names, of_split(config, groups, faults))


def _rows(config: HoldoutDataset, file: Path, faults: Faults) -> Iterator[tuple[str, str, list[str]]]:
    """(`file:line`, path, classes) of each row."""
    path_at, class_at, due = 0, 1, 2
    for count, (line, values) in enumerate(csv_rows(file)):
        where = f"{file}:{line}"
        if count == 0 and is_header(values):
            columns = {k: COLUMNS[k] for k in ("path", "class")}
            path_at, class_at = required(values, columns, f"{config.name}: {where}", faults)
            due = len(values)
        elif len(values) <= max(path_at, class_at) or not values[path_at] or any(values[due:]):
            what = f"{','.join(values)}; a row must have {due} fields, a path and classes among them, several classes as a|b"
            faults.add("malformed row", where, what)
        else:
            yield where, unguarded(values[path_at]), [unguarded(v.strip()) for v in values[class_at].split("|") if v.strip()]


def read_mnist(config: HoldoutDataset, faults: Faults) -> ImageTable:
    """`<split>-images-idx3-ubyte` and `<split>-labels-idx1-ubyte` (`train` or `t10k`), plain or gzipped."""
    split = {"test": "t10k", "val": "t10k", None: "train"}.get(config.split, config.split)
    pixels, file = _read_idx(config, f"{split}-images", 3)
    labels, label_file = _read_idx(config, f"{split}-labels", 1)
    if len(pixels) != len(labels):
        raise UserError(
            f"{config.name}: {file} has {counted(len(pixels), 'image')} and {label_file} {counted(len(labels), 'label')}"
        )
    faults.looked_in.add(str(file.parent))
    highest = int(labels.max(initial=0))
    count = max(10, highest + 1) if config.names is None else len(config.names)
    names = class_names(config, map(str, range(count)), str(label_file), faults)
    if highest >= len(names):
        raise UserError(
            f"{config.name}: {label_file} has the label {highest}, names has {counted(len(names), 'class', 'classes')}"
        )
    return ImageTable(
        name=config.name,
        root=str(file),
        names=names,
        paths=Paths.pack(()),
        sizes=np.tile(np.array([pixels.shape[2], pixels.shape[1]], np.int32), (len(pixels), 1)),
        offsets=np.arange(len(pixels) + 1, dtype=np.int64),
        labels=labels.astype(np.int32),
        pixels=pixels,
    )


def _read_idx(config: HoldoutDataset, stem: str, dimensions: int) -> tuple[np.ndarray, Path]:
    """uint8 array of one idx file (its format is on MNIST's own page) and the file."""
    root = dataset_root(config)
    names = [f"{stem}{dash}idx{dimensions}-ubyte{end}" for dash in "-." for end in ("", ".gz")]
    usual = [root / folder / name for folder in (".", "raw", "MNIST/raw") for name in names]
    file = next((p for p in usual if p.is_file()), None)
    if file is None:
        raise UserError(f"{config.name}: no file {usual[0]} (nor gzipped); set split to train or t10k")
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
        if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) != 4 + 4 * dimensions + int(np.prod(shape)):
            raise ValueError("its header does not fit its length")
    except (OSError, EOFError, struct.error, zlib.error, ValueError) as e:
        raise UserError(f"{config.name}: {file} is not an idx file of {dimensions} dimensions, or cut short ({e})") from None
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape), file


READERS: dict[str, Callable[[HoldoutDataset, Faults], ImageTable]] = {
    "csv": read_label_csv,
    "folder": read_folder,
    "mnist": read_mnist,
}
