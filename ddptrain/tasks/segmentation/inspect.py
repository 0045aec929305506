"""What can be said about a segmentation run from its datasets alone, before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddptrain.config import RunConfig
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.data.tables.masks import MaskTable
from ddptrain.tasks.inspection.base import DataSet, Inspection, read_sets
from ddptrain.tasks.inspection.classes import class_warnings, tell_classes
from ddptrain.tasks.inspection.masks import mask_warnings
from ddptrain.tasks.inspection.twins import tell_duplicates


def inspect_segmentation(config: RunConfig, images: int) -> Inspection:
    """Read all datasets of a run and look for faults, classes without pixels, duplicates and leaks.

    Args:
        images: how many are opened to look for duplicates, over all datasets; 0 for all.
    """
    out = Inspection()
    sets = _read(config, out)
    if sets:
        _classes(config, sets, out)
        out.warnings += class_warnings(config, sets, "pixel") + mask_warnings(config, sets)
        tell_duplicates(sets, images, out)
    return out


def _read(config: RunConfig, out: Inspection) -> list[DataSet]:
    def apply(space: LabelSpace, table: MaskTable, part: str) -> MaskTable:
        return space.apply(table)

    def describe(table: MaskTable) -> tuple[list[Any], dict[str, Any]]:
        smallest, largest = (" x ".join(str(v) for v in size) for size in _extremes(table.sizes))
        void = float(table.pixels[:, -1].sum() / table.pixels.sum())
        return [smallest, largest, f"{100 * void:.1f} %"], {"void": round(void, 6)}

    return read_sets(config, out, read_masks, apply, describe, ("smallest", "largest", "void"))


def _extremes(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(sizes.astype(np.int64).prod(1), kind="stable")
    return sizes[order[0]], sizes[order[-1]]


def _classes(config: RunConfig, sets: Sequence[DataSet], out: Inspection) -> None:
    counts = np.array([s.table.pixels[:, :-1].sum(0) for s in sets])
    parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown_in = [s.table.samples_by_class().tolist() for s in sets]
    cells = [[f"{100 * p:.2f} % in {n}" for p, n in zip(row, images)] for row, images in zip(parts, shown_in)]
    head = "Part of the labelled pixels that each class has, and the images that show it"
    tell_classes(sets, config.classes, counts, "pixel", out, head, cells)
