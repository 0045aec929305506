"""Folders of one dataset whose label files hold other classes than those of its other folders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddptrain.config.text import dump_inline
from ddptrain.data.formats.yolo_folders import joined_folders
from ddptrain.data.inspect.statistics import FOLDERS
from ddptrain.system.printable import first_few
from ddptrain.tasks.inspection.base import DataSet


def folder_warnings(classes: Sequence[str], s: DataSet, elsewhere: np.ndarray, of: np.ndarray) -> list[str]:
    """A line about the folders of a YOLO dataset that never show a class which its other folders, or other datasets, do.

    Args:
        elsewhere, of: int `[C]`: how many images of other datasets show each class, and of how many.
    """
    folders = joined_folders(s.config, s.table)
    gaps = folders.gaps(s.table, s.annotated, elsewhere, of)
    if not gaps:
        return []
    verb = "learned" if s.part == "train" else "scored"
    way = f" (ddptrain config --data {folders.file} writes them)" if folders.file else " and a list of images of its own"
    known = "all" if s.annotated.all() else [name for name, k in zip(classes, s.annotated) if k]
    return [
        f"{s.title}: {first_few(gaps, 'folder', '; ', FOLDERS)}; if a folder shows some without a label, they are {verb} as "
        f"background: make each folder a dataset with annotated{way}; if they really have none, write annotated: "
        f"{dump_inline(known)} (in {s.key})"
    ]
