"""Checks of a config by short training, which leave nothing behind: `ddptrain train CONFIG --dry-run` and `--overfit N`.

Both train as `ddptrain train` does, on the same ranks, in a run folder of their own beside the run's, which is removed again.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddptrain import distributed
from ddptrain.config import RunConfig, no_line, resolve
from ddptrain.config.detection_augment import MIXING
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
"""Value of the task's own metric from which on images count as memorised."""
ALONE = (
    "resume=null", "train.patience=null", "eval.every_epochs=null", "eval.every_steps=null", "checkpoint.every_epochs=null",
    "checkpoint.every_steps=null", "data.cache=none", "monitor.profile=0",
)  # fmt: skip
"""One evaluation and one checkpoint, at the end."""
STILL = ("scale", "translate", "hflip", "hsv_h", "hsv_s", "hsv_v")
"""The augmentations that are on by default."""


@dataclass(frozen=True)
class Trial:
    """Short training of a config that leaves nothing.

    Attributes:
        notes: lines about the config for the start of the log.
    """

    config: RunConfig
    stop: StopFlag
    notes: Sequence[str]

    def dry_run(self) -> int:
        """Make two steps, one evaluation and one checkpoint; returns the exit status, and raises what the run would raise."""
        train_section = self.config.train
        mixed, to_the_end = any(getattr(self.config.data.augment, kind, 0) for kind in MIXING), 0
        keys = (f"train.steps={DRY_STEPS}", *([f"data.augment.close_epochs={to_the_end}"] if mixed else []))
        with self._config("dry-run", keys) as (config, main):
            status = train(config, self.stop, self.notes)
            if status != FINISHED or not main:
                return status
            summary = _summary(config.folder)
            step_s = train_section.global_batch / summary["images_per_second"]
            steps = run_length(train_section, round(summary["samples"] / summary["epoch"]))
            size = sum(path.stat().st_size for path in (config.folder / "checkpoints").glob("step_*.pt")) / 1e6
            memory = in_use(distributed.discover(train_section.device).device)
            say(
                f"dry run: {counted(DRY_STEPS, 'step')}, an evaluation and a checkpoint of {size:.0f} MB: all worked, nothing "
                f"is kept; {step_s:.3g} s a step, {memory}; the {counted(steps, 'step')} of the run take about "
                f"{duration(steps * step_s)}, without evaluations"
            )
        return status

    def overfit(self, images: int) -> int:
        """Overfit some of the training images, without augmentation, and evaluate on the same ones; returns the exit
        status, 1 where they were not learned."""
        keys = (
            f"data.overfit={images}", f"data.augment={{{', '.join(f'{key}: 0' for key in STILL)}}}",
            "data.samples_per_epoch=null", f"train.steps={OVERFIT_STEPS}", "monitor.trackers=[]", "monitor.images=0",
        )  # fmt: skip
        with self._config("overfit", keys) as (config, main):
            if main:
                say(f"a check, no training: {counted(images, 'training image')} without augmentation, evaluated on themselves")
            status = train(config, self.stop, self.notes)
            if status != FINISHED or not main:
                return status
            summary, rows = _summary(config.folder), list(read_steps(config.folder))
            name = next(iter(summary))
            value = math.nan if summary[name] is None else summary[name]
            verdict = "memorised" if value >= GOOD else f"NOT memorised ({name} < {GOOD})"
            say(
                f"overfit check: {name} {value:.3f} on its own {counted(images, 'image')}, loss {_parts(rows[0])} at the first "
                f"step, {_parts(rows[-1])} at the last: {verdict}"
            )
            if value >= GOOD:
                return FINISHED
            say(
                f"{_worst(summary, name)}objects of few pixels come last, since an object's weight grows with the IoU of its "
                "box; for other causes, ddptrain diagnose and ddptrain check"
            )
            return FAILED

    @contextmanager
    def _config(self, kind: str, keys: Sequence[str]) -> Iterator[tuple[RunConfig, bool]]:
        """The config of a trial, and whether this process is rank 0, which removes its folder before (what a killed trial has
        left) and after it."""
        name = f"name=.{self.config.name[:180]}.{kind}"  # hidden: no run of the user has this name
        config = resolve(self.config.model_dump(mode="json"), [*ALONE, name, *keys], tell=no_line)
        folder, main = config.folder, distributed.discover(config.train.device).main
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        if main and not _is_alive(folder):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            yield config, main
        finally:
            if main and not _is_alive(folder):
                shutil.rmtree(folder, ignore_errors=True)
                for parent in made[1:]:
                    with suppress(OSError):  # not empty
                        parent.rmdir()


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


def _worst(summary: Mapping[str, Any], name: str) -> str:
    """The classes with the lowest values of a metric, where there are several; else nothing."""
    values = {key.split("/")[1]: v for key, v in summary.items() if key.startswith("class/") and key.endswith(f"/{name}")}
    low = sorted((v, label) for label, v in values.items() if v is not None and v < GOOD)
    return f"{name} of {', '.join(f'{label} {v:.2f}' for v, label in low[:5])}; " if low and len(values) > 1 else ""
