"""What can be said about a detection run from its datasets alone, before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddptrain.config import DetectionRun, YoloConfig
from ddptrain.config.detection_loss import SizeWeights
from ddptrain.data.inspect.statistics import EDGES, Sizes, box_sizes
from ddptrain.data.tables.windows import Tiles, cut_boxes
from ddptrain.errors import UserError
from ddptrain.reporting.page import Section, histogram
from ddptrain.system.printable import counted
from ddptrain.tasks.inspection.base import DataSet, Inspection

SIZES = ("small", "medium", "large")
MOST = 0.9
"""Part of the box loss that one size should not get by its weight."""
FEW, FEW_BATCH = 2000, 4
"""Updates of a run below which a batch of 4 reached more, see "What a key is worth" in docs/recipe.md."""


def tiles_of(sets: Sequence[DataSet], image_size: int) -> list[Tiles | None]:
    """The tiles of each dataset; None where its samples are whole images, and where its tiles are refused, as a run reports."""
    out: list[Tiles | None] = []
    for s in sets:
        config = s.config.tiles if s.part == "train" else None
        try:
            out.append(None if config is None else cut_boxes(s.table, config, image_size))
        except UserError:
            out.append(None)
    return out


def report_sizes(config: DetectionRun, sets: Sequence[DataSet], tiles: Sequence[Tiles | None], out: Inspection) -> None:
    """Sections, facts and warnings on the sizes of boxes, and on what they mean for the loss and the head of YOLO.

    Args:
        tiles: of each dataset, None where its samples are whole images.
    """
    side = config.data.image_size
    sizes = [box_sizes(s.table, side, cut) for s, cut in zip(sets, tiles)]
    section = Section("Sizes of boxes")
    section.columns = ("dataset", "boxes", *(f"{n} native" for n in "SML"), *(f"{n} at {side}" for n in "SML"), "below 8 px")
    rows = []
    for s, cut, f in zip(sets, tiles, sizes):
        total, shown = int(f.native.sum()), int(f.network.sum())
        counts = [(n, total) for n in f.native] + [(n, shown) for n in (*f.network, f.below_8)]
        rows.append([s.title, total, *(f"{100 * n / of:.1f} %" if of else None for n, of in counts)])
        if f.below_8:
            tiny = f"{100 * f.below_8 / shown:.0f} % of boxes are below 8 px (root of the area)"
            line = (
                f"{s.title}: {tiny} after letterbox at {side}" if cut is None else f"{s.title}: {tiny} in its tiles at {side}"
            )
            section.lines.append(line)
            if s.part == "train" and f.below_8 > shown / 2:
                more = "a larger data.image_size" if cut is None else "larger tiles.scales"
                out.warnings.append(f"{line}; {more} or finer model.strides shows more of them")
    section.rows = rows
    if isinstance(config.model, YoloConfig):
        _report_box_loss(
            config.loss.size_weights, sets, [len(cut or s.table) for s, cut in zip(sets, tiles)], sizes, section, out
        )
    section.figures.append(_sizes_figure(sets, sizes, side))
    out.sections.append(section)
    out.facts["sizes"] = [
        {"part": s.part, "name": s.config.name, "below_8px": f.below_8, "longest_side": round(f.longest, 1)}
        | {"native": dict(zip(SIZES, f.native.tolist())), "network": dict(zip(SIZES, f.network.tolist()))}
        for s, f in zip(sets, sizes)
    ]


def _report_box_loss(
    weights: SizeWeights,
    sets: Sequence[DataSet],
    samples: Sequence[int],
    sizes: Sequence[Sizes],
    section: Section,
    out: Inspection,
) -> None:
    """What part of the box loss each size gets: its boxes in a drawn sample, times its weight."""
    boxes = np.zeros(3)
    for s, count, f in zip(sets, samples, sizes):
        if s.part == "train":
            boxes += (count if s.config.share is None else s.config.share) * f.network / count
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


def reach_of(model: YoloConfig) -> tuple[int | None, str]:
    """The longest box in pixels that a head can predict, None where there is no limit yet, and how to raise it."""
    if model.head == "anchor_based":
        if model.anchors is None:
            return None, ""
        return int(4 * max(side for level in model.anchors for anchor in level for side in anchor)), "give larger model.anchors"
    # a distribution over the distance to each side ends at (bins - 1) strides of the coarsest level
    reach = 2 * (model.reg_max - 1) * max(model.strides) if model.reg_max > 1 else None
    return reach, "add a coarser stride, or raise model.reg_max"


def too_long(config: DetectionRun, sets: Sequence[DataSet], sides: Sequence[np.ndarray]) -> list[str]:
    """A line for each dataset with boxes that the head cannot predict.

    Args:
        sides: float64 `[n, 2]` of each dataset: width and height of its boxes in pixels of the input.
    """
    reach, advice = reach_of(config.model) if isinstance(config.model, YoloConfig) else (None, "")
    if reach is None:
        return []
    lines, size = [], config.data.image_size
    for s, own in zip(sets, sides):
        longest = own.max(1)
        if n := int((longest > reach).sum()):
            what = f"{n:,} of {counted(len(own), 'box is', 'boxes are')} longer than the {reach} px that the head can predict"
            lines.append(f"{s.title}: {what}, at most {longest.max():.0f} px at data.image_size={size}; {advice}")
    return lines


def few_updates(config: DetectionRun, updates: int) -> list[str]:
    """A line where a network from scratch makes few updates, and smaller batches would make more from the same images.

    Args:
        updates: steps of the run.
    """
    model, batch = config.model, config.train.global_batch
    scratch = isinstance(model, YoloConfig) and not model.pretrained and config.init_from is None
    asked = config.train.steps is not None or config.data.overfit is not None
    if not scratch or asked or batch < 2 * FEW_BATCH or updates >= FEW:
        return []
    made = updates * batch // FEW_BATCH
    more = f"train.global_batch={FEW_BATCH} gives {made:,} from the same images, on at most {FEW_BATCH} ranks"
    return [f"{counted(updates, 'update')} are few for a network that starts from scratch; {more}"]


def _sizes_figure(sets: Sequence[DataSet], sizes: Sequence[Sizes], size: int) -> str:
    series = [(s.title, (f.sides / max(f.sides.sum(), 1)).tolist()) for s, f in zip(sets, sizes)]
    ticks = [f"{e:.0f}" if i % 2 == 0 else "" for i, e in enumerate(EDGES)]
    # edge k stands k + 1 bins from the left, and there are two bins to an octave
    marks = [(1 + 2 * float(np.log2(px)), text) for px, text in ((8, "8 px"), (32, "medium"), (96, "large"))]
    return histogram(series, ticks, f"root of the area in pixels of the {size} px input", marks, "part of the boxes")
