"""What can be said about a classification run from its datasets alone, before anything is learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddptrain.config import RunConfig
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.data.tables.images import ImageTable
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.tasks.inspection.base import DataSet, Inspection, read_sets
from ddptrain.tasks.inspection.classes import class_warnings, tell_classes
from ddptrain.tasks.inspection.twins import tell_duplicates


def inspect_classification(config: RunConfig, images: int) -> Inspection:
    """Read all datasets of a run and look for faults, classes without images, duplicates and leaks.

    Args:
        images: how many are opened to look for duplicates, over all datasets; 0 for all.
    """
    out = Inspection()
    sets = _read(config, out)
    if sets:
        tell_classes(sets, config.classes, np.array([s.table.samples_by_class() for s in sets]), "image", out)
        out.warnings += class_warnings(config, sets, "image", masked=config.loss.name == "bce")
        tell_duplicates(sets, images, out)
    return out


def _read(config: RunConfig, out: Inspection) -> list[DataSet]:
    def apply(space: LabelSpace, table: ImageTable, part: str) -> ImageTable:
        return space.apply(table)

    def describe(table: ImageTable) -> tuple[list[Any], dict[str, Any]]:
        labels = np.diff(table.offsets)
        cells = {"learned": len(table), "without_class": int((labels == 0).sum()), "several_classes": int((labels > 1).sum())}
        return [*cells.values()], cells

    return read_sets(config, out, read_labelled, apply, describe, ("learned", "without class", "several classes"))
