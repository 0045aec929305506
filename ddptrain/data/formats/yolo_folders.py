"""The folders that a data.yaml or a list of images puts together in one YOLO set, and the one that each image is from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddptrain.config.data import DatasetConfig
from ddptrain.data.formats.yolo import description, image_sources
from ddptrain.data.inspect.statistics import FOLDERS, strangely_missed
from ddptrain.data.tables.base import I64, Mask
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.system.printable import first_few


class Folders(NamedTuple):
    """Folders that make one set.

    Attributes:
        names: relative to the set's root, where they lie in it.
        of: int64 `[images]`: the folder of each image.
        file: the data.yaml that lists them; None where a list of images does.
    """

    names: list[str]
    of: I64
    file: Path | None

    def gaps(self, table: AnnotationTable, annotated: Mask, elsewhere: I64, of: I64) -> list[str]:
        """`no box of person (8 of 9 images elsewhere show it) in a/images` for each folder that never shows a class, though
        others do.

        Args:
            table: whose images these are.
            annotated: bool `[classes]`: the others are left out, and those that no folder shows.
            elsewhere, of: int `[classes]`: how many images of other sets show each class, and of how many.
        """
        if len(self.names) < 2:
            return []
        counts, out = np.bincount(self.of, minlength=len(self.names)), []
        shown = table.samples_by_group(self.of, len(self.names))
        annotated = annotated & shown.any(0)
        for name, count, own in zip(self.names, counts, shown):
            rest, rest_of = elsewhere + shown.sum(0) - own, of + len(table) - count
            missed = strangely_missed(count, own, rest * annotated, rest_of)
            classes = [f"{table.names[c]} ({rest[c]} of {rest_of[c]} images elsewhere show it)" for c in missed.tolist()]
            out += [f"no box of {first_few(classes, 'class', most=FOLDERS)} in {name}"] * bool(classes)
        return out


def joined_folders(config: DatasetConfig, table: AnnotationTable) -> Folders:
    """The folders of a set. Subfolders of a listed folder count as it: they are often the sequences of a video."""
    root = Path(config.root)
    data = description(config, root)
    sources = image_sources(config, root, data, Faults())
    if len(sources) == 1 and sources[0].is_dir():
        return Folders([], np.zeros(len(table), np.int64), None)
    parents = [path.rpartition(b"/")[0] for path in table.paths.encoded()]
    numbers = {parent: i for i, parent in enumerate(dict.fromkeys(parents))}
    paths = [os.path.normpath(p.decode("utf-8", "surrogateescape")) for p in numbers]
    listed = [os.path.normpath(s) for s in sources if s.is_dir()]
    counted_as = _folders(paths, sorted(listed, key=len, reverse=True))
    places = {folder: i for i, folder in enumerate(dict.fromkeys(counted_as))}
    images = np.array([numbers[p] for p in parents], np.int64)
    below = [os.path.relpath(n, root) for n in places]
    return Folders(
        [n if b.startswith("..") else b for n, b in zip(places, below)],
        np.array([places[f] for f in counted_as], np.int64)[images],
        data.file if data and len(listed) == len(sources) else None,
    )


def _folders(paths: Sequence[str], listed: Sequence[str]) -> list[str]:
    """What each folder of images counts as: the one of `listed` that it lies in, else its last folder `images`, else the
    first one that tells it from the others."""
    out, rest = [], []
    for path in paths:
        parts = path.split(os.sep)
        inside = next((f for f in listed if path == f or path.startswith(os.path.join(f, ""))), None)
        if inside is None and "images" in parts:
            inside = os.sep.join(parts[: len(parts) - parts[::-1].index("images")])
        out.append(inside)
        rest += [path] if inside is None else []
    common = len(os.path.commonpath(rest).split(os.sep)) if len(set(map(os.path.isabs, rest))) == 1 else 0
    return [f if f is not None else os.sep.join(p.split(os.sep)[: common + 1]) for f, p in zip(out, paths)]
