"""What `check` advises about the input of the detector: its size, whole images or tiles, its levels, and what each costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddptrain import distributed
from ddptrain.config import DetectionRun, YoloConfig
from ddptrain.config.tiles import WindowsConfig
from ddptrain.data.tables.base import F64
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.windows import Cutter, Tiles
from ddptrain.models.yolo.cost import Cost, cost_of_a_pixel
from ddptrain.reporting.page import Section
from ddptrain.structures import STRIDE
from ddptrain.tasks.inspection.base import DataSet, Inspection

TINY, FEW = 8, 0.1
"""Pixels below which a box is hardly found, and the part of the boxes that may be."""
MANY = 0.25
"""Part of the boxes below two points of the finest level from which on a finer one is advised."""
FACTORS, SCALES = (1.0, 1.5, 2.0, 3.0), (0.5, 1.0)
"""Sizes of the input that are looked at, as factors of `data.image_size`; scales of images that are cut into tiles."""


class Drawn(NamedTuple):
    """The boxes that are learned, each as often as the mixture draws it.

    Attributes:
        side: float64 `[n]`: root of a box's area in pixels of its file.
        longest: float64 `[n]`: the longer side of its image.
        weight: float64 `[n]`, sum 1.
    """

    side: F64
    longest: F64
    weight: F64


class Choice(NamedTuple):
    """A way to show images to the network.

    Attributes:
        size: side of the input in pixels.
        sides: float64 `[n]`: of the boxes in its pixels.
        windows: inputs that an image makes.
        cost: of a pixel.
        scale: of an image that is cut into tiles; None for whole images.
        strides: other levels than those of the config; None for these.
        configured: as the config has it, with datasets that it cuts into tiles of their own.
    """

    size: int
    sides: F64
    windows: float
    cost: Cost
    scale: float | None = None
    strides: tuple[int, ...] | None = None
    configured: bool = False

    @property
    def name(self) -> str:
        """In words."""
        what = f"whole, {self.size} px" if self.scale is None else f"tiles of {self.size} px, scale {self.scale:g}"
        what = f"tiles of data.train, {self.size} px" if self.configured else what
        return what if self.strides is None else f"{what}, model.strides={list(self.strides)}"

    def operations(self) -> float:
        """1e9 of the forward pass of an input."""
        return self.cost.operations * self.size**2 / 1e9

    def seconds(self) -> float:
        """Of the forward and the backward pass of an input."""
        return self.cost.seconds * self.size**2

    def memory(self, halved: bool) -> float:
        """MiB of activations of an input."""
        return self.cost.bytes * self.size**2 / (2 if halved else 1) / 2**20


def drawn_boxes(tables: Sequence[AnnotationTable], shares: Sequence[float]) -> Drawn:
    """The boxes of training datasets with their shares of the draws."""
    parts = []
    for table, share in zip(tables, shares):
        kept = table.learned()
        boxes = table.boxes[kept].astype(np.float64)
        longest = table.sizes.max(1).astype(np.float64)[table.image_of_rows()[kept]]
        side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
        parts.append((side, longest, np.full(len(boxes), share / max(len(table), 1))))
    side, longest, weight = (np.concatenate(column) for column in zip(*parts))
    return Drawn(side, longest, weight / max(weight.sum(), 1e-12))


def as_configured(tables: Sequence[AnnotationTable], tiles: Sequence[Tiles | None], size: int, cost: Cost) -> Choice:
    """The boxes of `drawn_boxes` where some datasets are cut into tiles, each as the scale shows it that enlarges it most.

    Args:
        tiles: of each dataset, None where its samples are whole images.
    """
    sides = []
    for table, cut in zip(tables, tiles):
        kept = table.learned()
        boxes, shown = table.boxes[kept].astype(np.float64), table.sizes.max(1)[table.image_of_rows()[kept]]
        shown = shown if cut is None else np.minimum(shown, min(cut.cutter.sides))
        sides.append(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) * size / shown)
    inputs = sum(len(table if cut is None else cut.image) for table, cut in zip(tables, tiles))
    return Choice(size, np.concatenate(sides), inputs / sum(map(len, tables)), cost, configured=True)


def tiles_of(sizes: np.ndarray, tile: int, scale: float) -> float:
    """Mean number of tiles of images of some sizes, int `[N, 2]`, seen at a scale."""
    cutter = Cutter.of(WindowsConfig(scales=(scale,)), tile)
    shapes, counts = np.unique(sizes, axis=0, return_counts=True)
    return float(np.average([len(cutter.windows(*shape)) for shape in shapes.tolist()], weights=counts))


def choices(drawn: Drawn, sizes: np.ndarray, image_size: int, cost: Cost) -> list[Choice]:
    """Whole images, from the present size on up to that of the largest file, and tiles of the present size.

    Args:
        sizes: int `[N, 2]`: of the images.
    """
    largest = int(sizes.max())
    wanted = {image_size, *(int(-(-image_size * f // STRIDE)) * STRIDE for f in FACTORS)}
    out = []
    for size in sorted(s for s in wanted if s == image_size or s < largest + STRIDE):
        out.append(Choice(size, drawn.side * size / drawn.longest, 1.0, cost))
    for scale in SCALES:
        if largest * scale > image_size:
            out.append(Choice(image_size, drawn.side * scale, tiles_of(sizes, image_size, scale), cost, scale))
    return out


def report_advice(config: DetectionRun, sets: Sequence[DataSet], tiles: Sequence[Tiles | None], out: Inspection) -> None:
    """A section and facts for a run of the package's own detector; nothing where no box is learned.

    Args:
        tiles: of each dataset, None where its samples are whole images.
    """
    used = [(s, cut) for s, cut in zip(sets, tiles) if s.part == "train" and s.used]
    tables, cuts = [s.table for s, _ in used], [cut for _, cut in used]
    if not isinstance(config.model, YoloConfig) or not sum(int(t.learned().sum()) for t in tables):
        return
    shares = [len(cut or s.table) if s.config.share is None else s.config.share for s, cut in used]
    drawn = drawn_boxes(tables, shares)
    model, size, halved = config.model, config.data.image_size, config.train.precision != "none"
    device = distributed.discover_or_cpu(config.train.device, {}).device  # of this process alone, whatever started it
    cost = cost_of_a_pixel(model, len(config.classes), device)
    offered = choices(drawn, np.concatenate([t.sizes for t in tables]), size, cost)
    if any(cuts):
        offered.insert(0, as_configured(tables, cuts, size, cost))
    now = offered[0]
    if model.backbone is None and model.strides[0] == 8:
        finer = (4, *model.strides)
        cost = cost_of_a_pixel(model.model_copy(update={"strides": finer}), len(config.classes), device)
        offered.append(now._replace(cost=cost, strides=finer))
    section = Section("Sizes of the input and what they cost")
    sizes, costs = ("median box", "below 8 px", "below 16 px", "inputs"), ("GFLOPs of one", "to now", "activations")
    section.columns = ("input", *sizes, *costs, f"time, {device.type}")
    section.rows = [_row(c, now, drawn, halved) for c in offered]
    section.lines = advise(offered, drawn, model.strides[0])
    out.sections.append(section)
    out.facts["advice"] = {"lines": section.lines, "choices": [_facts(c, drawn, halved) for c in offered]}


def _row(choice: Choice, now: Choice, drawn: Drawn, halved: bool) -> list[object]:
    small = [f"{100 * below(choice, drawn, px):.0f} %" for px in (TINY, 2 * TINY)]
    operations = [f"{choice.operations():.1f}", f"{choice.operations() / now.operations():.2f}"]
    middle = f"{median(choice.sides, drawn.weight):.1f} px"
    seconds = choice.seconds()
    taken = f"{1000 * seconds:.3g} ms" if seconds < 1 else "unknown" if math.isnan(seconds) else f"{seconds:.3g} s"
    costs = [*operations, f"{choice.memory(halved):.0f} MB", taken]
    return [choice.name, middle, *small, f"{choice.windows:.1f}", *costs]


def _facts(choice: Choice, drawn: Drawn, halved: bool) -> dict[str, object]:
    return {
        "input": choice.name,
        "image_size": choice.size,
        "tile_scale": choice.scale,
        "strides": choice.strides,
        "median": median(choice.sides, drawn.weight),
        "below_8px": below(choice, drawn, TINY),
        "below_16px": below(choice, drawn, 2 * TINY),
        "inputs_per_image": choice.windows,
        "gflops": choice.operations(),
        "activation_mb": choice.memory(halved),
        "seconds": None if math.isnan(choice.seconds()) else choice.seconds(),
    }


def advise(offered: Sequence[Choice], drawn: Drawn, finest: int) -> list[str]:
    """Sentences on the size, the tiles and the levels that the boxes ask for.

    Args:
        offered: see `choices`, and one with other levels; the first is that of the config.
        finest: stride of its finest level.
    """
    now, whole = offered[0], [c for c in offered if c.scale is None and c.strides is None and not c.configured]
    chosen = next((c for c in (now, *whole) if below(c, drawn, TINY) <= FEW), whole[-1])
    present, there = f"{100 * below(now, drawn, TINY):.0f} %", _where(now)
    if chosen is now:
        lines = [f"{present} of the boxes are below {TINY} px {there}; no larger input is needed."]
    else:
        times = chosen.operations() / now.operations()
        lines = [
            f"data.image_size={chosen.size} leaves {100 * below(chosen, drawn, TINY):.0f} % of the boxes of whole images below "
            f"{TINY} px ({present} {there if now.configured else f'at {now.size}'}), for {times:.1f} times the operations and "
            "activations of a sample."
        ]
        tiles = [c for c in offered if c.scale is not None]
        tile = next((c for c in tiles if below(c, drawn, TINY) <= FEW), tiles[-1] if tiles else None)
        if tile is not None and (not now.configured or below(tile, drawn, TINY) < below(now, drawn, TINY)):
            rest = f"{100 * below(tile, drawn, TINY):.0f} %"
            lines.append(
                f"Tiles of {tile.size} px (tiles: {{scales: [{tile.scale:g}]}} of a dataset) leave {rest}, and a sample "
                f"costs the same; an image makes {tile.windows:.1f} of them, also in an evaluation."
            )
    fine = next((c for c in offered if c.strides is not None), None)
    tight = below(chosen, drawn, 2 * finest)
    if fine is not None and tight > MANY:
        operations, memory = fine.operations() / now.operations(), fine.cost.bytes / now.cost.bytes
        lines.append(
            f"model.strides={list(fine.strides or ())}: {100 * tight:.0f} % of the boxes are below {2 * finest} px "
            f"{_where(chosen)}, two points of the finest level; it takes {operations:.1f} times the operations "
            f"and {memory:.1f} times the activations."
        )
    return lines


def _where(choice: Choice) -> str:
    return "in the tiles of data.train" if choice.configured else f"at data.image_size={choice.size}"


def below(choice: Choice, drawn: Drawn, pixels: int) -> float:
    """Part of the drawn boxes that are smaller."""
    return float(drawn.weight[choice.sides < pixels].sum())


def median(values: F64, weight: F64) -> float:
    """Weighted median."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(weight[order].cumsum(), 0.5 * weight.sum())])
