"""`ddptrain replay`: recompute one step of a run, and show its samples, their losses, and the gradient of each layer.

It starts from the nearest checkpoint before the step, in this process, regardless of the number of ranks of the run, and writes
nothing but a folder of its own:

    RUN/replay/step_00000013_position_144/
        replay.json     the numbers of the step, of each sample and of each layer
        000.png, …      the samples as the network saw them, with their targets, the largest loss first
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ddptrain import distributed
from ddptrain.commands.replay_start import ReplayStart, find_start
from ddptrain.commands.replayed import layer_rows, sample_rows, shown
from ddptrain.config.batch import split_batch
from ddptrain.data.tables.contents import differences
from ddptrain.distributed import World
from ddptrain.engine.arithmetic import arithmetic
from ddptrain.engine.build import build_state
from ddptrain.engine.record import bits_record, machine_changes
from ddptrain.engine.replay import Attempt, replay
from ddptrain.engine.resume import take_over
from ddptrain.engine.state import RunState
from ddptrain.errors import UserError
from ddptrain.reporting.history import plain
from ddptrain.reporting.pictures import save
from ddptrain.reporting.steps import read_steps
from ddptrain.structures import SampleKey
from ddptrain.system.files import write_text
from ddptrain.system.printable import counted, printable, say, warn
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task

ROUNDING = 1e-3
"""Numbers of a step that was made under other conditions may differ by this much, relative."""


def replay_run(run: Path, step: int, out: Path | None, images: int) -> int:
    """Replay a step.

    Args:
        run: run folder, or a checkpoint from which to start.
        step: number of the step, from 1.
        out: folder for what is written; default `replay` in the run folder.
        images: at most this many pictures, of the samples with the largest losses.

    Returns:
        0; 1 where the run has recorded numbers of the step that differ by more than rounding.

    Raises:
        UserError: `images` is negative, the run has made no such step, or there is nothing to begin from.
    """
    if images < 0:
        raise UserError(f"--images {images}: must be an integer ≥ 0")
    start = find_start(run, step)
    train = start.config.train
    world = distributed.discover_or_cpu(train.device, {})
    if world.lacking:
        warn(world.lacking)
    with arithmetic(train.model_copy(update={"threads": start.threads}), world.device):
        task, state = _begin(start, world)
        if step > state.steps:
            raise UserError(f"--step {step}: the run has {counted(state.steps, 'step')}; give one of them")
        origin = "the start of the run" if start.checkpoint is None else start.checkpoint.path
        say(f"from {origin}, {counted(step - state.step, 'step')}")
        for line in _other_conditions(start, task, state, world):
            warn(line)
        recorded = {int(row["position"]): row for row in read_steps(start.folder) if row["step"] == str(step)}
        gaps = []
        for attempt in replay(task, state, step, train.max_bad_steps + 1):
            folder = (out or start.folder / "replay") / f"step_{step:08d}_position_{attempt.position}"
            known = _numbers(attempt, step, recorded.get(attempt.position))
            _show(attempt, known, task, state, folder, images)
            gaps.append(known["gap"] or 0.0)
    return 0 if max(gaps) <= ROUNDING else 1


def _show(attempt: Attempt, known: dict[str, Any], task: Task, state: RunState, folder: Path, images: int) -> None:
    """Print what is recorded about an attempt, and write it with its pictures into a folder."""
    samples, layers = sample_rows(attempt, task), layer_rows(attempt, state.model)
    for line in shown(known, samples, layers):
        print(printable(line, lines=True))
    for old in folder.glob("*.png"):  # of another replay
        old.unlink()
    for number, sample in enumerate(samples[:images]):
        sample["picture"] = f"{number:03d}.png"
        key = SampleKey(sample["position"], sample["dataset_number"], sample["index"])
        save(folder / sample["picture"], task.view.picture(task.train[key]))
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(known | {"samples": samples, "layers": layers}), indent=1, ensure_ascii=False)
    write_text(folder / "replay.json", text + "\n")
    say(f"{counted(min(images, len(samples)), 'picture')} and replay.json in {folder}")


def _begin(start: ReplayStart, world: World) -> tuple[Task, RunState]:
    """The task of a run and its state, as of one rank."""
    config = start.config
    task = build_task(config)
    state = build_state(task, world, split_batch(config.train.global_batch, start.micro_batch, 1))
    if start.checkpoint is not None:
        take_over(state, start.checkpoint, config.optimizer.name, config.freeze)
    elif config.init_from is not None:
        state.start_from(Path(config.init_from), config.classes, config.init_strict)
    return task, state


def _other_conditions(start: ReplayStart, task: Task, state: RunState, world: World) -> Iterator[str]:
    """A line for each reason for which the step may not be the one that was made."""
    if start.known is None:
        return
    contents = [c.state() for c in task.contents]
    yield from (f"{line}: not the data that the run used" for line in differences(start.known.contents, contents)["train"])
    now = bits_record(task.config.model_dump(mode="json"), world.device, state.split, contents)
    if changed := machine_changes(start.known.record, now):
        yield f"the step may differ in its last digits from the original: {', '.join(changed)}"
    ranks = start.known.state.get("ranks", 1)
    if ranks > 1 and (now["reduction"] == "fast" or "reduction" not in start.known.record):
        yield f"the step may differ in its last digits from the original: {ranks} ranks summed it in another order"


def _numbers(attempt: Attempt, step: int, row: Mapping[str, str] | None) -> dict[str, Any]:
    """The numbers of a step, and those that the run recorded; `gap` is their largest relative difference, 0.0 where they are
    the same to the last digit, None where nothing was recorded."""
    report = attempt.report
    numbers = {"loss": sum(report.parts.values()), **report.parts}
    numbers |= {"gradient_norm": report.grad_norm, "normalizer": report.normalizer}
    recorded = {name: float(row[name]) for name in numbers if name in row} if row is not None else None
    gap = None if recorded is None else max(_gap(value, recorded.get(name, math.inf)) for name, value in numbers.items())
    known = {"step": step, "position": attempt.position, "updated": report.updated}
    return known | {"numbers": numbers, "recorded": recorded, "gap": gap}


def _gap(a: float, b: float) -> float:
    """Relative difference; 0 for two that are not finite in the same way."""
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return abs(a - b) / max(abs(a), abs(b)) if math.isfinite(a) and math.isfinite(b) else math.inf
