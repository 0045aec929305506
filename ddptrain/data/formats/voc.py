"""Pascal VOC: `Annotations/*.xml`, `JPEGImages`, `ImageSets/Main/<split>.txt`; or both folders in a folder of each split.

Coordinates are taken as they stand (the benchmark's own files count from 1, most tools write from 0; the difference is
one pixel). `difficult` boxes become ignore regions that keep their class.
"""

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ddptrain.config.data import DatasetConfig
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import IGNORE, Box, Collector
from ddptrain.data.formats.fields import to_number
from ddptrain.data.formats.files import (
    dataset_root,
    files_by_stem,
    find_folder,
    folders_in,
    images_by_stem,
    is_image,
    no_split,
    visible,
)
from ddptrain.data.formats.texts import listed_names
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError

ANNOTATIONS = ("Annotations", "annotations", "Annotation", "annotation")
IMAGES = ("JPEGImages", "images", "Images", "jpegimages", "JpegImages")
LISTS = ("ImageSets/Main", "ImageSets")
_ENCODING = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {"": False, "0": False, "1": True, "false": False, "true": True}


class VocObject(NamedTuple):
    """One object: its place in the file, its box, and what keeps it from being read (empty: nothing)."""

    number: int
    name: str
    box: Box
    difficult: bool
    wrong: str


@dataclass(frozen=True)
class VocFile:
    """One parsed file: its path, the image's name and (width, height) as claimed, and its objects."""

    path: str
    filename: str
    size: tuple[int, int] | None
    objects: list[VocObject]


def parse_voc(path: str) -> VocFile:
    """Parse one file; raises `ElementTree.ParseError` or `ValueError` where it is not readable XML."""
    tree = _tree(path)
    size = None
    try:
        width, height = (int(float(tree.findtext(f"size/{k}") or 0)) for k in ("width", "height"))
        size = (width, height) if width > 0 and height > 0 else None
    except (ValueError, OverflowError):
        pass  # a size that is not a number claims nothing; the image's own size is used
    objects = [_object(number, item) for number, item in enumerate(tree.iterfind("object"))]
    if not objects and any(str(item.tag).rpartition("}")[2] == "object" for item in tree.iter()):
        raise ValueError(f"its root is <{tree.tag}> and no <object> lies right in it; must be <annotation> without xmlns")
    return VocFile(path, (tree.findtext("filename") or "").strip(), size, objects)


def _object(number: int, item: ElementTree.Element) -> VocObject:
    inside = item.find("bndbox")
    parts = [*item] if inside is None else [*item, *inside]
    texts = {part.tag: part.text or "" for part in parts}
    corners = [texts[corner] for corner in CORNERS if corner in texts]
    flag = texts.get("difficult", "").strip().lower()
    wrong, box = "", (0.0,) * 4
    if len(texts) < len(parts):
        tags = [part.tag for part in parts]
        twice = [tag for tag in ("bndbox", "name", "difficult", *CORNERS) if tags.count(tag) > 1]
        wrong = f"{twice[0]} is given twice in one object" if twice else ""
    if len(corners) < len(CORNERS):
        wrong = wrong or "no bndbox with four corners"
    elif flag not in FLAGS:
        wrong = wrong or f"difficult is {texts['difficult'].strip()!r}; must be 0 or 1"
    try:
        x1, y1, x2, y2 = map(to_number, corners)
        box = x1, y1, x2, y2
    except ValueError as e:
        wrong = wrong or f"bndbox {' '.join(corners)}: {e}"
    return VocObject(number, texts.get("name", "").strip(), box, FLAGS.get(flag, False), wrong)


