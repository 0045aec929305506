"""What can be said about a detection run from its datasets alone, before anything is learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ddptrain.config import DatasetConfig, LossConfig, RunConfig, YoloConfig
from ddptrain.data.cache import read_cached
from ddptrain.data.duplicates import Twins, find_twins
from ddptrain.data.faults import KINDS, Faults, OnFault
from ddptrain.data.labels import LabelSpace
from ddptrain.data.statistics import EDGES, Sizes, box_sizes, class_counts
from ddptrain.data.table import AnnotationTable
from ddptrain.errors import UserError
from ddptrain.monitor.page import UNKNOWN, Section, details, histogram

SHOWN_FAULTS = 50
SIZES = ("small", "medium", "large")
NAMED = 20
"""Classes whose names have room below a figure."""
MOST = 0.9
"""Part of the box loss that one size should not get by its weight."""


@dataclass
class Inspection:
    """Findings about a run.

    Attributes:
        errors: why training would refuse to start, a line each.
        warnings: what is probably not meant, a line each.
        sections: for a person; facts: the same for a program, plain types by name.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class DataSet(NamedTuple):
    """A dataset that could be read, with classes of the run; `table` is of the task's own kind."""

    part: str
    config: DatasetConfig
    table: Any
    annotated: np.ndarray

    @property
    def title(self) -> str:
        return f"{self.part} {self.config.name}"


def inspect_detection(config: RunConfig, images: int) -> Inspection:
    """Read all datasets of a run and look for faults, gaps, extremes, duplicates and leaks.

    Args:
        images: how many are opened to look for duplicates, over all datasets; 0 for all.
    """
    out = Inspection()
    sets = _read(config, out)
    if sets:
        _classes(config, sets, out)
        _sizes(config, sets, out)
        tell_duplicates(sets, images, out)
    return out


def _read(config: RunConfig, out: Inspection) -> list[DataSet]:
    def describe(table: AnnotationTable) -> tuple[list[Any], dict[str, Any]]:
        ignored, crowds = int(table.ignore.sum()), int((table.crowd & ~table.ignore).sum())
        boxes = len(table.boxes) - ignored - crowds
        return [boxes, ignored, crowds], {"boxes": boxes, "ignore_regions": ignored, "crowds": crowds}

    return read_sets(config, out, read_cached, LabelSpace.apply, describe, ("boxes", "ignore regions", "crowds"))


def read_sets(
    config: RunConfig,
    out: Inspection,
    read: Callable[[DatasetConfig, OnFault], tuple[Any, Faults]],
    apply: Callable[[LabelSpace, Any], Any],
    describe: Callable[[Any], tuple[list[Any], dict[str, Any]]],
    columns: Sequence[str],
) -> list[DataSet]:
    """All datasets of a run that can be read; the others and their faults are told, and all have a row of a table.

    Args:
        read: table and faults of a dataset; apply: the table with classes of the run.
        describe: cells of its row, and facts, of such a table; columns: names of the cells.
    """
    sets, rows, folded = [], [], []
    facts = out.facts["datasets"] = []
    for part in ("train", "val"):
        for d in getattr(config.data, part):
            try:
                own, faults = read(d, "drop")
                tell_faults(config, part, d, faults, out)
                space = LabelSpace.build(config.classes, [d], [own])
            except UserError as e:
                out.errors.append(f"{part}: {e}")
                continue
            table = apply(space, own)
            sets.append(DataSet(part, d, table, space.annotated[0]))
            cells, told = describe(table)
            rows.append([part, d.name, d.format, len(table), *cells, faults.text()])
            of_all = {"part": part, "name": d.name, "format": d.format, "images": len(table)}
            facts.append(of_all | told | {"faults": dict(faults.counts)})
            if faults.kept:
                text = f"{part} {d.name}: {sum(faults.counts.values())} faults, the first {SHOWN_FAULTS}"
                folded.append(details(text, [str(f) for f in faults.kept[:SHOWN_FAULTS]]))
    out.sections.append(Section("Datasets", [], ("part", "dataset", "format", "images", *columns, "faults"), rows, folded))
    return sets


def tell_faults(config: RunConfig, part: str, d: DatasetConfig, faults: Faults, out: Inspection) -> None:
    """An error or a warning, as `data.on_fault` says, about the faults of one dataset that would end a run."""
    first = next(faults.errors(), None)
    if first is None:
        return
    counts = ", ".join(f"{n} {k}" for k, n in faults.counts.items() if KINDS[k].error)
    line = f"{part} {d.name}: {counts}; the first: {first}"
    if config.data.on_fault == "error":
        out.errors.append(f"{line}; correct the files, or set data.on_fault=drop")
    else:
        out.warnings.append(line)


