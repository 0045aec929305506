"""YOLO text files, found through a data.yaml, Darknet's obj.data, lists of images, or folders alone. Coordinates are fractions
of the image:

    class cx cy w h                  a box
    class cx cy w h x y [v] …        with key points, where data.yaml has kpt_shape: its box
    class x1 y1 x2 y2 x3 y3 …        a polygon, or the four corners of a rotated box: its bounding box

An image without a text file is background, as the format means it; a text file without an image is a fault.
"""

import os
from collections import Counter
from pathlib import Path

from ddptrain.config.data import DatasetConfig
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import Collector
from ddptrain.data.formats.data_yaml import DataYaml, load_data_yaml, load_obj_data, resolve_split
from ddptrain.data.formats.files import dataset_root, folders_in, images_below, is_image, locate, no_split, visible
from ddptrain.data.formats.texts import listed_names, read_text, text_lines
from ddptrain.data.formats.yolo_labels import LabelFiles, LabelRows, label_path
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError
from ddptrain.system.printable import counted

NAMES_FILES = ("classes.txt", "obj.names", "data.names")


def description(config: DatasetConfig, root: Path) -> DataYaml | None:
    """The YAML file that `annotations` names, or `data.yaml`, or the only one in the root; else Darknet's `obj.data`."""
    if config.annotations is not None and config.annotations.endswith((".yaml", ".yml")):
        if not (root / config.annotations).is_file():
            raise UserError(f"{config.name}: annotations {root / config.annotations} is not a file")
        return load_data_yaml(root / config.annotations)
    files = sorted(p for suffix in ("*.yaml", "*.yml") for p in visible(root, suffix))
    chosen = [p for p in files if p.stem == "data"] or files
    if len(chosen) > 1:
        shown = ", ".join(p.name for p in chosen)
        raise UserError(f"{config.name}: {root} has several YAML files: {shown}; give the right one as annotations")
    if chosen:
        return load_data_yaml(chosen[0])
    return load_obj_data(root / "obj.data") if (root / "obj.data").is_file() else None


def image_sources(config: DatasetConfig, root: Path, data: DataYaml | None, faults: Faults) -> list[Path]:
    """Folders with images, or text files that list images, of the split."""
    if config.images is not None:
        if not (root / config.images).exists():
            raise UserError(f"{config.name}: images {root / config.images} does not exist; give it relative to {root}")
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
        existing = [source for source in _usual_sources(root, config.split) if source.exists()]
        for other in existing[1:]:
            faults.note(f"{existing[0]} is read, and not {other}; set images to that if it is intended")
        if existing:
            return existing[:1]
    raise no_split(config, [*splits, *_split_folders(root)])


def _usual_sources(root: Path, split: str) -> list[Path]:
    """Where the images of a split may be, or a list of them; the first that exists is taken."""
    return [root / split / "images", root / "images" / split, root / f"{split}.txt"]


def _split_folders(root: Path) -> list[str]:
    """The splits of the two layouts of folders, and the lists of images."""
    folders = [p.parent.name for p in visible(root, "*/images") if p.is_dir()]
    lists = [p.stem for p in visible(root, "*.txt") if is_image(next(iter(text_lines(p)), "").strip())]
    return folders + folders_in(root / "images") + lists


def yolo_splits(config: DatasetConfig) -> list[str]:
    """The splits of a set: those of its data.yaml, and labelled folders beside theirs (`test-dev`); else its folders."""
    root = dataset_root(config)
    data = description(config, root)
    if data is None or not data.splits:
        return _split_folders(root)
    sources = [p.resolve() for split in data.splits for p in resolve_split(data, split)]
    if not all(s.is_dir() for s in sources):  # the images of a list may lie in any folder
        return list(data.splits)
    others = [s for s in _split_folders(root) if s not in data.splits and _lies_beside(root, s, sources)]
    return [*data.splits, *others]


def _lies_beside(root: Path, split: str, sources: list[Path]) -> bool:
    """Whether a split has folders of images and labels of its own, neither in one of the sources nor around it."""
    folder = next((f.resolve() for f in _usual_sources(root, split) if f.is_dir()), root.resolve())
    labelled = os.path.isdir(os.path.dirname(label_path(str(folder / "image"))))
    return labelled and not any(folder == s or folder in s.parents or s in folder.parents for s in sources)


