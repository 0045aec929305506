"""What the writers of formats share: names of files, numbers, and what a format cannot hold."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.errors import UserError
from ddptrain.system.printable import first_few

Place = Callable[[str, Path], None]
Lost = Counter[str]
Writer = Callable[[AnnotationTable, Path, str | None, Place], Lost]

REGION_LOST = "ignore region without a class left out"
IGNORED_LOST = "ignored box left out"
CROWD_LOST = "crowd box left out"
CROWD_IGNORED = "crowd box written as an ignored box"
CLASS_LOST = "ignored or crowd box written as an ignore region without its class"
GUARDED = "name written with ' in front, or spreadsheets would run it as a formula"
PLURALS = {
    REGION_LOST: "ignore regions without a class left out",
    IGNORED_LOST: "ignored boxes left out",
    CROWD_LOST: "crowd boxes left out",
    CROWD_IGNORED: "crowd boxes written as ignored boxes",
    CLASS_LOST: "ignored or crowd boxes written as ignore regions without their classes",
    GUARDED: "names written with ' in front, or spreadsheets would run them as formulas",
}

OCCURRING = ("voc", "csv")
"""Formats without a list of classes: a dataset has those that occur."""
USUAL_FOLDERS = {"images", "Images", "JPEGImages", "sequences", "UAV-benchmark-M", "train", "val", "valid", "test"}
"""Parts of a path that do not tell one image from another."""


def flat_names(table: AnnotationTable, split: str | None) -> list[str]:
    """A file name for each image: its path below the root, without folders that stand for images or for the split, and
    with `_` for `/`. Images outside the root count from the folder that all have in common."""
    paths = [table.path(i) for i in range(len(table))]
    names = [os.path.relpath(p, table.root) for p in paths]
    if any(n.split(os.sep)[0] == ".." for n in names):
        common = os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in paths])
        names = [os.path.relpath(p, common) for p in paths]
    for i, name in enumerate(names):
        *folders, file = name.split(os.sep)
        own = [f for f in folders if f not in USUAL_FOLDERS and not (split and f.endswith(split))]
        names[i] = "_".join([*own, file])
    stems = Counter(os.path.splitext(n)[0] for n in names)
    twice = next((s for s, n in stems.items() if n > 1), None)
    if twice is not None:
        raise UserError(
            f"{table.name}: two images would both be named {twice}, so their labels would share a file; rename one of them"
        )
    return names


def number(value: float) -> str:
    """A coordinate: whole where it is whole, else with two decimals."""
    return f"{value:.0f}" if abs(value - round(value)) < 0.005 else f"{value:.2f}"


def class_note(table: AnnotationTable, fmt: str, known: Sequence[str] | None) -> str:
    """What the written dataset says about classes that the table does not, empty for nothing.

    Args:
        known: the classes of a format that has its own; None for one whose classes are those that occur, or are listed.
    """
    own = f"annotated: [{', '.join(table.names)}]"
    if known is not None:
        more = [name for name in known if name not in table.names]
        if more:
            return f"note: read as {fmt}, the dataset also claims to label {first_few(more)}; set {own} where it is used"
    elif fmt in OCCURRING:
        used = set(np.unique(table.labels).tolist())
        lacking = [name for i, name in enumerate(table.names) if i not in used]
        if lacking:
            return f"note: {fmt} cannot list a class without boxes ({first_few(lacking)}); set {own} where it is used"
    return ""


def ltwh(box: npt.NDArray[np.float32]) -> list[str]:
    return [number(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]


def categories_of(table: AnnotationTable, known: tuple[str, ...], fmt: str) -> list[int]:
    """Number (from 1) of each own class among those that the format knows; 0 for a class without boxes."""
    used = set(np.unique(table.labels[table.labels >= 0]).tolist())
    unknown = [n for i, n in enumerate(table.names) if i in used and n not in known]
    if unknown:
        raise UserError(f"{table.name}: {fmt} has no class {', '.join(unknown)}; its classes are {', '.join(known)}")
    return [known.index(n) + 1 if n in known else 0 for n in table.names]


def voc_lost(table: AnnotationTable) -> Lost:
    crowds = table.crowd & ~table.ignore
    return Counter({REGION_LOST: int((table.labels < 0).sum()), CROWD_IGNORED: int(crowds.sum())})


def plain_lost(table: AnnotationTable) -> Lost:
    """What a format of plain boxes cannot hold."""
    regions, crowds = table.labels < 0, table.crowd & ~table.ignore
    ignored = table.ignore & ~regions
    return Counter({REGION_LOST: int(regions.sum()), IGNORED_LOST: int(ignored.sum()), CROWD_LOST: int(crowds.sum())})


def indices(table: AnnotationTable, image: int) -> range:
    rows = table.rows(image)
    return range(rows.start, rows.stop)
