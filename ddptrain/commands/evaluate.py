"""`ddptrain eval RUN`: evaluate the weights of a run again, on any number of ranks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddptrain import distributed
from ddptrain.checkpoint.load import Checkpoint, load_checkpoint
from ddptrain.commands.eval_arguments import Output
from ddptrain.commands.eval_output import make_folders, show, write_predictions
from ddptrain.config import DatasetConfig, RunConfig, resolve
from ddptrain.config.text import parse_yaml
from ddptrain.data.formats.texts import read_text
from ddptrain.data.tables.contents import Contents, differences
from ddptrain.distributed import World
from ddptrain.engine.arithmetic import arithmetic
from ddptrain.engine.evaluate import Evaluation, evaluate
from ddptrain.errors import UserError
from ddptrain.metrics.outcome import FILE
from ddptrain.system.printable import warn
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task
from ddptrain.tasks.detection.task import DetectionTask


def evaluate_run(
    run: Path, overrides: Sequence[str], output: Output, weights: str | None = None, data: Path | None = None
) -> int:
    """Evaluate the best weights of a run, or other ones, on the validation datasets of its config, or on others.

    Args:
        run: run folder or checkpoint.
        overrides: changes to the run's config, `key=value`.
        output: where the metrics go; without a file for `ddptrain compare` the run's own takes it, if nothing was changed.
        weights: `best`, `last`, or the path of a checkpoint; None for the best, or the checkpoint that `run` is.
        data: a config whose `data.val` takes the place of the run's.
    """
    make_folders(output)
    of_boxes = "--split-by" if output.split_by else "--save-predictions" if output.predictions else ""
    checkpoint, task, evaluation, world = evaluate_checkpoint(run, overrides, weights, data, of_boxes)
    if not world.main:
        return 0
    about = about_weights(run, checkpoint, weights)
    outcome = task.outcome(evaluation.predictions, evaluation.metrics, about)
    own = run / FILE if run.is_dir() and not overrides and data is None and weights in (None, "best") else None
    show(task, str(checkpoint.path), evaluation.metrics, outcome, output, own)
    if output.predictions is not None:
        write_predictions(output.predictions, task, evaluation.predictions)
    return 0


def about_weights(run: Path, checkpoint: Checkpoint, given: str | None = None) -> dict[str, Any]:
    """What is kept of the weights with their evaluation: `step`, `digest`, and `weights`, which is `best`, `last`, or the name
    of a checkpoint that was named by its path; `given` is `--weights`."""
    best, name = checkpoint.path.parent / "best.pt", checkpoint.path.name
    if given in (None, "best", "last"):
        is_best = best.exists() and best.resolve() == checkpoint.path
        name = "best" if is_best else "last" if run.is_dir() else name
    return {"step": checkpoint.step, "weights": name, "digest": checkpoint.digest}


def evaluate_checkpoint(
    run: Path, overrides: Sequence[str], weights: str | None = None, data: Path | None = None, of_boxes: str = ""
) -> tuple[Checkpoint, Task, Evaluation, World]:
    """Load the weights that `evaluate_run` describes, and evaluate them by all ranks.

    Args:
        of_boxes: an option that was given, and that only an evaluation of detection has.

    Returns:
        The checkpoint, the task of its config, the evaluation, and the ranks.
    """
    if weights is not None and run.is_file():
        raise UserError(f"--weights: {run} is already a checkpoint; give its run folder, or omit --weights")
    if weights in (None, "best", "last"):
        checkpoint = load_checkpoint(run, best=weights != "last")
    else:
        checkpoint = load_checkpoint(Path(str(weights)))
    stored = json.loads(checkpoint.config.model_dump_json())
    config = resolve(_on(stored, data), overrides, source=str(data or checkpoint.path), stored=True)
    world = distributed.discover(config.train.device)
    if world.main and world.lacking:
        warn(world.lacking)
    with arithmetic(config.train, world.device), distributed.process_group(world, config.train.timeout_s):
        task = distributed.agree(lambda: _task(config, of_boxes), "reading the datasets")
        model = checkpoint.fill(task.build_model())
        if world.main:
            say_notes(task.notes)
        for line in replaced_data(checkpoint, config.data.val, task.contents) if world.main and data is None else ():
            warn(f"{line}: not the data of the training, so its metrics cannot be compared with those of the run")
        evaluation = evaluate(task, model.to(world.device), world)
    if world.main:
        for line in evaluation.warnings():
            print(f"warning: {line}", file=sys.stderr)
    return checkpoint, task, evaluation, world


def _task(config: RunConfig, of_boxes: str) -> Task:
    task = build_task(config)
    if of_boxes and not isinstance(task, DetectionTask):
        raise UserError(f"{of_boxes}: only available for detection; this run's task is {config.task}; leave it out")
    return task


def say_notes(notes: Sequence[str]) -> None:
    """Say on stderr what was read of the validation datasets, and what of them was left out."""
    for note in notes:
        text = note.removeprefix("warning: ")
        if not (text.startswith("val ") or "validation" in text):  # the training data are read, too, but not used
            continue
        if text == note:
            print(f"ddptrain: note: {note}", file=sys.stderr)
        else:
            warn(text)


def _on(stored: dict[str, Any], data: Path | None) -> dict[str, Any]:
    """The config of a run with the validation datasets of another config."""
    if data is None:
        return stored
    content = parse_yaml(read_text(data), str(data))
    section = content.get("data") if isinstance(content, dict) else None
    val = section.get("val") if isinstance(section, dict) else None
    if not val:
        raise UserError(f"--data: {data} has no data.val; list the datasets to evaluate on there, as in a run's config")
    return stored | {"data": stored["data"] | {"val": val}}


def replaced_data(checkpoint: Checkpoint, val: Sequence[DatasetConfig], contents: Sequence[Contents]) -> Sequence[str]:
    """A line for each validation dataset whose images or labels are not those that the checkpoint has seen.

    One that the overrides read in another way (another split, other annotations) is meant to be another one.
    """
    old = {d.name: d for d in checkpoint.config.data.val}
    other = [d.name for d in val if d.name in old and d != old[d.name].model_copy(update={"root": d.root})]
    now = [c.state() for c in contents if c.part == "val" and c.name not in other]
    return differences(checkpoint.contents, now)["val"]
