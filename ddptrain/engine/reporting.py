"""The reports of a run: called by name from the loop, it hands numbers to console, TensorBoard, history and summary."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from ddptrain.config import MonitorConfig
from ddptrain.config.run import ResumeConfig
from ddptrain.distributed import World
from ddptrain.engine.evaluate import Evaluation
from ddptrain.engine.memory import in_use
from ddptrain.engine.state import RunState
from ddptrain.engine.step import StepReport
from ddptrain.reporting.console import Console
from ddptrain.reporting.history import History, history_of, write_summary
from ddptrain.reporting.ledger import Ledger
from ddptrain.reporting.pictures import grid
from ddptrain.reporting.table import Table
from ddptrain.reporting.tensorboard import open_board
from ddptrain.reporting.timing import Timing
from ddptrain.structures import SampleKey
from ddptrain.tasks.base import Task


def is_early(step: int) -> bool:
    """1, 2, 5, 10, 20, 50, 100, …: steps that are reported before `monitor.every_steps` says so."""
    return str(step).rstrip("0") in ("1", "2", "5")


class RunReporter:
    """Reports on a run as it goes, in its folder and on the console; silent on every rank but 0.

    Attributes:
        timing: clock of the loop, of this rank.
        console: for lines and tables.
        board: TensorBoard.
        ledger: the mixture's.
    """

    def __init__(
        self, folder: Path, section: MonitorConfig, resume: ResumeConfig | None, task: Task, world: World, state: RunState
    ) -> None:
        """
        Args:
            folder: the run's.
            section: the config's.
            resume: the config's; None for a run that starts anew, and then with empty logs.
        """
        self._folder, self._section, self._task, self._world = folder, section, task, world
        # a run that resumes may have been stopped before its first checkpoint: then it goes on from step 0
        resumed = None if resume is None else state.step
        self._stack = ExitStack()
        self.console = self._stack.enter_context(
            Console(
                folder / "log.txt" if world.main else None,
                total_steps=state.steps,
                steps_per_epoch=state.samples_per_epoch / state.split.global_batch,
                stream=sys.stdout if world.main else None,
            )
        )
        self.board = open_board(
            folder / "tensorboard",
            enabled=world.main and section.tensorboard,
            resumed=resumed,
            report=self.console.line,
        )
        self._stack.callback(self.board.close)
        self._history = self._open_history(resume, state)
        self.ledger = Ledger(task.sampler.mixture.plan())
        self._parts: dict[str, float] = {}
        self._steps = self._done = 0
        self._images_per_second = 0.0
        self._metrics: dict[str, float] = {}
        self._last: Evaluation | None = None
        self.timing = Timing(state.steps, state.step)

    def __enter__(self) -> RunReporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _open_history(self, resume: ResumeConfig | None, state: RunState) -> History:
        if not self._world.main:
            return History(None)
        source = None if resume is None or resume.source == "auto" else history_of(Path(resume.source))
        recount = (state.position, state.split.global_batch) if state.recounted else None
        history = History(self._folder / "history.csv", None if resume is None else state.step, source, recount)
        self._try("history.csv", lambda: history.settle(self.console.line))
        return history

    def after_step(self, state: RunState, report: StepReport) -> None:
        """Count a step; every `monitor.every_steps` report on the steps since the last report. The first steps of a process
        are reported at growing intervals."""
        self.timing.step(state.split.global_batch)
        if not report.updated:
            return
        self.ledger.add(report.loss_by_dataset, report.samples_by_dataset)
        self.console.step(state.step)
        self._steps += 1
        self._done += 1
        for name, value in report.parts.items():
            self._parts[name] = self._parts.get(name, 0.0) + value
        every = self._section.every_steps
        due = state.step % every == 0 or state.step == state.steps
        first = self._done == 1
        if not due and not (self._done < every and is_early(self._done)):
            return
        parts = {name: total / self._steps for name, total in self._parts.items()}
        reading = self.timing.first() if first else self.timing.read() if due else self.timing.peek()
        if first and self._world.main:
            wait, memory = reading.data_wait * reading.step_seconds, in_use(self._world.device)
            self.console.line(f"first step: {reading.step_seconds:.2f} s, {wait:.2f} s of it waiting for data; {memory}")
        self.console.progress(state.step, parts, reading)
        self._images_per_second = reading.images_per_second
        if not due:
            return
        rates = {f"lr/{g['name']}": float(g["lr"]) for g in state.optimizer.param_groups}
        self.board.scalars(
            {f"loss/{name}": value for name, value in parts.items()}
            | rates
            | {
                "loss/total": sum(parts.values()),
                "train/gradient_norm": report.grad_norm,
                "train/normalizer": report.normalizer,
                "train/skipped_steps": float(state.skipped),
                "train/replaced_samples": float(state.replaced),
                "speed/images_per_second": reading.images_per_second,
                "speed/data_wait": reading.data_wait,
            }
            | self.ledger.scalars(self._drawn(state), self.ledger.read()),
            state.step,
        )
        self._parts, self._steps = {}, 0

    def show_inputs(self, state: RunState) -> None:
        """A grid of the next training images as the network sees them, with their targets."""
        count = self._section.images
        if not (count and self._world.main and self._section.tensorboard):
            return
        positions = np.arange(state.position, state.position + count)
        keys = [SampleKey(*map(int, key)) for key in zip(positions, *state.sampler.keys(positions))]
        self.board.image("train/input", grid([self._task.view.picture(self._task.train[k]) for k in keys]), state.step)

    def after_evaluation(self, state: RunState, evaluation: Evaluation, better: bool) -> None:
        """A row in history.csv, a table, curves, and predictions beside truth."""
        trained = {f"train/{name}": value for name, value in state.take_losses().items()}
        if not self._world.main:
            return
        self._metrics = metrics = evaluation.metrics
        for line in evaluation.warnings():
            self.console.line(f"warning: {line}")
        self._last = evaluation
        table = Table(*self._task.view.summary(metrics))
        mark = "  (best so far)" if better else ""
        self.console.table(f"evaluation after step {state.step}, epoch {state.epoch:.1f}{mark}", table)
        for remark in self._task.view.remarks(metrics):
            self.console.line(f"warning: {remark}")
        monitored = state.monitored[0]
        if math.isnan(metrics[monitored]):
            line = "there is no truth to compare with; it counts neither as better nor as worse"
            self.console.line(f"warning: {monitored} is undefined: {line}")
        row = {"step": state.step, "epoch": round(state.epoch, 4), "samples": state.position}
        row |= {"lr": float(state.optimizer.param_groups[0]["lr"]), **trained, **metrics}
        self._try("history.csv", lambda: self._history.append(row))
        self.board.scalars({f"eval/{name}": value for name, value in metrics.items()}, state.step)
        if self._section.images and self._section.tensorboard:
            self.board.image("eval/truth and prediction", grid(self._pictures(evaluation)), state.step)
        self._try("summary.json", lambda: self.write_summary(state))

    def _try(self, name: str, write: Callable[[], None]) -> None:
        """A full disk must not end the training; the next evaluation writes the whole file again."""
        try:
            write()
        except OSError as e:
            self.console.line(f"warning: {self._folder / name}: not written ({e.strerror}); training goes on")

    def report(self) -> None:
        """At the end of a run: the task's report on the last evaluation, in `report/` of the run folder."""
        last, folder = self._last, self._folder / "report"
        if last is None:
            return
        try:
            self._try("report", lambda: self._task.view.report(folder, last.predictions, self._history.table))
        except ImportError as e:
            self.console.line(f"no report/: {e.name} is not installed; pip install 'ddptrain[report]'")

    def _pictures(self, evaluation: Evaluation) -> list[np.ndarray]:
        keys = [SampleKey(0, number, index) for number, shard in enumerate(evaluation.predictions) for index in sorted(shard)]
        count = self._section.images
        chosen = keys[:: max(1, len(keys) // count)][:count]  # spread over all datasets
        return [self._task.view.picture(self._task.val_samples[k], evaluation.predictions[k.dataset][k.index]) for k in chosen]

    def _drawn(self, state: RunState) -> list[int]:
        # counted from the batches themselves, not from the formula that made them
        return [int(n) for n in state.samples_by_dataset]

    def write_summary(self, state: RunState) -> None:
        """Write summary.json."""
        if not self._world.main:
            return
        by_dataset: dict[str, dict[str, float]] = {}
        flat: dict[str, float] = {}
        for key, value in self._metrics.items():
            if key.startswith("dataset/"):
                _, name, metric = key.split("/", 2)
                by_dataset.setdefault(name, {})[metric] = value
            else:
                flat[key] = value
        write_summary(
            self._folder / "summary.json",
            {
                **flat,
                "best": state.best,
                "step": state.step,
                "steps": state.steps,
                "reason": state.early_end,
                "epoch": state.epoch,
                "samples": state.position,
                "skipped_steps": state.skipped,
                "replaced_samples": state.replaced,
                "images_per_second": self._images_per_second,
                "mixture": self.ledger.summary(self._drawn(state), by_dataset),
                "datasets": by_dataset,
            },
        )
