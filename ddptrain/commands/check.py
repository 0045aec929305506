"""`ddptrain check`: what a run would do, and what prevents it, in seconds and without a GPU."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

from ddptrain.checkpoint.weights import load_initial
from ddptrain.config import RunConfig
from ddptrain.config.batch import split_batch
from ddptrain.engine.memory import estimate
from ddptrain.errors import UserError
from ddptrain.reporting.console import Console
from ddptrain.reporting.history import plain
from ddptrain.reporting.ledger import plan_table
from ddptrain.reporting.page import Section, page, picture
from ddptrain.reporting.pictures import grid
from ddptrain.reporting.table import Table
from ddptrain.structures import SampleKey
from ddptrain.system.files import write_text
from ddptrain.system.printable import counted
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import new_task
from ddptrain.tasks.inspection.base import Inspection
from ddptrain.tasks.stream import run_length
from ddptrain.version import __version__

PICTURES = 4
"""Samples of each training dataset that are shown."""
RANKS = (1, 2, 4, 8, 16)


def check_run(config: RunConfig, source: str, out: Path, as_json: bool, images: int) -> int:
    """Inspect a run, write the page, and report errors and warnings.

    Args:
        source: the config's file, for the heading.
        out: the HTML page.
        as_json: print all facts as JSON instead of tables.
        images: number of images to open in the search for duplicates; 0 for all.

    Returns:
        1 if training would refuse to start, else 0.
    """
    try:
        task = new_task(config).with_classes()
        config, inspection = task.config, task.inspect(images)
    except UserError as e:  # of the classes; faults of datasets are gathered
        inspection = Inspection(errors=[str(e)])
    if not inspection.errors:
        _add_run(task, inspection)
    title = f"{config.name}: {config.task}, {len(config.classes)} classes"
    subtitle = f"ddptrain {__version__} check {source}"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page(title, subtitle, inspection.errors, inspection.warnings, inspection.sections))
    if as_json:
        facts = {"errors": inspection.errors, "warnings": inspection.warnings, "page": str(out), **plain(inspection.facts)}
        print(json.dumps(facts, indent=1))
    else:
        _print(inspection, out)
    return 1 if inspection.errors else 0


def _print(inspection: Inspection, out: Path) -> None:
    with Console(None, total_steps=0, steps_per_epoch=1, stream=sys.stdout) as console:
        for section in inspection.sections:
            if section.rows:
                console.table(section.title, Table(section.columns, section.rows))
            elif section.lines:
                console.line(section.title)
            for line in section.lines:
                console.line(line)
        for kind, lines in (("error", inspection.errors), ("warning", inspection.warnings)):
            for line in lines:
                console.line(f"{kind}: {line}")
        errors, warnings = counted(len(inspection.errors), "error"), counted(len(inspection.warnings), "warning")
        console.line(f"{errors}, {warnings}; the page: {out}")


def _add_run(task: Task, inspection: Inspection) -> None:
    """Sections that every task has: mixture, memory and split, weights, pictures."""
    try:
        task.read()
        _add_mixture(task, inspection)
        inspection.warnings += task.sampler.mixture.warnings()
        warnings = [n.removeprefix("warning: ") for n in task.notes if n.startswith("warning: ")]
        inspection.warnings += [w for w in warnings if w not in inspection.warnings]
        _add_memory(task, inspection)
        _add_weights(task, inspection)
        inspection.sections.append(_pictures(task))
    except UserError as e:
        inspection.errors.append(str(e))


def _add_weights(task: Task, inspection: Inspection) -> None:
    """The part of `init_from` that a new run would take."""
    config = task.config
    if config.init_from is None or config.resume is not None:
        return
    lines = load_initial(task.build_model(), Path(config.init_from), config.classes, config.init_strict)
    inspection.warnings += [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
    inspection.sections.append(Section("Weights", [line for line in lines if not line.startswith("warning: ")]))


def _add_mixture(task: Task, inspection: Inspection) -> None:
    train, plan, samples = task.config.train, task.sampler.plan(), task.sampler.mixture.samples_per_epoch
    steps = run_length(train, samples)
    epochs = steps * train.global_batch / samples
    line = f"{counted(steps, 'step')} of {train.global_batch} samples, {epochs:.4g} epochs of {samples} samples."
    inspection.sections.append(Section("Mixture", [line], *plan_table(plan)))
    inspection.facts["mixture"] = [row._asdict() for row in plan]
    inspection.facts["steps"] = steps


def _add_memory(task: Task, inspection: Inspection) -> None:
    config = task.config
    batch, micro = config.train.global_batch, config.train.micro_batch
    memory = estimate(task)
    rows: list[list[object]] = []
    for ranks in RANKS:
        try:
            split = split_batch(batch, micro, ranks)
        except UserError:
            rows.append([ranks, None, None, None])
            continue
        total = memory.state + memory.activations * split.micro_batch
        rows.append([ranks, split.micro_batch, split.accumulation, f"{total / 2**30:.2f} GB"])
    section = Section("Memory and split", columns=("ranks", "micro batch", "accumulation", "per rank"), rows=rows)
    section.lines = [
        f"{memory.parameters / 1e6:.2f} M parameters; {memory.state / 2**20:.0f} MB for weights, gradients, optimizer and "
        f"average, {memory.activations / 2**20:.0f} MB of activations per sample at train.precision={config.train.precision}. "
        "An estimate; CUDA's own libraries add 0.5 to 1 GB.",
        f"The untrained model's loss on two samples is {memory.loss:.4g}.",
    ]
    if not math.isfinite(memory.loss):
        inspection.errors.append(f"the loss of the untrained model is {memory.loss}")
    inspection.sections.append(section)
    total = memory.state + memory.activations * split_batch(batch, micro, 1).micro_batch
    inspection.facts["memory"] = memory._asdict() | {"total": total}


def _pictures(task: Task) -> Section:
    mixture = task.sampler.mixture
    section = Section("What the network sees")
    for d, (name, size) in enumerate(zip(mixture.names, mixture.sizes)):
        if not size:
            continue
        indices = np.unique(np.arange(PICTURES) * size // PICTURES).tolist()
        drawn = [task.view.picture(task.train[SampleKey(PICTURES * d + i, d, index)]) for i, index in enumerate(indices)]
        text = f"{name}: augmented, with labels; grey hatching marks what is ignored. Titles are file names."
        section.figures.append(picture(grid(drawn, columns=2), text))
    section.figures += [picture(image, text) for image, text in task.view.figures()]
    return section
