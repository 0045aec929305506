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
from ddptrain.metrics.outcome import FILE, write_outcome
from ddptrain.reporting.console import Console
from ddptrain.reporting.history import plain
from ddptrain.reporting.table import Table
from ddptrain.system.printable import warn
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task
from ddptrain.tasks.intervals import interval_table, shown_keys


def evaluate_run(run: Path, overrides: Sequence[str], as_json: bool, save: Path | None = None) -> int:
    """Evaluate the best weights of a run, or those of a checkpoint, on the validation datasets of its config.

    Args:
        run: run folder or checkpoint.
        overrides: changes to the run's config, `key=value`.
        as_json: print all metrics as JSON (null where there is no truth to find) instead of the tables.
        save: file for what `ddptrain compare` reads; None for the run's own, which only its own config writes.
    """
    checkpoint, task, evaluation, world = evaluate_checkpoint(run, overrides)
    if not world.main:
        return 0
    about = {"step": checkpoint.step, "weights": weights_name(run, checkpoint)}
    outcome = task.outcome(evaluation.predictions, evaluation.metrics, about)
    if save is None and run.is_dir() and not overrides:
        save = run / FILE
    if outcome is not None and save is not None:
        write_outcome(save, outcome)
    intervals = {} if outcome is None else outcome.intervals(shown_keys(outcome))
    if as_json:
        ends = {f"interval/{k}/{end}": v for k, pair in intervals.items() for end, v in zip(("low", "high"), pair)}
        print(json.dumps(plain(evaluation.metrics | ends), indent=1))
        return 0
    with Console(None, total_steps=0, steps_per_epoch=1, stream=sys.stdout) as console:
        console.table(str(checkpoint.path), Table(*task.view.summary(evaluation.metrics)))
        if outcome is not None:
            console.table("with 95 % intervals over images", interval_table(outcome, intervals))
        for remark in task.view.remarks(evaluation.metrics):
            console.line(f"warning: {remark}")
    return 0


def weights_name(run: Path, checkpoint: Checkpoint) -> str:
    """`best`, `last`, or the name of the file."""
    best = checkpoint.path.parent / "best.pt"
    if best.exists() and best.resolve() == checkpoint.path:
        return "best"
    return "last" if run.is_dir() else checkpoint.path.name


def evaluate_checkpoint(run: Path, overrides: Sequence[str]) -> tuple[Checkpoint, Task, Evaluation, World]:
    """Load a run's best checkpoint, or the checkpoint that is named, and evaluate it by all ranks.

    Returns:
        It, the task of its config, the evaluation, and the ranks.
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
    return checkpoint, task, evaluation, world


def replaced_data(checkpoint: Checkpoint, val: Sequence[DatasetConfig], contents: Sequence[Contents]) -> Sequence[str]:
    """A line for each validation dataset whose images or labels are not those that the checkpoint has seen.

    One that the overrides read in another way (another split, other annotations) is meant to be another one.
    """
    old = {d.name: d for d in checkpoint.config.data.val}
    other = [d.name for d in val if d.name in old and d != old[d.name].model_copy(update={"root": d.root})]
    now = [c.state() for c in contents if c.part == "val" and c.name not in other]
    return differences(checkpoint.contents, now)["val"]
