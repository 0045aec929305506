"""`ddptrain diagnose`: why the loss of a run, or of a config, does not fall.

It makes a few updates on one and the same batch, at the rate after the warm-up: what is learned at all falls there. Nothing is
written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from ddptrain import distributed
from ddptrain.checkpoint.load import Checkpoint, load_checkpoint
from ddptrain.config import RunConfig, load_config, resolve
from ddptrain.config.batch import split_batch
from ddptrain.engine.arithmetic import arithmetic
from ddptrain.engine.batches import batches_from
from ddptrain.engine.build import build_state
from ddptrain.engine.diagnosis import findings, measure, measured_text
from ddptrain.engine.resume import take_over
from ddptrain.reporting.steps import read_steps
from ddptrain.system.printable import counted, say
from ddptrain.tasks.build import build_task

HEALTHY = (
    "Nothing is wrong with an update: the loss of one batch falls. That leaves the data (ddptrain check), the length of "
    "the run, and its schedule."
)


def diagnose(source: Path, overrides: Sequence[str]) -> int:
    """Print what was measured and what is wrong.

    Args:
        source: a config, or a run or checkpoint, whose next steps are looked at.

    Returns:
        0 where nothing is found, else 1.

    Raises:
        UserError: the run could not even start; the message is the finding.
    """
    checkpoint, config = _start(source, overrides)
    world = distributed.discover(config.train.device, {})
    with arithmetic(config.train, world.device):
        task = build_task(config)
        micro = config.train.micro_batch if checkpoint is None else checkpoint.state.get("micro_batch")
        state = build_state(task, world, split_batch(config.train.global_batch, micro, 1))
        if checkpoint is not None:
            take_over(state, checkpoint, config.optimizer.name, config.freeze)
        elif config.init_from is not None:
            state.start_from(Path(config.init_from), task.config.classes, config.init_strict)
        with batches_from(state, task) as loader:
            batches = [next(loader) for _ in range(state.split.accumulation)]
        where = "fresh weights" if checkpoint is None else f"{checkpoint.path}"
        found = measure(task, state, batches)
    for line in (f"from {where}", *measured_text(found), *([] if checkpoint is None else _course(checkpoint.path))):
        say(line)
    wrong = list(findings(found))
    for line in wrong or [HEALTHY]:
        say(f"  {line}")
    return 1 if wrong else 0


def _start(source: Path, overrides: Sequence[str]) -> tuple[Checkpoint | None, RunConfig]:
    if source.suffix in (".yaml", ".yml"):
        return None, load_config(source, [*overrides, "resume=null"])
    checkpoint = load_checkpoint(source)
    return checkpoint, resolve(checkpoint.config.model_dump(mode="json"), overrides, source=str(checkpoint.path), stored=True)


def _course(checkpoint: Path) -> Iterator[str]:
    """The loss over the steps of the run so far."""
    rows = [float(row["loss"]) for row in read_steps(checkpoint.parent.parent) if row["updated"] == "1"]
    if part := len(rows) // 10:
        first, last = fmean(rows[:part]), fmean(rows[-part:])
        end, steps = f"{last:.4g} in the last {part}", counted(len(rows), "step")
        yield f"over {steps} of the run: loss {first:.4g} in the first {part}, {end}"
