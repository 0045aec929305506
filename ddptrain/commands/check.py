"""`ddptrain check`: what a run would do, and what prevents it, in seconds and without a GPU."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddptrain.checkpoint.weights import load_initial
from ddptrain.config import RunConfig
from ddptrain.config.batch import split_batch
from ddptrain.engine.memory import estimate
from ddptrain.errors import UserError
from ddptrain.reporting import ledger
from ddptrain.reporting.console import Console
from ddptrain.reporting.history import plain
from ddptrain.reporting.page import Section, page, picture
from ddptrain.reporting.pictures import grid
from ddptrain.structures import PlanRow, SampleKey
from ddptrain.system.files import write_text
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
        config, found = task.config, task.inspect(images)
    except UserError as e:  # of the classes; faults of datasets are gathered
        found = Inspection(errors=[str(e)])
    if not found.errors:
        _look_at_task(config, task, found)
    title = f"{config.name}: {config.task}, {len(config.classes)} classes"
    subtitle = f"ddptrain {__version__} check {source}"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page(title, subtitle, found.errors, found.warnings, found.sections))
    if as_json:
        print(
            json.dumps({"errors": found.errors, "warnings": found.warnings, "page": str(out), **plain(found.facts)}, indent=1)
        )
    else:
        _say(found, out)
    return 1 if found.errors else 0


def _say(found: Inspection, out: Path) -> None:
    with Console(None, total_steps=0, steps_per_epoch=1, stream=sys.stdout) as console:
        for section in found.sections:
            if section.rows:
                console.table(section.title, section.columns, section.rows)
            elif section.lines:
                console.line(section.title)
            for line in section.lines:
                console.line(line)
        for kind, lines in (("error", found.errors), ("warning", found.warnings)):
            for line in lines:
                console.line(f"{kind}: {line}")
        console.line(f"{_counted(found.errors, 'error')}, {_counted(found.warnings, 'warning')}; the page: {out}")


def _counted(lines: Sequence[str], noun: str) -> str:
    return f"{len(lines)} {noun}" + ("" if len(lines) == 1 else "s")


def _look_at_task(config: RunConfig, task: Task, found: Inspection) -> None:
    """Sections that every task has: mixture, pictures, split, memory."""
    try:
        task.read()
        _mixture(config, task.sampler.plan(), task.sampler.mixture.samples_per_epoch, found)
        found.warnings += task.sampler.mixture.warnings()
        noted = [n.removeprefix("warning: ") for n in task.notes if n.startswith("warning: ")]
        found.warnings += [n for n in noted if n not in found.warnings]
        _split_and_memory(config, task, found)
        _look_at_weights(config, task, found)
        found.sections.append(_pictures(task))
    except UserError as e:
        found.errors.append(str(e))


def _look_at_weights(config: RunConfig, task: Task, found: Inspection) -> None:
    """What would be taken of `init_from`, where the run would begin with it."""
    if config.init_from is None or config.resume is not None:
        return
    lines = load_initial(task.build_model(), Path(config.init_from), config.classes, config.init_strict)
    found.warnings += [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
    found.sections.append(Section("Weights", [line for line in lines if not line.startswith("warning: ")]))


def _mixture(config: RunConfig, plan: Sequence[PlanRow], samples: int, found: Inspection) -> None:
    steps = run_length(config.train, samples)
    epochs = steps * config.train.global_batch / samples
    noun = "step" if steps == 1 else "steps"
    line = f"{steps} {noun} of {config.train.global_batch} samples, {epochs:.4g} epochs of {samples} samples."
    found.sections.append(Section("Mixture", [line], ledger.COLUMNS, ledger.plan_table(plan)))
    found.facts["mixture"] = [row._asdict() for row in plan]
    found.facts["steps"] = steps


def _split_and_memory(config: RunConfig, task: Task, found: Inspection) -> None:
    batch, micro = config.train.global_batch, config.train.micro_batch
    memory = estimate(
        task, config.seed, config.optimizer.name, averaged=config.ema.enabled, mixed=config.train.precision != "none"
    )
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
        found.errors.append(f"the loss of the untrained model is {memory.loss}")
    found.sections.append(section)
    found.facts["memory"] = memory._asdict()


def _pictures(task: Task) -> Section:
    mixture = task.sampler.mixture
    section = Section("What the network sees")
    for d, (name, size) in enumerate(zip(mixture.names, mixture.sizes)):
        if not size:
            continue
        indices = np.unique(np.arange(PICTURES) * size // PICTURES).tolist()
        drawn = [task.view.picture(task.train[SampleKey(PICTURES * d + i, d, index)]) for i, index in enumerate(indices)]
        text = f"{name}: augmented, with labels; grey hatching is ignored. Titles are names of files."
        section.figures.append(picture(grid(drawn, columns=2), text))
    return section