def _listed_images(source: Path, base: Path, faults: Faults, seen: set[str]) -> list[tuple[str, str, bool]]:
    """(image, who named it, whether it is there) of a folder, or of a text file with one path a line."""
    if source.is_dir():
        return [(p, p, True) for p in images_below(source, faults, seen=seen)]
    images, bases = [], list(dict.fromkeys((source.parent, base)))
    dropped: Counter[str] = Counter()
    for entry, where in listed_names(source):
        located = locate(entry, bases)
        if located and located.dropped:
            dropped[located.dropped] += 1
        images.append((located.path if located else str(source.parent / entry), where, located is not None))
    for folders, count in dropped.items():
        faults.note(f"{counted(count, 'path')} of {source} found below {bases[0]} without {folders}/ in front")
    if images and not any(exists for _, _, exists in images):
        looked = " and ".join(str(b / listed_names(source)[0][0]) for b in bases)
        raise UserError(
            f"{images[0][1]}: none of the {len(images)} images that it lists exists; looked for {looked}; give paths relative"
            f" to {bases[0]}, or put the images there"
        )
    return images


def _label_folder(config: DatasetConfig, root: Path) -> Path | None:
    """The folder that `annotations` names; None where it is not given or names a YAML file."""
    given = config.annotations
    return root / given if given is not None and not given.endswith((".yaml", ".yml")) else None


def _names(config: DatasetConfig, data: DataYaml | None, root: Path, faults: Faults) -> tuple[str, ...]:
    if data and data.names is not None:
        return class_names(config, data.names, str(data.file), faults)
    labels = _label_folder(config, root) or root / "labels"
    split, split_labels = root / (config.split or ""), [labels / config.split] if config.split else []
    for file in (
        f / name for f in (*split_labels, labels, labels.parent, root, split, split / "labels") for name in NAMES_FILES
    ):
        if file.is_file():
            lines = read_text(file).splitlines()
            return class_names(config, [n.strip() for n in lines if n.strip()], str(file), faults)
    if config.names is None:
        raise UserError(f"{config.name}: no data.yaml or classes.txt in {root} names the classes; give names")
    if data and data.content.get("nc") is not None:
        return class_names(config, ["" for _ in range(int(data.content["nc"]))], f"nc of {data.file}", faults)
    return class_names(config, config.names, "names", faults)


def read_yolo(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """Read one split. Class names: `names` of the config, else data.yaml, else classes.txt or obj.names."""
    root = dataset_root(config)
    data = description(config, root)
    names = _names(config, data, root, faults)
    sources = image_sources(config, root, data, faults)
    annotations = _label_folder(config, root)
    if annotations is not None and not annotations.is_dir():
        raise UserError(f"{config.name}: annotations {annotations} is not a directory; give it relative to {root}")
    bases = [root, *([data.base] if data else ()), *(s if s.is_dir() else s.parent for s in sources)]
    collector = Collector(config, faults, fractions=True, within=bases)
    rows = LabelRows(collector, len(names), data.first if data else 0, data.points if data else None)
    visited: set[str] = set()
    label_files = LabelFiles(faults, visited)
    unlabelled = []
    for source in sources:
        for path, named_by, exists in _listed_images(source, data.base if data else root, faults, visited):
            text = label_path(path)
            if annotations is not None:
                below = os.path.relpath(path, source) if source.is_dir() else os.path.basename(path)
                text = str(annotations / os.path.splitext(below)[0]) + ".txt"
            image = collector.image(path, named_by)
            file = label_files.find(text, path) if image is not None and exists else None
            if image is not None and file is not None:
                rows.add_file(image, file)
            elif image is not None and exists:
                unlabelled.append((path, text))
    if unlabelled and not label_files.used:
        path, text = unlabelled[0]
        raise UserError(
            f"{config.name}: none of its {len(unlabelled)} images has a text file; looked for {text}, the one of {path}; give"
            " the folder of the text files as annotations, relative to the root"
        )
    faults.looked_in |= {str(data.file.parent)} if data else set()
    faults.looked_in |= label_files.folders.keys()
    for path, text in unlabelled:
        faults.add("image without label file", path, f"background; {text} does not exist")
    if all(s.is_dir() for s in sources):
        label_files.report_orphans(os.path.dirname(label_path(str(s / "image"))) for s in sources if annotations is None)
    for reading, count in sorted(rows.read_as.items()):
        faults.note(f"{reading}: {count}")
    return collector.table(names)
