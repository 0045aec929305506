"""What can be said about an interaction run from its datasets alone, before anything is learned."""

from __future__ import annotations

import numpy as np

from ddptrain.tasks.inspection.base import Inspection
from ddptrain.tasks.inspection.classes import report_classes
from ddptrain.tasks.inspection.twins import report_duplicates
from ddptrain.tasks.tables import TableTask


def inspect_interaction(task: TableTask, images: int) -> Inspection:
    """Faults, classes without pairs, and frames that come twice or in both parts.

    Args:
        images: how many are opened to look for duplicates, over all datasets; 0 for all.
    """
    out = Inspection()
    sets = task.inspect_datasets(out)
    if sets:
        counts = np.array([s.table.samples_by_class() for s in sets])
        report_classes(sets, task.config.classes, counts, "pair", out)
        out.warnings += task.warnings(sets)
        report_duplicates([s._replace(table=s.own) for s in sets], images, out)
    return out