def _tree(path: str) -> ElementTree.Element:
    """The root of a file in any encoding that Python knows; the parser itself knows only a few."""
    try:
        return ElementTree.parse(path).getroot()
    except (LookupError, ValueError, ElementTree.ParseError) as e:
        data = Path(path).read_bytes()
        declared = _ENCODING.match(data)
        if declared is None:
            raise
        encoding = declared[1].decode("ascii")
        try:
            text = data.decode(encoding)
        except LookupError:
            raise ValueError(f"its encoding {encoding!r} is unknown; save it in UTF-8 and declare that") from None
        except UnicodeDecodeError:
            raise ValueError(f"it is not in {encoding}, which it declares; declare the encoding that it has") from None
        if isinstance(e, ElementTree.ParseError) and "encoding" not in str(e):
            raise
        return ElementTree.fromstring(text[text.index("?>") + 2 :])


def object_line(source: str, number: int) -> str:
    """`file:line` of the n-th object; the parser keeps no lines, so the file is read again where a fault is reported."""
    text = Path(source).read_text(encoding="utf-8", errors="replace")
    for i, match in enumerate(re.finditer(r"<object[\s>]", text)):
        if i == number:
            return f"{source}:{text.count(chr(10), 0, match.start()) + 1}"
    return source


def voc_lists(config: DatasetConfig) -> dict[str, Path]:
    """The list of each split in `ImageSets/Main`, without those of single classes (`car_train` beside `train`)."""
    root = dataset_root(config)
    folder = next((root / f for f in LISTS if visible(root / f, "*.txt")), root / LISTS[0])
    lists = {p.stem: p for p in visible(folder, "*.txt")}
    return {s: p for s, p in lists.items() if not any(s.endswith(f"_{other}") for other in lists)}


def voc_splits(config: DatasetConfig) -> list[str]:
    """The splits that have a list; without lists, those that have a folder of their own with annotations in it."""
    return list(voc_lists(config)) or _split_folders(config)


def _split_folders(config: DatasetConfig) -> list[str]:
    root = dataset_root(config)
    if config.annotations is not None or any((root / f).is_dir() for f in ANNOTATIONS):
        return []
    folders = [root / name for name in folders_in(root)]
    return [f.name for f in folders if visible(f, "*.[xX][mM][lL]") or any((f / a).is_dir() for a in ANNOTATIONS)]


def _stems(config: DatasetConfig, lists: dict[str, Path], parsed: Container[str]) -> list[tuple[str, str]]:
    """(stem, who named it) of each image in the list of the split."""
    if config.split not in lists:
        raise no_split(config, lists)
    stems = []
    for entry, where in listed_names(lists[config.split]):
        # other tools write paths; lists per class end in 1, 0 or -1, and so may a name
        written = [_tails(text) for text in (entry, re.sub(r"\s+-?[01]$", "", entry))]
        stems.append((next((tail for tails in written for tail in tails if tail in parsed), written[-1][0]), where))
    return stems


def _tails(entry: str) -> list[str]:
    """The path of an entry without suffix, and without its first folders, one after the other."""
    stem = entry.replace("\\", "/")
    parts = (os.path.splitext(stem)[0] if is_image(stem) else stem).split("/")
    return ["/".join(parts[k:]) for k in range(len(parts))]


def parse_folder(annotations: Path, faults: Faults) -> dict[str, VocFile | None]:
    """Every XML file below the folder by its path without suffix, sorted; None where it is not XML."""
    parsed: dict[str, VocFile | None] = {}
    for stem, path in files_by_stem(annotations, {".xml"}, faults).items():
        try:
            parsed[stem] = parse_voc(path)
        except (ElementTree.ParseError, ValueError, OSError) as e:
            parsed[stem] = None
            line = getattr(e, "position", (1, 0))[0]
            faults.add("unreadable label", f"{path}:{line}", " ".join(str(e).split()))
    return parsed


def _folders(config: DatasetConfig, part: Path) -> tuple[Path, Path]:
    """The folders of annotations and of images in the root or in the folder of a split; both are that one where XML files
    lie right in it."""
    beside = [str(part)] if visible(dataset_root(config) / part, "*.[xX][mM][lL]") else []
    usual = ([*(str(part / name) for name in names), *beside] for names in (ANNOTATIONS, IMAGES))
    annotations = find_folder(config, config.annotations, "annotations", next(usual))
    return annotations, find_folder(config, config.images, "images", next(usual))