def _classes(config: RunConfig, sets: Sequence[DataSet], out: Inspection) -> None:
    counts = np.array([class_counts(s.table) for s in sets])
    known = np.array([s.annotated for s in sets])
    rows = [
        [name, *(int(n) if k else UNKNOWN for n, k in zip(counts[:, c], known[:, c]))] for c, name in enumerate(config.classes)
    ]
    lines = ["Boxes of each class. Unknown: the dataset does not label the class, it is neither learned nor scored there."]
    section = Section("Classes", lines, ("class", *(s.title for s in sets)), rows)
    if 1 < len(config.classes) <= NAMED:
        series = [(s.title, (n / max(n.sum(), 1)).tolist()) for s, n in zip(sets, counts)]
        section.figures.append(histogram(series, config.classes, "part of the dataset's boxes"))
    out.sections.append(section)
    out.facts["classes"] = [
        {"part": s.part, "name": s.config.name}
        | {"boxes": {c: int(n) if k else None for c, n, k in zip(config.classes, counts[i], known[i])}}
        for i, s in enumerate(sets)
    ]
    tell_absent(config, sets, counts, known, "box", out)


def tell_absent(
    config: RunConfig, sets: Sequence[DataSet], counts: np.ndarray, known: np.ndarray, unit: str, out: Inspection
) -> None:
    """Warn of classes that cannot be learned or scored.

    Args:
        counts: of what is labelled, `[sets, classes]`, in `unit`s; known: bool `[sets, classes]`.
    """
    train = np.array([s.part == "train" for s in sets])
    for c, name in enumerate(config.classes):
        if train.any() and not known[train, c].any():
            out.warnings.append(f"class {name}: no training dataset labels it, it cannot be learned; check rename, or drop it")
        elif train.any() and not counts[train, c].any():
            out.warnings.append(f"class {name}: no {unit} of it in any training dataset, it cannot be learned")
        if not train.all() and not counts[~train, c].any():
            out.warnings.append(f"class {name}: no {unit} of it in any validation dataset, it cannot be scored")


def _sizes(config: RunConfig, sets: Sequence[DataSet], out: Inspection) -> None:
    size = config.data.image_size
    found = [box_sizes(s.table, size) for s in sets]
    section = Section("Sizes of boxes")
    section.columns = ("dataset", "boxes", *(f"{n} native" for n in "SML"), *(f"{n} at {size}" for n in "SML"), "below 8 px")
    rows = []
    for s, f in zip(sets, found):
        total = int(f.native.sum())
        parts = [f"{100 * n / total:.1f} %" if total else None for n in (*f.native, *f.network, f.below_8)]
        rows.append([s.title, total, *parts])
        if total and f.below_8:
            tiny = f"{100 * f.below_8 / total:.0f} % of boxes are below 8 px (root of the area)"
            line = f"{s.title}: {tiny} after letterbox at {size}"
            section.lines.append(line)
            if s.part == "train" and f.below_8 > total / 2:
                out.warnings.append(f"{line}; a larger data.image_size or finer model.strides shows more of them")
    section.rows = rows
    _box_loss(config, sets, found, section, out)
    _too_long(config, sets, found, out)
    section.figures.append(_sizes_figure(sets, found, size))
    out.sections.append(section)
    out.facts["sizes"] = [
        {"part": s.part, "name": s.config.name, "below_8px": f.below_8, "longest_side": round(f.longest, 1)}
        | {"native": dict(zip(SIZES, f.native.tolist())), "network": dict(zip(SIZES, f.network.tolist()))}
        for s, f in zip(sets, found)
    ]


def _box_loss(config: RunConfig, sets: Sequence[DataSet], found: Sequence[Sizes], section: Section, out: Inspection) -> None:
    """What part of the box loss each size gets: its boxes in a drawn sample, times its weight."""
    if not (isinstance(config.model, YoloConfig) and isinstance(config.loss, LossConfig)):
        return
    boxes = np.zeros(3)
    for s, f in zip(sets, found):
        if s.part == "train":
            share = len(s.table) if s.config.share is None else s.config.share
            boxes += share * f.network / len(s.table)
    weights = config.loss.size_weights
    factors = np.array([weights.small, weights.medium, weights.large])
    if not boxes.sum() or not (boxes * factors).sum():
        return
    plain, weighted = boxes / boxes.sum(), boxes * factors / (boxes * factors).sum()
    texts = [", ".join(f"{100 * p:.1f} % {n}" for p, n in zip(parts, SIZES)) for parts in (plain, weighted)]
    section.lines.append(f"A drawn sample's boxes, and so the box loss: {texts[0]}.")
    out.facts["box_loss"] = dict(zip(SIZES, weighted.round(4).tolist()))
    if (factors != factors[0]).any():
        named = ", ".join(f"{n} {f:g}" for n, f in zip(SIZES, factors))
        section.lines.append(f"loss.size_weights ({named}) make that {texts[1]}.")
        top = int(weighted.argmax())
        if weighted[top] > MOST and factors[top] > factors.min():
            out.warnings.append(
                f"loss.size_weights give {SIZES[top]} boxes {100 * weighted[top]:.0f} % of the box loss, with"
                f" {100 * plain[top]:.1f} % of the boxes; the others are hardly learned; lower loss.size_weights.{SIZES[top]}"
            )


