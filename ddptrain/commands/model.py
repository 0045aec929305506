"""`ddptrain model`: the network of a config in numbers, part by part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddptrain.config import load_config
from ddptrain.errors import UserError
from ddptrain.models.yolo.network import CspBackbone, Yolo
from ddptrain.models.yolo.reach import levels
from ddptrain.reporting.table import Table
from ddptrain.system.printable import say
from ddptrain.tasks.build import new_task


class Stage(NamedTuple):
    """A part of a network.

    Attributes:
        name: of the module.
        output: shapes of what it gave for one image, in words; empty where it was not called by itself.
        parameters: of it and all below.
        gflops: 1e9 floating-point operations an image, a multiplication and an addition counted as two; convolutions,
            matrix products and attention are counted, the rest is small.
    """

    name: str
    output: str
    parameters: int
    gflops: float


def describe_model(source: str, overrides: Sequence[str], as_json: bool) -> int:
    """Print the stages of the network, their sum, and for the package's own detector what its levels see and can predict."""
    config = load_config(source, overrides)
    if not config.classes:
        raise UserError(
            "classes: auto: their number is only known once the datasets are read; list the classes, or use ddptrain check"
        )
    task = new_task(config)
    torch.manual_seed(config.seed)
    model = task.build_model().eval()
    example = task.example_input()
    stages = stages_of(model, example)
    facts: dict[str, Any] = {"stages": [s._asdict() for s in stages]}
    if isinstance(model, Yolo) and isinstance(model.backbone, CspBackbone):
        facts["levels"] = [level._asdict() for level in levels(model, example[0].shape[1])]
    if as_json:
        print(json.dumps(facts, indent=1))
        return 0
    side = config.data.image_size
    say(f"{config.model.name}, {len(config.classes)} classes, an image of {side} x {side} pixels")
    for line in Table(["part", "output", "parameters", "GFLOPs"], [list(s) for s in stages]).text().splitlines():
        say(line)
    for level in facts.get("levels", ()):
        longest = "of any size" if level["longest"] is None else f"up to {level['longest']} pixels long"
        stride, points = level["stride"], (side // level["stride"]) ** 2
        field = f"at least {level['field']}" if level["beyond"] else f"{level['field']}"
        say(f"level of stride {stride}: {points} points; each sees a square of {field} pixels and predicts boxes {longest}")
    return 0


def stages_of(model: nn.Module, example: tuple[Tensor, ...]) -> list[Stage]:
    """The parts of a network's parts in the order in which they are called, and the sum.

    Args:
        example: an input of two images; the numbers are for one.
    """
    opened = list(_parts("", model, 2))
    outputs: dict[str, str] = {}

    def note(name: str, module: nn.Module, inputs: Any, out: Any) -> None:
        outputs.setdefault(name, _shapes(out))

    handles = [m.register_forward_hook(partial(note, name)) for name, m in opened]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*example)
    for handle in handles:
        handle.remove()
    images = len(example[0])
    root = type(model).__name__
    counts = {name: sum(c.values()) / images / 1e9 for name, c in counter.get_flop_counts().items()}
    rows = [Stage(n, outputs.get(n, ""), _parameters(m), counts.get(f"{root}.{n}", 0.0)) for n, m in opened]
    rows = [row for row in rows if row.parameters or row.gflops]
    order = {name: i for i, name in enumerate(outputs)}
    rows.sort(key=lambda row: order.get(row.name, len(order)))
    return [*rows, Stage("all", "", _parameters(model), counter.get_total_flops() / images / 1e9)]


def _parts(name: str, module: nn.Module, depth: int) -> Iterator[tuple[str, nn.Module]]:
    """The modules so many calls below a module; lists and dictionaries of modules are not called themselves."""
    inside = [(f"{name}.{n}".removeprefix("."), child) for n, child in module.named_children()]
    listed = isinstance(module, (nn.ModuleList, nn.ModuleDict))
    if not inside or not (depth or listed):
        yield name, module
        return
    for n, child in inside:
        yield from _parts(n, child, depth if listed else depth - 1)


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _shapes(out: Any) -> str:
    if isinstance(out, Tensor):
        return " x ".join(map(str, out.shape[1:]))
    items = list(out.values()) if isinstance(out, dict) else list(out) if isinstance(out, (list, tuple)) else []
    return ", ".join(filter(None, (_shapes(item) for item in items)))
