"""YOLO text files, `class cx cy w h` in fractions of the image (or `class x1 y1 x2 y2 x3 y3 …`, a polygon, read as
its bounding box), found through a data.yaml or through folders alone.

An image without a text file is background, as the format means it; a text file without an image is a fault.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddptrain.config.data import DatasetConfig
from ddptrain.config.text import parse_yaml
from ddptrain.data.faults import Faults
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import Collector
from ddptrain.data.formats.files import (
    dataset_root,
    files_below,
    folders_in,
    images_below,
    is_image,
    listed_names,
    no_split,
    read_text,
    visible,
)
from ddptrain.data.table import AnnotationTable
from ddptrain.errors import UserError

NAMES_FILES = ("classes.txt", "obj.names", "data.names")


@dataclass(frozen=True)
class DataYaml:
    """A data.yaml: `base` is what its paths are relative to; `splits` maps each key to its folders or list files."""

    file: Path
    base: Path
    names: tuple[str, ...] | None
    splits: dict[str, tuple[str, ...]]
    content: dict[str, Any]


def load_data_yaml(file: Path) -> DataYaml:
    """Parse a data.yaml; `UserError` where `nc` and `names` contradict each other or a value has no known form."""
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError:
        raise UserError(f"{file}: not valid YAML: it is not in UTF-8; save it as UTF-8") from None
    except OSError as e:
        raise UserError(f"{file}: cannot be read: {e.strerror}") from e
    if not isinstance(content, dict):
        raise UserError(f"{file}: must be a mapping with train, val and names")
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{file}: names must number its classes 0 to {len(names) - 1} without a gap")
        names = [names[i] for i in range(len(names))]
    if names is not None and not isinstance(names, list):
        raise UserError(f"{file}: names must be a list, or a mapping from number to name")
    if names is not None and count is not None and count != len(names):
        raise UserError(f"{file}: nc is {count} and names has {len(names)} classes; correct one of them")
    splits = {}
    for key in ("train", "val", "test"):
        value = content.get(key)
        parts = value if isinstance(value, list) else [value] if value else []
        if not all(isinstance(p, str) for p in parts):
            raise UserError(f"{file}: {key} must be a path or a list of paths")
        if parts:
            splits[key] = tuple(parts)
    base = file.parent / str(content.get("path") or "")
    return DataYaml(file, base, None if names is None else tuple(map(str, names)), splits, content)


def resolve_split(data: DataYaml, key: str) -> list[Path]:
    """The folders or list files of a split."""
    return resolve_paths(data, key, data.splits[key])


def resolve_paths(data: DataYaml, key: str, entries: Iterable[str]) -> list[Path]:
    """Paths of a data.yaml. `path` and the entries may be relative to the data.yaml's folder or to `path`; an export by
    Roboflow writes `../train/images` for `train/images`, which is tried last."""
    found = []
    for entry in entries:
        stripped = entry.removeprefix("../")
        tried = [data.base / entry, data.file.parent / entry, data.base / stripped, data.file.parent / stripped]
        there = [p for p in tried if p.exists()]
        if not there:
            raise UserError(f"{data.file}: {key}: {tried[0]} is not there; correct {key} or path")
        found.append(there[0])
    return found


def _data_yaml(config: DatasetConfig, root: Path) -> DataYaml | None:
    """The YAML file that `annotations` names, or `data.yaml`, or the only one in the root."""
    if config.annotations is not None and config.annotations.endswith((".yaml", ".yml")):
        if not (root / config.annotations).is_file():
            raise UserError(f"{config.name}: annotations {root / config.annotations} is no file")
        return load_data_yaml(root / config.annotations)
    files = sorted(p for suffix in ("*.yaml", "*.yml") for p in visible(root, suffix))
    chosen = [p for p in files if p.stem == "data"] or files
    return load_data_yaml(chosen[0]) if len(chosen) == 1 else None


def _sources(config: DatasetConfig, root: Path, data: DataYaml | None) -> list[Path]:
    """Folders with images, or text files that list images, of the split."""
    if config.images is not None:
        if not (root / config.images).exists():
            raise UserError(f"{config.name}: images {root / config.images} is not there; give it relative to {root}")
        return [root / config.images]
    splits = data.splits if data else {}
    if config.split is None:
        if (root / "images").is_dir() and any(map(is_image, os.listdir(root / "images"))):
            return [root / "images"]
    elif data and config.split in splits:
        if config.split == "train" and "train_weights" in data.content:
            raise UserError(
                f"{config.name}: {data.file} has train_weights, which belong to a mixture; give each folder of its train as a"
                f" dataset of its own, with images and a share (ddptrain config --data {data.file} writes them)"
            )
        return resolve_split(data, config.split)
    else:
        for folder in (root / config.split / "images", root / "images" / config.split):
            if folder.is_dir():
                return [folder]
    raise no_split(config, [*splits, *_split_folders(root)])


def _split_folders(root: Path) -> list[str]:
    """The splits of the two layouts of folders."""
    folders = [p.parent.name for p in visible(root, "*/images") if p.is_dir()]
    return folders + folders_in(root / "images")


def yolo_keys(config: DatasetConfig) -> list[str]:
    """The splits of a set: the keys of its data.yaml, else its folders; a folder may have two names otherwise."""
    root = dataset_root(config)
    data = _data_yaml(config, root)
    return list(data.splits) if data and data.splits else _split_folders(root)


def _listed_images(source: Path, base: Path, faults: Faults, seen: set[str]) -> list[tuple[str, str]]:
    """(image, who named it) of a folder, or of a text file with one path a line."""
    if source.is_dir():
        return [(p, p) for p in images_below(source, faults, seen=seen)]
    found = []
    for entry, where in listed_names(source):
        tried = [source.parent / entry, base / entry]
        there = [p for p in tried if p.exists()] or tried
        found.append((str(there[0]), where))
    return found


def label_path(image: str) -> str:
    """The text file of an image: the last folder `images` in its path becomes `labels`; without one, beside it."""
    folder, file = os.path.split(image)
    parts = folder.split(os.sep)
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return os.path.join(os.sep.join(parts), os.path.splitext(file)[0] + ".txt")


def _label_folder(config: DatasetConfig, root: Path) -> Path | None:
    """The folder that `annotations` names; None where it is not given or names a YAML file."""
    given = config.annotations
    return root / given if given is not None and not given.endswith((".yaml", ".yml")) else None


def _names(config: DatasetConfig, data: DataYaml | None, root: Path, faults: Faults) -> tuple[str, ...]:
    if data and data.names is not None:
        return class_names(config, data.names, str(data.file), faults)
    labels = _label_folder(config, root)
    near = [labels, labels.parent] if labels else []
    for file in (folder / name for folder in [*near, root] for name in NAMES_FILES):
        if file.is_file():
            lines = read_text(file).splitlines()
            return class_names(config, [n.strip() for n in lines if n.strip()], str(file), faults)
    if config.names is None:
        raise UserError(f"{config.name}: no data.yaml or classes.txt in {root} names the classes; give names")
    if data and isinstance(data.content.get("nc"), int):
        return class_names(config, ["" for _ in range(data.content["nc"])], f"nc of {data.file}", faults)
    return class_names(config, config.names, "names", faults)


def read_yolo(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """Read one split. Class names: `names` of the config, else data.yaml, else classes.txt or obj.names."""
    root = dataset_root(config)
    data = _data_yaml(config, root)
    names = _names(config, data, root, faults)
    sources = _sources(config, root, data)
    annotations = _label_folder(config, root)
    if annotations is not None and not annotations.is_dir():
        raise UserError(f"{config.name}: annotations {annotations} is no folder; give it relative to {root}")
    collector = Collector(faults, fractions=True, exif=config.exif)
    labels: set[str] = set()
    folders: set[str] = {str(annotations)} if annotations is not None else set()
    seen: set[str] = set()
    unlabelled = []
    for source in sources:
        for path, told_by in _listed_images(source, data.base if data else root, faults, seen):
            text = label_path(path)
            if annotations is not None:
                below = os.path.relpath(path, source) if source.is_dir() else os.path.basename(path)
                text = str(annotations / os.path.splitext(below)[0]) + ".txt"
            folders.add(os.path.dirname(text))
            image = collector.image(path, told_by)
            if image is None:
                continue
            if os.path.exists(text):
                labels.add(text)
                _add_file(collector, image, text, len(names))
            else:
                unlabelled.append(path)
    if unlabelled and not labels:
        looked = label_path(unlabelled[0]) if annotations is None else str(annotations)
        raise UserError(f"{config.name}: none of its {len(unlabelled)} images has a text file; looked for {looked}")
    faults.looked_in |= folders
    for path in unlabelled:
        faults.add("no label file", path, "background")
    if all(s.is_dir() for s in sources):
        _find_orphans(folders, labels, faults)
    return collector.table(config.name, config.root, names)


def _find_orphans(folders: set[str], labels: set[str], faults: Faults) -> None:
    """Count text files with boxes that belong to no image. Not for lists of images, which may leave images out on
    purpose; and notes or lists that lie among the labels are none."""
    for folder in sorted(f for f in folders if os.path.isdir(f)):
        for path in files_below(Path(folder), {".txt"}, faults, deep=False):
            if path not in labels and _has_rows(path):
                faults.add("label without image", path, "no image of this name")


def _has_rows(path: str) -> bool:
    """Whether the first line of a text file is a box."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        fields = file.readline().split()
    return len(fields) >= 5 and all(re.fullmatch(r"[-+.\deE]+", f) for f in fields)


def _add_file(collector: Collector, image: int, path: str, classes: int) -> None:
    source = collector.source(path)
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            fields = line.split()
            if not fields:
                continue
            try:
                values = [float(f) for f in fields]
            except ValueError:
                collector.faults.add("malformed row", f"{path}:{number}", line.strip())
                continue
            if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
                what = f"{len(values)} fields where 5 are due (class cx cy w h), or a class and three or more points"
                collector.faults.add("malformed row", f"{path}:{number}", what)
            elif values[0] not in range(classes):
                what = f"{fields[0]}; allowed are 0 to {classes - 1}"
                collector.faults.add("unknown class", f"{path}:{number}", what)
            else:
                box = _polygon_box(values[1:]) if len(values) > 5 else _centre_box(*values[1:])
                collector.row(image, source, number, box, int(values[0]))


def _centre_box(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def _polygon_box(points: list[float]) -> tuple[float, float, float, float]:
    xs, ys = points[0::2], points[1::2]
    # a sum is not finite where one of its terms is not; min and max would hide it
    hidden = sum(points) * 0
    return min(xs) + hidden, min(ys) + hidden, max(xs), max(ys)
