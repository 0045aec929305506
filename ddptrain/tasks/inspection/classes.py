"""Classes by dataset: a table, and warnings about classes that a dataset never shows, in `check` and in `train` alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddptrain.config.text import dump_inline
from ddptrain.data.inspect.statistics import strangely_missed
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.labels import named_like_regions
from ddptrain.errors import UserError
from ddptrain.reporting.page import Section, histogram
from ddptrain.reporting.table import UNKNOWN
from ddptrain.system.printable import first_few
from ddptrain.tasks.inspection.base import DataSet, Inspection
from ddptrain.tasks.inspection.folders import folder_warnings

NAMED = 20
"""Classes whose names have room below a figure."""
PLURALS = {"box": "boxes", "image": "images", "pixel": "pixels", "pair": "pairs"}
UNLABELLED = {"box": "background", "image": "absent", "pixel": "other classes", "pair": "absent"}
"""What an unlabelled object counts as, by the unit that is labelled."""


def report_classes(
    sets: Sequence[DataSet],
    classes: Sequence[str],
    counts: np.ndarray,
    unit: str,
    out: Inspection,
    head: str = "",
    cells: Sequence[Sequence[Any]] | None = None,
) -> None:
    """A table, a figure and facts about how often each class is labelled.

    Args:
        counts: int `[sets, classes]`, in `unit`s.
        cells: what the table shows instead of the counts; head: the words for it.
    """
    known, units = [s.annotated for s in sets], PLURALS[unit]
    shown = counts.tolist() if cells is None else cells
    rows = [[name, *(row[c] if k[c] else UNKNOWN for row, k in zip(shown, known))] for c, name in enumerate(classes)]
    head = head or f"{units.capitalize()} of each class"
    lines = [f"{head}. Unknown: the dataset does not label the class, it is neither learned nor scored there."]
    section = Section("Classes", lines, ("class", *(s.title for s in sets)), rows)
    if 1 < len(classes) <= NAMED:
        series = [(s.title, (n / max(n.sum(), 1)).tolist()) for s, n in zip(sets, counts)]
        section.figures.append(histogram(series, classes, "class", side=f"part of the dataset's {units}"))
    out.sections.append(section)
    out.facts["classes"] = [
        {"part": s.part, "name": s.config.name}
        | {units: {c: int(n) if k else None for c, n, k in zip(classes, counts[i], s.annotated)}}
        for i, s in enumerate(sets)
    ]


def refuse_no_truth(patience: int | None, sets: Sequence[DataSet], unit: str) -> None:
    """Raise where nothing can be learned, or where patience waits for a metric that is undefined.

    Args:
        patience: `train.patience`.
        sets: the datasets of train and val.

    Raises:
        UserError: no training dataset shows any class; or none of val does, and `train.patience` is given.
    """
    shown = {
        part: any(s.table.samples_by_class().any() for s in sets if s.used and s.part == part) for part in ("train", "val")
    }
    remedy = "correct classes, rename, ignore, drop or the labels"
    if not shown["train"]:
        raise UserError(f"data.train: no {unit} of any class in any training dataset, nothing can be learned; {remedy}")
    if not shown["val"] and patience is not None:
        raise UserError(
            f"train.patience: no {unit} of any class in any validation dataset, so that no evaluation is better than "
            f"another; {remedy}, or set train.patience to null"
        )


def class_warnings(classes: Sequence[str], sets: Sequence[DataSet], unit: str, masked: bool = True) -> list[str]:
    """Classes that are named like ignore regions, those that cannot be learned or scored, and those that one dataset never
    shows and others do.

    Args:
        classes: those of the run.
        sets: the datasets of train and val.
        masked: the loss and the metric leave out the classes that a dataset does not label.
    """
    warnings = _regions(classes, sets)
    sets = [s for s in sets if s.used]
    shown = np.array([s.table.samples_by_class() for s in sets]).reshape(len(sets), len(classes))
    known = np.array([s.annotated for s in sets]).reshape(shown.shape)
    samples = np.array([len(s.table) for s in sets])
    absent = np.zeros(shown.shape, bool)  # from a whole part, which is a warning of its own
    for part in ("train", "val"):
        rows = np.array([s.part == part for s in sets], bool)
        if rows.any():
            absent[rows] = ~shown[rows].any(0)
            warnings += _absent(classes, part, shown[rows], known[rows], unit)
    for i, s in enumerate(sets):
        if s.config.annotated is not None or unit == "pixel":  # the user has answered; `mask_warnings` says more
            continue
        others = known & (np.arange(len(sets)) != i)[:, None]
        elsewhere, of = (shown * others).sum(0), (samples[:, None] * others).sum(0)
        missed = strangely_missed(samples[i], shown[i], elsewhere * (known[i] & ~absent[i]), of)
        if len(missed):
            warnings.append(_never_shown(classes, s, missed, shown[i], elsewhere, of, unit, masked))
        if isinstance(s.table, AnnotationTable) and s.config.format == "yolo":
            warnings += folder_warnings(classes, s, elsewhere, of)
    return warnings


def _regions(classes: Sequence[str], sets: Sequence[DataSet]) -> list[str]:
    """Classes that are named like ignore regions."""
    out = []
    for name in named_like_regions(classes):
        renamed = [own for s in sets for own, new in s.config.rename.items() if new == name]
        own = dump_inline(list(dict.fromkeys(renamed)) or [name])
        out.append(
            f"class {name} is named like an ignore region, but is learned and scored as a class; remove it from classes"
            f"{' and out of rename' if renamed else ''}, and write ignore: {own} in its datasets"
        )
    return out


def _absent(classes: Sequence[str], part: str, shown: np.ndarray, known: np.ndarray, unit: str) -> list[str]:
    """Classes that no dataset of a part shows."""
    where, verb = ("training", "learned") if part == "train" else ("validation", "scored")
    if not shown.any():
        end = "nothing can be learned" if part == "train" else "its metrics are undefined, and there is no best.pt"
        return [f"no {unit} of any class in any {where} dataset: {end}"]
    unknown = ~known.any(0) & (part == "train")
    out = []
    for which, why, way in (
        (unknown, f"no {where} dataset labels {{}}", "; check rename, or drop {}"),
        (~shown.any(0) & ~unknown, f"no {unit} of {{}} in any {where} dataset", ""),
    ):
        names = [classes[c] for c in np.flatnonzero(which).tolist()]
        if names:
            one = len(names) == 1
            head, it, they = (f"class {names[0]}", "it", "it") if one else (f"classes {first_few(names)}", "them", "they")
            out.append(f"{head}: {why.format(it)}, {they} cannot be {verb}{way.format(it)}")
    return out


def _never_shown(
    classes: Sequence[str],
    s: DataSet,
    missed: np.ndarray,
    shown: np.ndarray,
    elsewhere: np.ndarray,
    of: np.ndarray,
    unit: str,
    masked: bool,
) -> str:
    noun = PLURALS["pair" if unit == "pair" else "image"]
    names = [f"{classes[c]} ({elsewhere[c]} of {of[c]} {noun} elsewhere show it)" for c in missed.tolist()]
    known = "all" if s.annotated.all() else dump_inline([name for name, k in zip(classes, s.annotated) if k])
    unlabelled = (
        unlabelled_way(classes, s, shown, unit)
        if masked
        else "if it has them under other names, correct names, rename or the labels"
    )
    return (
        f"{s.title}: no {unit} of {first_few(names, 'class')}; {unlabelled}; if it really has none, write annotated: "
        f"{known} (in {s.key})"
    )


def unlabelled_way(classes: Sequence[str], s: DataSet, shown: np.ndarray, unit: str) -> str:
    """What follows, and what to do, where a dataset shows classes without labels; `shown`: those that it labels."""
    labelled = [name for name, known, count in zip(classes, s.annotated, shown) if known and count]
    verb = "learned" if s.part == "train" else "scored"
    return f"if it shows some without a label, they are {verb} as {UNLABELLED[unit]}: write annotated: {dump_inline(labelled)}"
