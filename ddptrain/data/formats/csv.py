"""CSV, one box a row: `path, x1, y1, x2, y2, class` in pixels, or any order under a header that names the columns; in place
of x2 and y2 also `width` and `height`, with the centre (`x_center`, `y_center`) in place of x1 and y1.

A row with a path and nothing else is an image without boxes. Fields are separated by commas, semicolons or tabs.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from ddptrain.config.data import HoldoutDataset
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import Box, Collector
from ddptrain.data.formats.fields import is_number, to_number
from ddptrain.data.formats.files import (
    annotation_file,
    dataset_root,
    image_folders,
    image_path,
    is_image,
    report_unlisted,
    visible,
)
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError
from ddptrain.system.printable import counted, unguarded

COLUMNS = {
    "path": ("path", "filename", "file_name", "file", "image", "image_path", "image_name", "img"),
    "x1": ("x1", "xmin", "x_min", "left"),
    "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "class": ("class", "label", "name", "category", "class_name"),
}
"""Each column and the names that a header may give it. Without a header the columns stand in this order."""
SEPARATORS = ",;\t"
LOOKED_AT = 20
"""Lines by which the separator is chosen."""
ENDS = ("path", "class")
CORNERS = {k: v for k, v in COLUMNS.items() if k not in ENDS}
SIZE = {"width": ("width", "w", "box_width", "bbox_width"), "height": ("height", "h", "box_height", "bbox_height")}
CENTRE = {
    "x_center": ("x_center", "xcenter", "center_x", "x_centre", "cx", "xc"),
    "y_center": ("y_center", "ycenter", "center_y", "y_centre", "cy", "yc"),
}
LAYOUTS: tuple[tuple[dict[str, tuple[str, ...]], Callable[[float, float, float, float], Box]], ...] = (
    (CORNERS, lambda x1, y1, x2, y2: (x1, y1, x2, y2)),
    ({"x1": CORNERS["x1"], "y1": CORNERS["y1"], **SIZE}, lambda x, y, w, h: (x, y, x + w, y + h)),
    ({**CENTRE, **SIZE}, lambda x, y, w, h: (x - w / 2, y - h / 2, x + w / 2, y + h / 2)),
)
"""The columns that a box may have, and the box of their numbers."""
IMAGE_SIZE = {"width": ("image_width", "img_width"), "height": ("image_height", "img_height")}
"""Columns of the image's size; beside corners, `width` and `height` are also it, unless they are the box's."""


class Row(NamedTuple):
    """One row of the file; `numbers` are the texts of four columns of a layout, `size` those of the image's width and
    height."""

    line: int
    path: str
    numbers: tuple[str, ...]
    name: str
    box: Callable[[float, float, float, float], Box]
    size: list[str]

    def image_size(self) -> tuple[int, int] | None:
        """(width, height) that the row claims for its image; None where it has none, or those of its box."""
        try:
            width, height = map(to_number, self.size)
            x1, y1, x2, y2 = self.box(*map(to_number, self.numbers))
            of_box = abs(width - (x2 - x1)) <= 1 and abs(height - (y2 - y1)) <= 1
            return None if of_box or min(width, height) <= 0 else (int(width), int(height))
        except (ValueError, OverflowError):
            return None


def csv_files(config: HoldoutDataset) -> list[tuple[str, Path]]:
    """The files with their splits: `<split>.csv` or `<split>_labels.csv` in the root, `annotations` or `labels`; or
    `<split>/_annotations.csv`, as Roboflow writes it. Of several of one split the last one is taken."""
    root = dataset_root(config)
    files = [p for folder in (".", "annotations", "labels") for p in visible(root / folder, "*.csv")]
    exported = [(p.parent.name, p) for p in visible(root, "*/_annotations.csv")]
    return exported + [(p.stem.removesuffix("_labels"), p) for p in reversed(files)]


def csv_splits(config: HoldoutDataset) -> list[str]:
    """The splits of a set."""
    return list(dict(csv_files(config)))


def _rows(config: HoldoutDataset, file: Path, faults: Faults) -> Iterator[Row]:
    """The rows of the right length; the others are faults."""
    places, sizes, box, due, headed = list(range(len(COLUMNS))), list[int](), LAYOUTS[0][1], len(COLUMNS), False
    for count, (line, values) in enumerate(csv_rows(file)):
        if count == 0 and is_header(values):
            where = f"{config.name}: {file}:{line}"
            places, box = _columns(values, where, faults)
            sizes, due, headed = _size_columns(values, box is LAYOUTS[0][1], where, faults), len(values), True
            continue
        path = values[places[0]] if places[0] < len(values) else ""
        short = len(values) < due and sum(map(bool, values)) > 1  # a path alone is an image without boxes
        if not path:
            faults.add("malformed row", f"{file}:{line}", "no path")
        elif short or (any(values[due:]) and (headed or is_number(values[places[5]]))):
            faults.add("malformed row", f"{file}:{line}", f"{counted(len(values), 'field')}; a row must have {due}")
        else:
            padded = values + [""] * (due - len(values))
            numbers = itemgetter(*places[1:5])(padded)
            yield Row(line, path, numbers, padded[places[5]], box, [padded[i] for i in sizes])


def _columns(header: list[str], where: str, faults: Faults) -> tuple[list[int], Callable[[float, float, float, float], Box]]:
    """Places of path, four numbers and class, and the box of the numbers."""
    path, name = required(header, {k: COLUMNS[k] for k in ENDS}, where, faults)
    for columns, box in LAYOUTS:
        if all(find_column(header, names, where, faults) is not None for names in columns.values()):
            return [path, *required(header, columns, where, faults), name], box
    if {"x", "y"} <= set(map(plain, header)):
        raise UserError(
            f"{where}: x and y in the header {', '.join(header)} may be a corner or the centre; call them left and top, or"
            " x_center and y_center, beside width and height, or give x1, y1, x2, y2"
        )
    return [path, *required(header, CORNERS, where, faults), name], LAYOUTS[0][1]


def _size_columns(header: list[str], corners: bool, where: str, faults: Faults) -> list[int]:
    """Places of the image's width and height; empty where there are none."""
    choices = [(*names, *([key] if corners else [])) for key, names in IMAGE_SIZE.items()]
    places = [find_column(header, names, where, faults) for names in choices]
    return [place for place in places if place is not None] if None not in places else []


