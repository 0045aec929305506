"""Using a trained run: evaluate it again, report on it, export it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ddptrain import distributed
from ddptrain.checkpoint.load import Checkpoint, load_checkpoint
from ddptrain.commands.export import export_model
from ddptrain.config import RunConfig, resolve
from ddptrain.data.tables.contents import differences
from ddptrain.distributed import World
from ddptrain.engine.evaluate import Evaluation, evaluate
from ddptrain.errors import UserError
from ddptrain.reporting.console import Console
from ddptrain.reporting.history import History, plain
from ddptrain.system.printable import say, warn
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import INPUTS, build_task, load_predictor


def evaluate_run(run: Path, overrides: Sequence[str], as_json: bool) -> int:
    """Evaluate the best weights of a run (or a checkpoint) on the validation datasets of its config; any number of ranks.

    Args:
        run: run folder or checkpoint.
        overrides: changes to the run's config, `key=value`.
        as_json: print all metrics as JSON (null where there is no truth to find) instead of the table.
    """
    file, task, evaluation, world = _evaluated(run, overrides)
    if world.main and as_json:
        print(json.dumps(plain(evaluation.metrics), indent=1))
    elif world.main:
        with Console(None, total_steps=0, steps_per_epoch=1) as console:
            console.table(str(file), *task.summary(evaluation.metrics))
            for remark in task.remarks(evaluation.metrics):
                console.line(f"warning: {remark}")
    return 0


def report_run(run: Path, overrides: Sequence[str], out: Path | None) -> int:
    """Write the report of the best weights of a run (or of a checkpoint): figures and text of the task's own.

    Args:
        run: run folder or checkpoint.
        overrides: changes to the run's config, `key=value`.
        out: folder of the report; default `report` in the run folder.

    Raises:
        UserError: the package for figures is not installed.
    """
    file, task, evaluation, world = _evaluated(run, overrides)
    if not world.main:
        return 0
    folder = run if run.is_dir() else file.parents[1]
    history = History(folder / "history.csv", sys.maxsize)
    if history.faults:
        warn(f"{folder / 'history.csv'}: not a row of a run's history: {', '.join(history.faults)}; the curves lack them")
    try:
        task.report(out or folder / "report", evaluation.predictions, history.table)
    except ImportError as e:
        raise UserError(f"report: {e.name} is not installed; pip install 'ddptrain[report]'") from None
    say(f"report on {file} in {out or folder / 'report'}")
    return 0


def _evaluated(run: Path, overrides: Sequence[str]) -> tuple[Path, Task, Evaluation, World]:
    """The checkpoint that is meant, the task of its config, and the evaluation of its weights by all ranks."""
    checkpoint = load_checkpoint(run, best=True)
    config = resolve(json.loads(checkpoint.config.model_dump_json()), overrides, source=str(checkpoint.path), stored=True)
    world = distributed.discover(config.train.device)
    with distributed.process_group(world, config.train.timeout_s):
        task = distributed.agree(lambda: build_task(config), "reading the datasets")
        for line in replaced_data(checkpoint, config, task) if world.main else ():
            warn(f"{line}: other data than in the training, the metrics do not compare with those of the run")
        model = checkpoint.fill(task.build_model())
        evaluation = evaluate(
            task,
            model.to(world.device),
            world,
            batch=config.eval.batch or config.train.micro_batch,
            workers=config.data.workers,
            precision=config.train.precision,
            max_bad_images=config.eval.max_bad_images,
        )
    if world.main:
        for line in evaluation.warnings():
            print(f"warning: {line}", file=sys.stderr)
    return checkpoint.path, task, evaluation, world


def replaced_data(checkpoint: Checkpoint, config: RunConfig, task: Task) -> Sequence[str]:
    """A line for each validation dataset whose images or labels are not those that the checkpoint has seen.

    One that the overrides read in another way (another split, other annotations) is meant to be another one.
    """
    old = {d.name: d for d in checkpoint.config.data.val}
    other = [d.name for d in config.data.val if d.name in old and d != old[d.name].model_copy(update={"root": d.root})]
    now = [c.state() for c in task.contents if c.part == "val" and c.name not in other]
    return differences(checkpoint.contents, now)["val"]


def export_run(run: Path, format: str, out: Path | None) -> int:
    """Write the best weights of a run (averaged, where there are), or a graph, and check them against the model.

    Args:
        run: run folder or checkpoint.
        format: see `ddptrain/commands/export.py`.
        out: the file; default `<name>.<format>` in the run folder.
    """
    checkpoint = load_checkpoint(run, best=True)
    config, file = checkpoint.config, checkpoint.path
    if config.task not in INPUTS:
        raise UserError(f"export: not for {config.task}; use the checkpoint itself, which torch.load reads")
    example = INPUTS[config.task](config)
    out = out or (run if run.is_dir() else file.parents[1]) / f"{config.name}.{format}"
    model = checkpoint.fill(load_predictor(config).build_model())
    try:
        difference = export_model(model, example, format, out)
    except OSError as e:
        raise UserError(f"{out}: cannot be written ({e.strerror}); name another file with --out") from None
    shapes = ", ".join(" x ".join(map(str, x.shape)) for x in example)
    say(f"{out}: weights of {file}; for an input of {shapes} it differs from the model by at most {difference:.2g}")
    return 0
