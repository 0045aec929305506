"""What can be said about a segmentation run from its datasets alone, before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddptrain.config import RunConfig
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.mask_table import MaskTable, apply_masks
from ddptrain.monitor.page import UNKNOWN, Section, histogram
from ddptrain.tasks.inspection import NAMED, DataSet, Inspection, read_sets, tell_absent, tell_duplicates


def inspect_segmentation(config: RunConfig, images: int) -> Inspection:
    """Read all datasets of a run and look for faults, classes without pixels, duplicates and leaks.

    Args:
        images: how many are opened to look for duplicates, over all datasets; 0 for all.
    """
    out = Inspection()
    sets = _read(config, out)
    if sets:
        _classes(config, sets, out)
        tell_duplicates(sets, images, out)
    return out


def _read(config: RunConfig, out: Inspection) -> list[DataSet]:
    def describe(table: MaskTable) -> tuple[list[Any], dict[str, Any]]:
        smallest, largest = (" x ".join(str(v) for v in size) for size in _extremes(table.sizes))
        void = float(table.pixels[:, -1].sum() / table.pixels.sum())
        return [smallest, largest, f"{100 * void:.1f} %"], {"void": round(void, 6)}

    return read_sets(config, out, read_masks, apply_masks, describe, ("smallest", "largest", "void"))


def _extremes(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(sizes.astype(np.int64).prod(1), kind="stable")
    return sizes[order[0]], sizes[order[-1]]


def _classes(config: RunConfig, sets: Sequence[DataSet], out: Inspection) -> None:
    counts = np.array([s.table.pixels[:, :-1].sum(0) for s in sets])
    shown_in = np.array([(s.table.pixels[:, :-1] > 0).sum(0) for s in sets])
    known = np.array([s.annotated for s in sets])
    parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    lines = [
        "Part of the labelled pixels that each class has, and the images that show it. Unknown: the dataset does not label the "
        "class, it is neither learned nor scored there."
    ]
    rows = [
        [name, *(f"{100 * p:.2f} % in {n}" if k else UNKNOWN for p, n, k in zip(parts[:, c], shown_in[:, c], known[:, c]))]
        for c, name in enumerate(config.classes)
    ]
    section = Section("Classes", lines, ("class", *(s.title for s in sets)), rows)
    if 1 < len(config.classes) <= NAMED:
        series = [(s.title, p.tolist()) for s, p in zip(sets, parts)]
        section.figures.append(histogram(series, config.classes, "part of the dataset's labelled pixels"))
    out.sections.append(section)
    out.facts["classes"] = [
        {"part": s.part, "name": s.config.name}
        | {"pixels": {c: int(n) if k else None for c, n, k in zip(config.classes, counts[i], known[i])}}
        for i, s in enumerate(sets)
    ]
    tell_absent(config, sets, counts, known, "pixel", out)