def read_csv(config: HoldoutDataset, faults: Faults) -> AnnotationTable:
    """Read one file. Class names: `names` of the config, else all that occur in any file of the set, sorted."""
    files = csv_files(config)
    file = annotation_file(config, files, "CSV", faults)
    all_files = list(dict(files).values()) if config.annotations is None else [file]  # the classes of all are those of the set
    occurring = {unguarded(row.name) for f in all_files for row in _rows(config, f, Faults())} - {""}
    names = class_names(config, config.names or sorted(occurring), str(file), faults)
    labels = {name: i for i, name in enumerate(names)}
    folders = image_folders(config, config.split or file.stem.removesuffix("_labels"), file.parent)
    collector = Collector(config, faults, within=(config.root, *folders))
    source = collector.source(str(file))
    images: dict[str, int | None] = {}
    for row in _rows(config, file, faults):
        where = f"{file}:{row.line}"
        if row.path not in images:
            path = image_path(unguarded(row.path), folders)
            known = collector.known(path)
            images[row.path] = collector.image(path, where, row.image_size()) if known is None else known
        image, name = images[row.path], unguarded(row.name)
        if image is None or not any((*row.numbers, name)):
            continue
        try:
            x, y, a, b = map(to_number, row.numbers)
        except ValueError as e:
            faults.add("malformed row", where, str(e))
            continue
        if name in labels:
            collector.row(image, source, row.line, row.box(x, y, a, b), labels[name])
        else:
            faults.add("unknown class", where, f"{name!r} is not listed in names")
    report_unlisted(config, folders[0], len(all_files) == 1, collector.paths, faults)
    return collector.table(names)


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, stripped fields) of each row that is not blank; `UserError` where the file is not a CSV in UTF-8. Fields are
    separated by commas, semicolons or tabs, whichever makes most of the first lines."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            separator = max(SEPARATORS, key=lambda s: _fields(path, s))
            reader = csv.reader(text, delimiter=separator)
            for fields in reader:
                if reader.line_num == 1 and separator.join(fields) == f"sep={separator}":  # a line for spreadsheets
                    continue
                if "\n" in "".join(fields):
                    raise UserError(f"{path}:{reader.line_num}: a quote is not closed on its line; close or double it")
                stripped = [f.strip() for f in fields]
                if any(stripped):
                    yield reader.line_num, stripped
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path} is not a CSV in UTF-8: {e}; save it as CSV in UTF-8") from e


def _fields(path: Path, separator: str) -> tuple[bool, int]:
    """Whether a field of the first lines names an image or the column of images, and the number of fields of the first."""
    with path.open(newline="", encoding="utf-8-sig") as text:
        rows = [r for r in islice(csv.reader(text, delimiter=separator), LOOKED_AT) if any(r)]
    known = any(is_image(f.strip()) or plain(f) in COLUMNS["path"] for r in rows for f in r)
    return known, len(rows[0]) if rows else 0


def plain(name: str) -> str:
    """A name of a header as it is compared."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def is_header(fields: Sequence[str]) -> bool:
    """Whether a first row holds names of columns: no number and no image."""
    return not any(is_image(f) or is_number(f) for f in fields)


def find_column(header: Sequence[str], names: Sequence[str], where: str, faults: Faults) -> int | None:
    """Place of the column that has one of these names, best first; None where there is none, `UserError` where two have the
    same."""
    plains = list(map(plain, header))
    matching = [n for n in names if n in plains]
    if not matching:
        return None
    if plains.count(matching[0]) > 1:
        raise UserError(f"{where}: column {matching[0]} is listed twice; remove one of them")
    if len(matching) > 1:
        faults.note(f"{where}: of the columns {', '.join(matching)} the first is taken")
    return plains.index(matching[0])


def required(header: Sequence[str], columns: Mapping[str, tuple[str, ...]], where: str, faults: Faults) -> list[int]:
    """Places of columns that must be there; `UserError` for one that is not."""
    places = []
    for column, names in columns.items():
        place = find_column(header, names, where, faults)
        if place is None:
            alone = "; fields must be separated by commas, semicolons or tabs" if len(header) == 1 else ""
            raise UserError(
                f"{where}: no column {column} in the header {', '.join(header)}; it may be called {', '.join(names)}{alone}"
            )
        places.append(place)
    return places
