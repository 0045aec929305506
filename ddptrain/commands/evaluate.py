"""`ddptrain eval`: evaluate the weights of a run again, on any number of ranks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ddptrain import distributed
from ddptrain.checkpoint.load import Checkpoint, load_checkpoint
from ddptrain.config import DatasetConfig, resolve
from ddptrain.data.tables.contents import Contents, differences
from ddptrain.distributed import World
from ddptrain.engine.evaluate import Evaluation, evaluate
from ddptrain.reporting.console import Console
from ddptrain.reporting.history import plain
from ddptrain.reporting.table import Table
from ddptrain.system.printable import warn
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task


def evaluate_run(run: Path, overrides: Sequence[str], as_json: bool) -> int:
    """Evaluate the best weights of a run, or those of a checkpoint, on the validation datasets of its config.

    Args:
        run: run folder or checkpoint.
        overrides: changes to the run's config, `key=value`.
        as_json: print all metrics as JSON (null where there is no truth to find) instead of the table.
    """
    file, task, evaluation, world = evaluate_checkpoint(run, overrides)
    if world.main and as_json:
        print(json.dumps(plain(evaluation.metrics), indent=1))
    elif world.main:
        with Console(None, total_steps=0, steps_per_epoch=1) as console:
            console.table(str(file), Table(*task.view.summary(evaluation.metrics)))
            for remark in task.view.remarks(evaluation.metrics):
                console.line(f"warning: {remark}")
    return 0


def evaluate_checkpoint(run: Path, overrides: Sequence[str]) -> tuple[Path, Task, Evaluation, World]:
    """Load a run's best checkpoint, or the checkpoint that is named, and evaluate it by all ranks.

    Returns:
        Its file, the task of its config, the evaluation, and the ranks.
    """
    checkpoint = load_checkpoint(run, best=True)
    config = resolve(json.loads(checkpoint.config.model_dump_json()), overrides, source=str(checkpoint.path), stored=True)
    world = distributed.discover(config.train.device)
    with distributed.process_group(world, config.train.timeout_s):
        task = distributed.agree(lambda: build_task(config), "reading the datasets")
        for line in replaced_data(checkpoint, config.data.val, task.contents) if world.main else ():
            warn(f"{line}: other data than in the training, the metrics do not compare with those of the run")
        evaluation = evaluate(task, checkpoint.fill(task.build_model()).to(world.device), world)
    if world.main:
        for line in evaluation.warnings():
            print(f"warning: {line}", file=sys.stderr)
    return checkpoint.path, task, evaluation, world


def replaced_data(checkpoint: Checkpoint, val: Sequence[DatasetConfig], contents: Sequence[Contents]) -> Sequence[str]:
    """A line for each validation dataset whose images or labels are not those that the checkpoint has seen.

    One that the overrides read in another way (another split, other annotations) is meant to be another one.
    """
    old = {d.name: d for d in checkpoint.config.data.val}
    other = [d.name for d in val if d.name in old and d != old[d.name].model_copy(update={"root": d.root})]
    now = [c.state() for c in contents if c.part == "val" and c.name not in other]
    return differences(checkpoint.contents, now)["val"]