def read_voc(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """Read one split. Class names: `names` of the config, else all that occur in any annotation file, sorted: a class
    that occurs only in another split is still one that the dataset labels."""
    lists, parts = voc_lists(config), _split_folders(config)
    if parts and not lists and config.split not in parts:
        raise no_split(config, parts)
    if config.split is not None and not lists and not parts:
        raise no_split(config, ())
    own = Path(config.split or "") if parts and not lists else Path()
    annotations, images_folder = _folders(config, own)
    parsed = parse_folder(annotations, faults)
    every = [(stem, file.path if file else "") for stem, file in parsed.items()]
    stems = _stems(config, lists, parsed) if lists else every
    files = list(parsed.values())
    for other in (p for p in parts if not lists and p != config.split):
        files += parse_folder(_folders(config, Path(other))[0], Faults()).values()
    occurring = sorted({o.name for f in files if f for o in f.objects if o.name})
    if not occurring and config.names is None:
        raise _no_class(config, annotations, parsed, faults)
    names = class_names(config, config.names or occurring, str(annotations), faults)
    collector = Collector(config, faults, place=object_line)
    known = add_files(collector, stems, parsed, (annotations, images_folder), names)
    if not lists:
        for path in sorted(set(images_by_stem(images_folder, Faults(), deep=True).values()) - known):
            faults.add("image without label", path, f"no XML file of its name in {annotations}")
    return collector.table(names)


def _no_class(config: DatasetConfig, annotations: Path, parsed: dict[str, VocFile | None], faults: Faults) -> UserError:
    """What is wrong with a set in whose files no object was found."""
    first = next(faults.errors(), None)
    if first is not None:
        return UserError(
            f"{config.name}: {first}; {faults.counts[first.kind]} of {len(parsed)} files cannot be read; correct them"
        )
    what = f"no object in any of the {len(parsed)} XML files" if parsed else "no XML file"
    return UserError(f"{config.name}: {what} of {annotations}; give the right folder as annotations")


def add_files(
    collector: Collector,
    stems: Iterable[tuple[str, str]],
    parsed: dict[str, VocFile | None],
    folders: tuple[Path, Path],
    names: tuple[str, ...],
) -> set[str]:
    """Add the images of `stems` (with who named each) and their objects; returns the images' paths. `folders`: annotations
    and images. An image has the path of its XML file, or else the name that stands in it."""
    annotations, images_folder = folders
    images = images_by_stem(images_folder, collector.faults, deep=True)
    labels = {name: i for i, name in enumerate(names)}
    unread, added = set[str](), set[str]()
    for stem, named_by in stems:
        file = parsed.get(stem)
        if stem not in parsed:
            collector.faults.add("image without label", named_by, f"{annotations / stem}.xml does not exist")
        if file is None:
            unread.add(images.get(stem, ""))
            continue
        path = images.get(stem) or images.get(os.path.splitext(file.filename)[0], f"{images_folder / stem}.jpg")
        known = None if stem in added else collector.known(path)
        if known is not None:
            collector.faults.add("repeated entry of an image", file.path, f"{path} belongs to another XML file")
        image = collector.image(path, named_by, file.size) if known is None else known
        if image is not None:
            _add_objects(collector, image, file, labels)
        added.add(stem)
    return unread | set(collector.paths)


def _add_objects(collector: Collector, image: int, file: VocFile, labels: dict[str, int]) -> None:
    source = collector.source(file.path)
    for number, name, box, difficult, wrong in file.objects:
        if wrong or name not in labels:
            fault = ("malformed row", wrong) if wrong else ("unknown class", f"{name!r} is not listed in names")
            collector.faults.add(fault[0], object_line(file.path, number), fault[1])
        else:
            collector.row(image, source, number, box, labels[name], IGNORE if difficult else 0)
