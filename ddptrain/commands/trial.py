"""Checks of a config by short training, which leave nothing behind: `ddptrain train CONFIG --dry-run` and `--overfit N`.

Both train as `ddptrain train` does, on the same ranks, in a run folder of their own beside the run's, which is removed again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddptrain import distributed
from ddptrain.config import RunConfig, no_line, resolve
from ddptrain.engine.memory import in_use
from ddptrain.engine.stop import StopFlag
from ddptrain.engine.trainer import train
from ddptrain.reporting.steps import read_steps
from ddptrain.reporting.timing import duration
from ddptrain.system.lock import NAME as LOCK
from ddptrain.system.owner import read_owner
from ddptrain.system.printable import counted, say
from ddptrain.system.status import FAILED, FINISHED
from ddptrain.tasks.stream import run_length

DRY_STEPS, OVERFIT_STEPS = 2, 300
GOOD = 0.9
"""Value of the task's own metric from which on images count as learned by heart."""
ALONE = (
    "resume=null", "train.patience=null", "eval.every_epochs=null", "eval.every_steps=null", "checkpoint.every_epochs=null",
    "checkpoint.every_steps=null", "data.cache=none", "monitor.profile=0",
)  # fmt: skip
"""One evaluation and one checkpoint, at the end."""
STILL = ("scale", "translate", "hflip", "hsv_h", "hsv_s", "hsv_v")
"""The augmentations that are on by default."""


def dry_run(config: RunConfig, stop: StopFlag, notes: Sequence[str]) -> int:
    """Make two steps, one evaluation and one checkpoint; returns the exit status, and raises what the run would raise."""
    mixed = any(getattr(config.data.augment, kind, 0) for kind in ("mosaic", "mixup", "cutmix"))
    keys = (f"train.steps={DRY_STEPS}", *(["data.augment.close_epochs=0"] if mixed else []))
    with _trial(config, "dry-run", keys) as (trial, main):
        status = train(trial, stop, notes)
        if status != FINISHED or not main:
            return status
        summary = _summary(trial.folder)
        step_s = config.train.global_batch / summary["images_per_second"]
        steps = run_length(config.train, round(summary["samples"] / summary["epoch"]))
        size = sum(path.stat().st_size for path in (trial.folder / "checkpoints").glob("step_*.pt")) / 1e6
        say(
            f"dry run: {counted(DRY_STEPS, 'step')}, an evaluation and a checkpoint of {size:.0f} MB: all worked, nothing is "
            f"kept; {step_s:.3g} s a step, {in_use(distributed.discover(config.train.device).device)}; the "
            f"{counted(steps, 'step')} of the run take about {duration(steps * step_s)}, without evaluations"
        )
    return status


def overfit(config: RunConfig, images: int, stop: StopFlag, notes: Sequence[str]) -> int:
    """Learn some of the training images by heart, without augmentation, and evaluate on the same ones; returns the exit status,
    1 where they were not learned."""
    keys = (
        f"data.overfit={images}", f"data.augment={{{', '.join(f'{key}: 0' for key in STILL)}}}", "data.samples_per_epoch=null",
        f"train.steps={OVERFIT_STEPS}", "monitor.tensorboard=false", "monitor.images=0",
    )  # fmt: skip
    with _trial(config, "overfit", keys) as (trial, main):
        if main:
            say(f"a check, not a training: {counted(images, 'training image')} without augmentation, evaluated on themselves")
        status = train(trial, stop, notes)
        if status != FINISHED or not main:
            return status
        summary, rows = _summary(trial.folder), list(read_steps(trial.folder))
        name = next(iter(summary))
        first, last = (_parts(row) for row in (rows[0], rows[-1]))
        learned = summary[name] is not None and summary[name] >= GOOD
        say(
            f"overfit check: {name} {summary[name]:.3f} on its own {counted(images, 'image')}, loss {first} at the first step, "
            f"{last} at the last: " + ("they were learned by heart" if learned else f"they were NOT learned ({name} < {GOOD})")
        )
        if not learned:
            say("look for the cause with `ddptrain diagnose`, and at the images and boxes with `ddptrain check`")
        return FINISHED if learned else FAILED


@contextmanager
def _trial(config: RunConfig, kind: str, keys: Sequence[str]) -> Iterator[tuple[RunConfig, bool]]:
    """The config of a trial, and whether this process is rank 0, which removes its folder before (what a killed trial has left)
    and after it."""
    name = f"name={config.name[:180]}.{kind}"
    trial = resolve(config.model_dump(mode="json"), [*ALONE, name, *keys], tell=no_line)
    main = distributed.discover(config.train.device).main
    made = [path for path in (trial.folder, *trial.folder.parents) if not path.exists()]
    if main and not _is_alive(trial.folder):
        shutil.rmtree(trial.folder, ignore_errors=True)
    try:
        yield trial, main
    finally:
        if main and not _is_alive(trial.folder):
            shutil.rmtree(trial.folder, ignore_errors=True)
            for folder in made[1:]:
                with suppress(OSError):  # not empty
                    folder.rmdir()


def _is_alive(folder: Path) -> bool:
    """Whether a process holds the folder's lock, which may be one of another machine."""
    owner = read_owner(folder / LOCK)
    return owner is not None and owner.process is not None and owner.process.alive() is not False


def _summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def _parts(row: dict[str, str]) -> str:
    """`9.27 (box 3.1, cls 4.2, dfl 1.97)` of a row of steps.csv."""
    parts = ", ".join(f"{name} {float(row[name]):.3g}" for name in list(row)[4:-2])
    return f"{float(row['loss']):.3g} ({parts})"
