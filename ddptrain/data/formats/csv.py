"""CSV, one box a row: `path, x1, y1, x2, y2, class` in pixels, or any order under a header that names the columns.

A row with a path and nothing else is an image without boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ddptrain.config.data import DatasetConfig
from ddptrain.data.faults import Faults
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import Box, Collector
from ddptrain.data.formats.files import csv_rows, dataset_root, image_folders, image_path, no_split, visible
from ddptrain.data.table import AnnotationTable
from ddptrain.errors import UserError

COLUMNS = {
    "path": ("path", "filename", "file_name", "file", "image", "image_path", "image_name", "img"),
    "x1": ("x1", "xmin", "x_min", "left"),
    "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "class": ("class", "label", "name", "category", "class_name"),
}
"""Each column and the names that a header may give it. Without a header the columns stand in this order."""
Row = tuple[int, str, tuple[str, str, str, str], str]


def csv_files(config: DatasetConfig) -> dict[str, Path]:
    """The file of each split: `<split>.csv` or `<split>_labels.csv` in the root, `annotations` or `labels`."""
    root = dataset_root(config)
    files = [p for folder in (".", "annotations", "labels") for p in visible(root / folder, "*.csv")]
    return {p.stem.removesuffix("_labels"): p for p in reversed(files)}


def _files(config: DatasetConfig) -> tuple[Path, list[Path]]:
    """The file of the split, and all files of the set (the classes of all of them are its classes)."""
    if config.annotations is not None:
        path = dataset_root(config) / config.annotations
        if not path.is_file():
            raise UserError(f"{config.name}: annotations {path} is no file; give the CSV file, relative to the root")
        return path, [path]
    found = csv_files(config)
    if config.split is None and len(found) == 1:
        return next(iter(found.values())), list(found.values())
    if config.split not in found:
        raise no_split(config, found)
    return found[config.split], list(found.values())


def _rows(config: DatasetConfig, file: Path) -> Iterator[Row | tuple[int, str]]:
    """(line, path, corners, class) of each row, or (line, what is wrong)."""
    order = list(range(len(COLUMNS)))
    for number, (line, values) in enumerate(csv_rows(file)):
        lower = [v.lower() for v in values]
        if number == 0 and any(v in COLUMNS["path"] for v in lower) and any(v in COLUMNS["x1"] for v in lower):
            order = _order(config, file, lower)
        elif any(values):
            if max(order) >= len(values):
                yield line, f"{len(values)} fields"
                continue
            path, x1, y1, x2, y2, name = (values[i] for i in order)
            yield line, path, (x1, y1, x2, y2), name


def _order(config: DatasetConfig, file: Path, header: list[str]) -> list[int]:
    order = []
    for column, known in COLUMNS.items():
        places = [header.index(k) for k in known if k in header]
        if not places:
            raise UserError(f"{config.name}: {file}: no column {column}; its header may call it {', '.join(known)}")
        order.append(places[0])
    return order


def read_csv(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """Read one file. Class names: `names` of the config, else all that occur in any file of the set, sorted."""
    file, all_files = _files(config)
    occurring = {row[3] for f in all_files for row in _rows(config, f) if len(row) == 4} - {""}
    names = class_names(config, config.names or sorted(occurring), str(file), faults)
    labels = {name: i for i, name in enumerate(names)}
    folders = image_folders(config, config.split or file.stem.removesuffix("_labels"), file.parent)
    collector = Collector(faults, exif=config.exif)
    source = collector.source(str(file))
    images: dict[str, int | None] = {}
    for row in _rows(config, file):
        where = f"{file}:{row[0]}"
        if len(row) == 2 or not row[1]:
            faults.add("malformed row", where, row[1] or "no path")
            continue
        line, path, corners, name = row
        if path not in images:
            images[path] = collector.image(image_path(path, folders), where)
        image = images[path]
        if image is None or not any((*corners, name)):
            continue
        try:
            x1, y1, x2, y2 = map(float, corners)
        except ValueError:
            faults.add("malformed row", where, ",".join(corners))
            continue
        box: Box = (x1, y1, x2, y2)
        if name in labels:
            collector.row(image, source, line, box, labels[name])
        else:
            faults.add("unknown class", where, repr(name))
    return collector.table(config.name, config.root, names)
