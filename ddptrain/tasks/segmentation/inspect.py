"""What can be said about the masks of a segmentation run: how often each class occurs, and values that mean something else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddptrain.config.text import dump_inline
from ddptrain.data.tables.masks import WIDE, MaskTable
from ddptrain.structures import VOID
from ddptrain.system.printable import first_few
from ddptrain.tasks.inspection.base import DataSet, Inspection
from ddptrain.tasks.inspection.classes import report_classes, unlabelled_way

MOST_VOID = 0.5


def report_pixels(classes: Sequence[str], sets: Sequence[DataSet], out: Inspection) -> None:
    """A table of each class's part of the labelled pixels, and of how many images show it."""
    counts = np.array([s.table.pixels[:, :-1].sum(0) for s in sets])
    parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    images = [s.table.samples_by_class().tolist() for s in sets]
    cells = [[f"{100 * p:.2f} % in {n}" for p, n in zip(*row)] for row in zip(parts, images)]
    head = "Part of the labelled pixels that each class has, and the images that show it"
    report_classes(sets, classes, counts, "pixel", out, head, cells)


def mask_warnings(classes: Sequence[str], sets: Sequence[DataSet]) -> list[str]:
    """A line for each dataset in which a class never occurs or void covers more than half of the pixels: with the values in
    its masks and their shares, and how to give them a meaning; and for each that labels only one class."""
    out = []
    sets = [s for s in sets if s.used]
    shown = np.array([s.table.samples_by_class() > 0 for s in sets]).reshape(len(sets), len(classes))
    for i, s in enumerate(sets):
        table: MaskTable = s.table
        absent = np.flatnonzero(s.annotated & ~shown[i] & (s.config.annotated is None)).tolist()
        void = table.pixels[:, -1].sum() / max(table.pixels.sum(), 1)
        mostly_void = void > MOST_VOID and s.config.void is None
        what = [f"no pixel of {first_few([classes[c] for c in absent], 'class')}"] if absent else []
        what += [f"void covers {100 * void:.1f} % of the pixels"] if mostly_void else []
        if what:
            ways = _map(classes, s, absent)
            if np.delete(shown, i, 0)[:, absent].any():
                ways.append(unlabelled_way(classes, s, shown[i], "pixel"))
            ways += _accept(classes, s, absent, mostly_void)
            out.append(f"{s.title}: {' and '.join(what)}; its masks hold {values_text(classes, table)}; {'; '.join(ways)}")
        if s.annotated.sum() == 1 < len(classes):
            out.append(
                f"{s.title}: labels only {classes[int(s.annotated.argmax())]}, so every answer is right there; name its "
                f"background as a class, or write annotated: all (in {s.key})"
            )
    if len(classes) == 1:
        out.append(f"class {classes[0]}: the only class, so every answer is right; list the background as a class")
    return out


def values_text(classes: Sequence[str], table: MaskTable) -> str:
    """The values in the masks, what share they have and what they mean: `0 (90.1 %, background), 255 (9.9 %, void)`."""
    order = np.argsort(-table.values, kind="stable")
    values = order[table.values[order] > 0].tolist()
    total = table.values.sum()

    def meaning(value: int) -> str:
        c = int(table.classes[value])
        return "void" if c == VOID else classes[c]

    return first_few([f"{v} ({100 * table.values[v] / total:.1f} %, {meaning(v)})" for v in values], "value")


def _map(classes: Sequence[str], s: DataSet, absent: Sequence[int]) -> list[str]:
    """How the void value that covers most becomes a class."""
    table: MaskTable = s.table
    void = np.where(table.classes == VOID, table.values, 0)
    value = int(void.argmax())
    if not void[value] or len(table.classes) == WIDE:  # kinds of object that the config leaves out are void there
        return []
    if len(absent) != 1:
        return [f"if {value} is a class, write values: {{{value}: N}} with its number in names, from 0 on"]
    # without `values` a class stands at the value that the format gives it
    usual = int(np.flatnonzero(table.classes == absent[0])[0])
    number = s.config.values.get(usual, usual - (s.config.format == "ade20k"))
    return [f"if {value} is {classes[absent[0]]}, write values: {{{value}: {number}}}"]


def _accept(classes: Sequence[str], s: DataSet, absent: Sequence[int], mostly_void: bool) -> list[str]:
    """How to say that it is meant as it is."""
    keys = []
    if absent:
        known = [name for name, k in zip(classes, s.annotated) if k]
        keys.append(f"annotated: {'all' if s.annotated.all() else dump_inline(known)}")
    if mostly_void:
        void = np.where(s.table.classes == VOID, s.table.values, 0)
        keys.append(f"void: {int(void.argmax())}")
    return [f"if that is intended, write {' and '.join(keys)} (in {s.key})"]
