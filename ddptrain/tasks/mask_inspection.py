"""What can be said about a segmentation run from its datasets alone, before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddptrain.config import DatasetConfig, RunConfig
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.labels import LabelSpace
from ddptrain.data.mask_table import MaskTable, apply_masks
from ddptrain.errors import UserError
from ddptrain.monitor.page import UNKNOWN, Section, details, histogram
from ddptrain.tasks.inspection import NAMED, SHOWN_FAULTS, Inspection, tell_duplicates, tell_faults


class _Set(NamedTuple):
    """A dataset that could be read, with classes of the run."""

    part: str
    config: DatasetConfig
    table: MaskTable
    annotated: np.ndarray

    @property
    def title(self) -> str:
        return f"{self.part} {self.config.name}"


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


def _read(config: RunConfig, out: Inspection) -> list[_Set]:
    sets, rows, folded = [], [], []
    facts = out.facts["datasets"] = []
    for part in ("train", "val"):
        for d in getattr(config.data, part):
            try:
                own, faults = read_masks(d, "drop")
                tell_faults(config, part, d, faults, out)
                space = LabelSpace.build(config.classes, [d], [own])
            except UserError as e:
                out.errors.append(f"{part}: {e}")
                continue
            table = apply_masks(space, own)
            sets.append(_Set(part, d, table, space.annotated[0]))
            smallest, largest = (" x ".join(str(v) for v in size) for size in _extremes(table.sizes))
            void = float(table.pixels[:, -1].sum() / table.pixels.sum())
            rows.append([part, d.name, d.format, len(table), smallest, largest, f"{100 * void:.1f} %", faults.text()])
            facts.append(
                {"part": part, "name": d.name, "format": d.format, "images": len(table), "void": round(void, 6)}
                | {"faults": dict(faults.counts)}
            )
            if faults.kept:
                text = f"{part} {d.name}: {sum(faults.counts.values())} faults, the first {SHOWN_FAULTS}"
                folded.append(details(text, [str(f) for f in faults.kept[:SHOWN_FAULTS]]))
    columns = ("part", "dataset", "format", "images", "smallest", "largest", "void", "faults")
    out.sections.append(Section("Datasets", [], columns, rows, folded))
    return sets


def _extremes(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(sizes.astype(np.int64).prod(1), kind="stable")
    return sizes[order[0]], sizes[order[-1]]


def _classes(config: RunConfig, sets: Sequence[_Set], out: Inspection) -> None:
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
    train = np.array([s.part == "train" for s in sets])
    for c, name in enumerate(config.classes):
        if train.any() and not known[train, c].any():
            out.warnings.append(f"class {name}: no training dataset labels it, it cannot be learned; check rename, or drop it")
        elif train.any() and not counts[train, c].any():
            out.warnings.append(f"class {name}: no pixel of it in any training dataset, it cannot be learned")
        if not train.all() and not counts[~train, c].any():
            out.warnings.append(f"class {name}: no pixel of it in any validation dataset, it cannot be scored")
