"""`ddptrain replay`: make one step of a run again, and show its samples, their losses, and the gradient of each layer.

It goes on from the nearest checkpoint before the step, in this process whatever the number of ranks of the run, and writes
nothing but a folder of its own:

    RUN/replay/step_00000013_position_144/
        replay.json     the numbers of the step, of each sample and of each layer
        000.png, …      the samples as the network saw them, with their targets, the largest loss first
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ddptrain import distributed
from ddptrain.commands.replay_start import ReplayStart, find_start
from ddptrain.commands.replayed import layer_rows, sample_rows, shown
from ddptrain.config.batch import split_batch
from ddptrain.data.tables.contents import differences
from ddptrain.engine.record import bits_record, machine_changes
from ddptrain.engine.replay import Attempt, replay
from ddptrain.engine.resume import take_over
from ddptrain.engine.state import RunState, build_state
from ddptrain.errors import UserError
from ddptrain.reporting.history import plain
from ddptrain.reporting.pictures import save
from ddptrain.reporting.steps import read_steps
from ddptrain.structures import SampleKey
from ddptrain.system.files import write_text
from ddptrain.system.printable import counted, say, warn
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task


def replay_run(run: Path, step: int, out: Path | None, images: int) -> int:
    """Replay a step.

    Args:
        run: run folder, or a checkpoint from which to go on.
        step: number of the step, from 1.
        out: folder for what is written; default `replay` in the run folder.
        images: at most this many pictures, of the samples with the largest losses.

    Returns:
        0; 1 where the run has recorded other numbers of the step.

    Raises:
        UserError: `images` is negative, the run has made no such step, or there is nothing to begin from.
    """
    if images < 0:
        raise UserError(f"--images {images}: must be an integer ≥ 0")
    start = find_start(run, step)
    task, state = _begin(start)
    if step > state.steps:
        raise UserError(f"--step {step}: the run has {counted(state.steps, 'step')}; give one of them")
    origin = "the start of the run" if start.checkpoint is None else start.checkpoint.path
    say(f"from {origin}, {counted(step - state.step, 'step')}")
    for line in _other_conditions(start, task, state):
        warn(line)
    recorded = {int(row["position"]): row for row in read_steps(start.folder) if row["step"] == str(step)}
    same = True
    for attempt in replay(task, state, step, task.config.train.max_bad_steps + 1):
        row = recorded.get(attempt.position)
        folder = (out or start.folder / "replay") / f"step_{step:08d}_position_{attempt.position}"
        known = _numbers(attempt, step, row)
        samples, layers = sample_rows(attempt, task), layer_rows(attempt, state.model)
        for line in shown(known, samples, layers):
            print(line)
        for number, sample in enumerate(samples[:images]):
            sample["picture"] = f"{number:03d}.png"
            key = SampleKey(sample["position"], sample["dataset_number"], sample["index"])
            save(folder / sample["picture"], task.view.picture(task.train[key]))
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(plain(known | {"samples": samples, "layers": layers}), indent=1, ensure_ascii=False)
        write_text(folder / "replay.json", text + "\n")
        say(f"{counted(min(images, len(samples)), 'picture')} and replay.json in {folder}")
        same &= known["same"] is not False
    return 0 if same else 1


def _begin(start: ReplayStart) -> tuple[Task, RunState]:
    """The task of a run and its state, as of one rank."""
    record = {} if start.known is None else start.known.record
    if threads := record.get("threads"):
        torch.set_num_threads(int(threads))  # part of the arithmetic
    train = start.config.train
    world = distributed.discover(train.device, {})
    task = build_task(start.config)
    state = build_state(task, world, split_batch(train.global_batch, start.micro_batch, 1))
    if start.checkpoint is not None:
        take_over(state, start.checkpoint, start.config.optimizer.name)
    elif (source := start.config.init_from) is not None:
        state.start_from(Path(source), start.config.classes, start.config.init_strict)
    return task, state


def _other_conditions(start: ReplayStart, task: Task, state: RunState) -> Iterator[str]:
    """A line for each reason for which the step may not be the one that was made."""
    if start.known is None:
        return
    contents = [c.state() for c in task.contents]
    yield from (f"{line}: other data than the run's" for line in differences(start.known.contents, contents)["train"])
    device = next(state.model.parameters()).device
    now = bits_record(task.config.model_dump(mode="json"), device, state.split, contents)
    if changed := machine_changes(start.known.record, now):
        yield f"the step may differ from the one that was made in its last digits: {', '.join(changed)}"


def _numbers(attempt: Attempt, step: int, row: Mapping[str, str] | None) -> dict[str, Any]:
    """The numbers of a step; `same` says whether the run recorded them to the last digit, None where it recorded none."""
    report = attempt.report
    numbers = {"loss": sum(report.parts.values()), **report.parts}
    numbers |= {"gradient_norm": report.grad_norm, "normalizer": report.normalizer}
    recorded = None if row is None else {name: float(row[name]) for name in numbers if name in row}
    same = None if row is None else all(row.get(name) == repr(value) for name, value in numbers.items())
    known = {"step": step, "position": attempt.position, "updated": report.updated}
    return known | {"numbers": numbers, "recorded": recorded, "same": same}