def _too_long(config: RunConfig, sets: Sequence[DataSet], found: Sequence[Sizes], out: Inspection) -> None:
    """A distribution over the distance to each side ends at (bins - 1) strides of the coarsest level."""
    model = config.model
    if not isinstance(model, YoloConfig) or model.reg_max == 1:
        return
    reach = 2 * (model.reg_max - 1) * max(model.strides)
    for s, f in zip(sets, found):
        if s.part == "train" and f.longest > reach:
            out.warnings.append(
                f"{s.title}: a box is {f.longest:.0f} px long at {config.data.image_size}, the head reaches {reach} px; "
                "add a coarser stride, or raise model.reg_max"
            )


def _sizes_figure(sets: Sequence[DataSet], found: Sequence[Sizes], size: int) -> str:
    series = [(s.title, (f.sides / max(f.sides.sum(), 1)).tolist()) for s, f in zip(sets, found)]
    ticks = [f"{e:.0f}" if i % 2 == 0 else "" for i, e in enumerate(EDGES)]
    # edge k stands k + 1 bins from the left, and there are two bins to an octave
    marks = [(1 + 2 * float(np.log2(px)), text) for px, text in ((8, "8 px"), (32, "medium"), (96, "large"))]
    return histogram(series, ticks, f"root of the area in pixels of the {size} px input; part of the boxes", marks)


def tell_duplicates(sets: Sequence[Any], images: int, out: Inspection) -> None:
    """Images that come twice or stand in both parts; a set has `part`, `title`, and in `table` a `path` of each image."""
    quota = _quota([len(s.table) for s in sets], [s.part == "val" for s in sets], images)
    paths = [[s.table.path(int(i)) for i in _spread(len(s.table), q)] for s, q in zip(sets, quota)]
    titles = [s.title for s in sets]
    twins = find_twins(list(zip(titles, paths)))
    section = Section("Duplicates and leaks", columns=("images of", "also in", "looked at", "equal files", "look the same"))
    looked_at, total = sum(quota), sum(len(s.table) for s in sets)
    if looked_at < total:
        section.lines.append(f"{looked_at} of {total} images were opened; --images 0 opens all.")
    if not twins:
        section.lines.append("None was found.")
    section.rows = [[t.second, t.first, t.looked_at, t.equal, t.alike] for t in twins]
    for t in twins:
        where = f"within {t.second}" if t.first == t.second else f"{t.second} in {t.first}"
        section.figures.append(details(f"{where}: examples", [f"{b} = {a}" for a, b in t.examples]))
    out.sections.append(section)
    out.facts["duplicates"] = [t._asdict() | {"examples": [list(pair) for pair in t.examples]} for t in twins]
    for t in twins:
        _tell_twins(t, out)


def _tell_twins(t: Twins, out: Inspection) -> None:
    example = " = ".join(t.examples[0][::-1])
    what = f"{t.equal} equal and {t.alike} that look the same, such as {example}"
    if t.first.startswith("train ") and t.second.startswith("val "):
        out.warnings.append(f"leak: of {t.looked_at} images of {t.second}, {t.equal + t.alike} stand in {t.first}: {what}")
    elif t.equal:
        within = f"{t.second} comes twice" if t.first == t.second else f"{t.second} stands in {t.first} too"
        out.warnings.append(f"duplicates: {t.equal} of {t.looked_at} images of {within}, such as {example}")


def _quota(sizes: Sequence[int], val: Sequence[bool], images: int) -> list[int]:
    """How many images of each dataset are opened: validation sets first, for a leak is found only where both are."""
    if not images or sum(sizes) <= images:
        return list(sizes)
    held = sum(n for n, v in zip(sizes, val) if v)
    for_val = min(held, images // 2)
    rest = sum(sizes) - held
    for_train = min(rest, images - for_val)
    return [n * for_val // held if v else n * for_train // rest for n, v in zip(sizes, val)]


def _spread(total: int, quota: int) -> np.ndarray:
    """`quota` indices evenly over `total`."""
    return np.arange(quota) * total // max(quota, 1)
