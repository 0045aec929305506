"""What can be said about a segmentation run from its datasets alone, before anything is learned."""

from __future__ import annotations

import numpy as np

from ddptrain.tasks.inspection.base import Inspection
from ddptrain.tasks.inspection.classes import report_classes
from ddptrain.tasks.inspection.twins import report_duplicates
from ddptrain.tasks.tables import TableTask


def inspect_segmentation(task: TableTask, images: int) -> Inspection:
    """Faults, classes without pixels, masks whose values mean something else, duplicates and leaks.

    Args:
        images: how many are opened to look for duplicates, over all datasets; 0 for all.
    """
    out = Inspection()
    sets = task.inspect_datasets(out)
    if sets:
        counts = np.array([s.table.pixels[:, :-1].sum(0) for s in sets])
        parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        shown_in = [s.table.samples_by_class().tolist() for s in sets]
        cells = [[f"{100 * p:.2f} % in {n}" for p, n in zip(row, images)] for row, images in zip(parts, shown_in)]
        head = "Part of the labelled pixels that each class has, and the images that show it"
        report_classes(sets, task.classes, counts, "pixel", out, head, cells)
        out.warnings += task.warnings(sets)
        report_duplicates(sets, images, out)
    return out
