"""The label files of a YOLO set: the one of each image, and what its rows hold."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ddptrain.data.formats.collect import Box, Collector
from ddptrain.data.formats.files import files_by_stem
from ddptrain.data.formats.texts import text_lines
from ddptrain.data.tables.faults import Faults
from ddptrain.system.printable import counted

KEY_POINTS = "rows with key points, read as the box in front of them"
CORNERS = "rows of four points (rotated boxes or polygons), read as their bounding boxes"
POLYGON = "polygons, read as their bounding boxes (rows with key points need kpt_shape in data.yaml)"


def label_path(image: str) -> str:
    """The text file of an image: the last folder `images` in its path becomes `labels`; without one, beside it."""
    folder, file = os.path.split(image)
    parts = folder.split(os.sep)
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return os.path.join(os.sep.join(parts), os.path.splitext(file)[0] + ".txt")


class LabelFiles:
    """The label files of a set, each folder listed once. `visited`: the folders of images, whose hidden files are counted
    already."""

    def __init__(self, faults: Faults, visited: set[str]) -> None:
        self.faults, self.visited = faults, visited
        self.folders: dict[str, dict[str, str]] = {}
        self.used: set[str] = set()

    def find(self, text: str, image: str) -> str | None:
        """The file at the path `text`, whatever the case of its suffix; beside the image where there is no such folder."""
        folder, name = os.path.split(text)
        if not os.path.isdir(folder):
            folder = os.path.dirname(image)
        if folder not in self.folders:
            counted = Faults() if os.path.realpath(folder) in self.visited else self.faults
            is_folder = os.path.isdir(folder)
            self.folders[folder] = files_by_stem(Path(folder), {".txt"}, counted, deep=False) if is_folder else {}
        file = self.folders[folder].get(os.path.splitext(name)[0])
        if file in self.used:
            self.faults.add("shared label file", image, f"{file} also belongs to another image")
        if file is not None:
            self.used.add(file)
        return file

    def report_orphans(self, below: Iterable[str]) -> None:
        """Count text files with boxes that belong to no image; notes or lists that lie among the labels are none. `below`:
        folders that are searched to their depths, beside those of the images' own label files."""
        paths = {p for files in self.folders.values() for p in files.values()}
        for folder in filter(os.path.isdir, below):
            paths.update(files_by_stem(Path(folder), {".txt"}, Faults()).values())
        unused = sorted(paths - self.used)
        reached = set(map(os.path.realpath, self.used)) if unused else set()  # links may give a file several paths
        for path in unused:
            if os.path.realpath(path) not in reached and _has_rows(path):
                self.faults.add("label without image", path, "no image of this name")
                for number, line in enumerate(text_lines(path), 1):
                    if line.strip():
                        self.faults.add("box of an image left out", f"{path}:{number}", "no image of this name")


def _has_rows(path: str) -> bool:
    """Whether the first line of a text file is a box."""
    if not os.path.isfile(path):  # a dangling link
        return False
    fields = next(iter(text_lines(path)), "").split()
    return len(fields) >= 5 and all(re.fullmatch(r"[-+.\deE]+", f) for f in fields)


class LabelRows:
    """Takes label files into a collector.

    Args:
        classes: how many there are.
        first: the number of the first.
        points: key points of a row and numbers of each; None where rows have none.
    """

    def __init__(self, collector: Collector, classes: int, first: int, points: tuple[int, int] | None) -> None:
        self.collector, self.classes, self.first = collector, classes, first
        self.points = points
        self.read_as: Counter[str] = Counter()
        self.due = None if points is None else 5 + points[0] * points[1]

    def add_file(self, image: int, path: str) -> None:
        """Add the rows of one file, and count those that are more than a box."""
        faults, source = self.collector.faults, self.collector.source(path)
        try:
            lines = text_lines(path)
        except OSError as e:
            faults.add("unreadable label", path, str(e.strerror))
            self.collector.leave_out(image)
            return
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if not fields:
                continue
            try:
                values = list(map(float, fields if "_" not in line else ["x"]))  # Python takes 1_0 for 10
            except ValueError:
                faults.add("malformed row", f"{path}:{number}", line.strip())
                continue
            if not self._is_due(len(values)):
                faults.add(
                    "malformed row", f"{path}:{number}", f"{counted(len(values), 'field')}; a row must have {self._due()}"
                )
            elif values[0] - self.first not in range(self.classes):
                what = f"{fields[0]}; must be from {self.first} to {self.first + self.classes - 1}"
                faults.add("unknown class", f"{path}:{number}", what)
            else:
                plain = self.points is not None or len(values) == 5
                box = _centre_box(*values[1:5]) if plain else _polygon_box(values[1:])
                if len(values) > 5:
                    self.read_as[KEY_POINTS if plain else CORNERS if len(values) == 9 else POLYGON] += 1
                self.collector.row(image, source, number, box, int(values[0]) - self.first)

    def _is_due(self, count: int) -> bool:
        if self.due is not None:
            return count == self.due
        return count == 5 or (count >= 7 and count % 2 == 1)

    def _due(self) -> str:
        if self.points is None:
            return "5 (class cx cy w h), or a class and three or more points; rows with key points need kpt_shape"
        number, each = self.points
        return f"{self.due}: class cx cy w h and, by kpt_shape, {number} key points of {each} numbers"


def _centre_box(x: float, y: float, w: float, h: float) -> Box:
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def _polygon_box(points: list[float]) -> Box:
    xs, ys = points[0::2], points[1::2]
    # a sum is not finite where one of its terms is not; min and max would hide it
    hidden = sum(points) * 0
    return min(xs) + hidden, min(ys) + hidden, max(xs), max(ys)
