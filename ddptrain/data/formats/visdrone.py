"""VisDrone-DET: one text file per image, `left,top,width,height,score,category,truncation,occlusion` a row.

Category 0 is an ignore region without a class, score 0 a box that the benchmark does not count, category 11 (`others`)
is ignored unless the config says otherwise. Rows may end in a comma, lines in CRLF.
Source: github.com/VisDrone/VisDrone2018-DET-toolkit.
"""

from collections.abc import Iterator
from pathlib import Path

from ddptrain.config.data import DatasetConfig
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import IGNORE, Collector, line_of
from ddptrain.data.formats.fields import to_integer, to_number
from ddptrain.data.formats.files import dataset_root, files_by_stem, find_folder, images_by_stem, no_split, visible
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.system.printable import counted

NAMES = ("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor", "others")
"""Categories 1 to 11."""
PREFIX = "VisDrone2019-DET-"


def split_folder(config: DatasetConfig, prefix: str) -> str:
    """Folder of the split relative to the root: `<prefix><split>`, `<split>`, or the root itself without a split."""
    root = dataset_root(config)
    if config.split is None:
        if (root / (config.annotations or "annotations")).is_dir():
            return "."
    else:
        for folder in (f"{prefix}{config.split}", config.split):
            if (root / folder).is_dir():
                return folder
    raise no_split(config, visdrone_splits(root, prefix))


def visdrone_splits(root: Path, prefix: str) -> list[str]:
    """The splits of a set: folders that hold `annotations`, without the prefix; those of the sister task (DET beside
    VID) left out."""
    names = [p.parent.name for p in visible(root, "*/annotations")]
    return [n.removeprefix(prefix) for n in names if n.startswith(prefix) or not n.startswith("VisDrone")]


def add_visdrone_row(collector: Collector, image: int, source: int, line: int, fields: list[str]) -> None:
    """Add `left, top, width, height, score, category` of one row, or count what is wrong with it."""
    try:
        left, top, width, height, score = map(to_number, fields[:5])
        category = to_integer(fields[5])
        if score not in (0, 1):
            raise ValueError(f"score {fields[4]}; must be 0 or 1, for these are labels, not what a detector found")
    except ValueError as e:
        collector.faults.add("malformed row", line_of(collector.sources[source], line), f"{','.join(fields)}: {e}")
        return
    if not 0 <= category <= len(NAMES):
        where = line_of(collector.sources[source], line)
        collector.faults.add("unknown class", where, f"category {category}; must be from 0 to {len(NAMES)}")
        return
    # `others` always have score 0; they are ignored by name, so that a config can still rename them to a class
    ignored = category == 0 or (score == 0 and category < len(NAMES))
    box = (left, top, left + width, top + height)
    collector.row(image, source, line, box, category - 1, IGNORE if ignored else 0)


def read_visdrone(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """Read one split. An image without its text file and a text file without its image are faults."""
    names = class_names(config, NAMES, "VisDrone-DET", faults)
    folder = split_folder(config, PREFIX)
    annotations = find_folder(config, config.annotations, "annotations", [f"{folder}/annotations"])
    images_folder = find_folder(config, config.images, "images", [f"{folder}/images"])
    images = images_by_stem(images_folder, faults)
    collector = Collector(config, faults)
    texts = {stem: Path(p) for stem, p in files_by_stem(annotations, {".txt"}, faults, deep=False).items()}
    for stem in sorted(texts.keys() - images.keys()):
        faults.add("label without image", str(texts[stem]), f"no image {stem} in {images_folder}")
        for number, _ in readable_rows(texts[stem], faults) or []:
            faults.add("box of an image left out", f"{texts[stem]}:{number}", f"no image {stem}")
    for stem, path in images.items():
        if stem not in texts:
            faults.add("image without label", path, f"{annotations / stem}.txt does not exist")
            continue
        image = collector.image(path, str(texts[stem]))
        if image is not None:
            _add_file(collector, image, texts[stem])
    return collector.table(names, ignored_names=names[-1:])


def _add_file(collector: Collector, image: int, path: Path) -> None:
    source, rows = collector.source(str(path)), readable_rows(path, collector.faults)
    if rows is None:
        collector.leave_out(image)
    for number, fields in rows or []:
        if len(fields) != 8:
            collector.faults.add("malformed row", f"{path}:{number}", f"{counted(len(fields), 'field')}; a row must have 8")
        else:
            add_visdrone_row(collector, image, source, number, fields)


def readable_rows(path: Path, faults: Faults) -> list[tuple[int, list[str]]] | None:
    """`numbered_rows` of a file; None and a fault where it cannot be opened."""
    try:
        return list(numbered_rows(path))
    except OSError as e:
        faults.add("unreadable label", str(path), str(e.strerror))
        return None


def numbered_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each row that is not blank, without its trailing comma."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        if line.strip():
            yield number, [f.strip() for f in line.strip().rstrip(",").split(",")]
