"""The reports of a run: called by name from the loop, it hands numbers to console, trackers, history and summary."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain import distributed
from ddptrain.config.docs import to_yaml
from ddptrain.distributed import World
from ddptrain.engine.evaluate import Evaluation
from ddptrain.engine.memory import in_use
from ddptrain.engine.norms import Norms
from ddptrain.engine.pace import Pace
from ddptrain.engine.ranks import RankUsage, of_all
from ddptrain.engine.scalars import flat, train_scalars, val_scalars
from ddptrain.engine.state import RunState
from ddptrain.engine.step_report import StepReport
from ddptrain.metrics.outcome import FILE, write_outcome
from ddptrain.reporting.console import Console
from ddptrain.reporting.history import History, history_of, write_summary
from ddptrain.reporting.ledger import Ledger
from ddptrain.reporting.metrics_log import NAME as METRICS
from ddptrain.reporting.metrics_log import TRAIN, VAL, MetricsLog
from ddptrain.reporting.pictures import grid, load
from ddptrain.reporting.run_page.findings import write_findings
from ddptrain.reporting.run_page.single import write_page
from ddptrain.reporting.steps import NAME as STEPS
from ddptrain.reporting.steps import StepLog
from ddptrain.reporting.table import Table
from ddptrain.reporting.trackers.base import Tracker
from ddptrain.reporting.trackers.build import build_trackers
from ddptrain.structures import SampleKey
from ddptrain.system.printable import counted
from ddptrain.tasks.base import Task
from ddptrain.tasks.findings import findings_of


def is_early(step: int) -> bool:
    """1, 2, 5, 10, 20, 50, 100, …: steps that are reported before `monitor.every_steps` says so."""
    return str(step).rstrip("0") in ("1", "2", "5")


class RunReporter:
    """Reports on a run as it goes, in its folder and on the console; silent on every rank but 0.

    Attributes:
        pace: clock of the loop, of this rank.
        console: for lines and tables.
        tracker: those of `monitor.trackers`.
        ledger: the mixture's.
    """

    def __init__(self, task: Task, world: World, state: RunState, stack: ExitStack) -> None:
        """Open the logs, empty ones where the run starts over; `stack` closes them."""
        resume, folder = task.config.resume, task.config.folder
        self._folder, self._section, self._task, self._world = folder, task.config.monitor, task, world
        # a run that resumes may have been stopped before its first checkpoint: then it starts from step 0
        resumed = None if resume is None else state.step
        self.console = stack.enter_context(
            Console(
                folder / "log.txt" if world.main else None,
                total_steps=state.steps,
                steps_per_epoch=state.samples_per_epoch / state.split.global_batch,
                stream=sys.stdout if world.main else None,
                level=self._section.console,
            )
        )
        self._metrics = MetricsLog(folder / METRICS if world.main else None, resumed, state.unjudged, state.recounted)
        self._try(METRICS, self._metrics.settle)
        self._finished, names, say = False, self._section.trackers, self.console.line
        self._pictures_wanted = self._section.images if world.main and names else 0
        self.tracker = Tracker()
        if world.main:
            self.tracker = build_trackers(
                names, folder, resumed, state.unjudged, say, counted=state.recounted, changed=state.changed
            )
        stack.callback(lambda: self.tracker.close(self._finished))
        self._settings = flat(task.config.model_dump(mode="json"))
        self.tracker.hparams(self._settings, {}, state.step)
        self.tracker.text("config", f"```yaml\n{to_yaml(task.config)}```", state.step)
        other = None if resume is None or resume.source == "auto" else history_of(Path(resume.source))
        recount = (state.position, state.split.global_batch) if state.recounted is not None else None
        self._history = History(folder / "history.csv" if world.main else None, resumed, other, recount)
        self._try("history.csv", lambda: self._history.settle(self.console.line))
        steps = None if other is None else other.with_name(STEPS)
        self._step_log = StepLog(folder / STEPS if world.main else None, None if resume is None else state.position, steps)
        self._try(STEPS, self._step_log.settle)
        if self._step_log.faults:
            self.console.line(f"warning: {folder / STEPS}: {counted(self._step_log.faults, 'line')} dropped: not rows of a run")
        stack.callback(self.write_steps)
        self.ledger = Ledger(task.sampler.mixture.plan(), task.sampler.weighted)
        self._parts: dict[str, float] = {}
        self._steps = self._done = 0
        self._images_per_second = 0.0
        self._lowered = 0 if state.schedule.plateau is None else state.schedule.plateau.lowered
        self._last: tuple[Evaluation, dict[str, Any]] | None = None
        self.pace = Pace(state, world, task.config.data, self.console, folder, self._section.profile)
        stack.callback(self.pace.close)
        self._usage = RankUsage(world.device, world.size)
        if world.main:
            state.norms = Norms(state.model, self._section.every_steps, state.steps)

    def after_step(self, state: RunState, report: StepReport) -> None:
        """Count a step; every `monitor.every_steps` report on the steps since the last report. The first steps of a process
        are reported at growing intervals."""
        self.pace.step(state.split.global_batch)
        number, position = state.step + (not report.updated), state.position - state.split.global_batch
        self._step_log.add(number, position, report.updated, report.parts, report.grad_norm, report.normalizer)
        if not report.updated:
            return
        self.ledger.add(report.loss_by_dataset, report.samples_by_dataset)
        self.console.step(state.step, report.parts, report.grad_norm)
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
        timing = self.pace.timing
        reading = timing.first() if first else timing.read() if due else timing.peek()
        if first and self._world.main:
            wait, memory = reading.data_wait * reading.step_seconds, in_use(self._world.device)
            self.console.line(f"first step: {reading.step_seconds:.2f} s, {wait:.2f} s of it waiting for data; {memory}")
        self.console.progress(state.step, parts, reading)
        self._images_per_second = reading.images_per_second
        if not due:
            return
        if not first:
            self.pace.tell(reading)
        self.write_steps()
        usage = self._usage.read(reading, state.stepper.waited.seconds)
        every_rank = distributed.gather_to_main(usage, "gathering measurements from all ranks")
        if self._world.main:
            values = train_scalars(state, report, parts, reading, self.ledger) | of_all(every_rank)
            self._record(TRAIN, state.step, values)
        self._parts, self._steps = {}, 0

    def _record(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """To metrics.jsonl and the trackers."""
        self._try(METRICS, lambda: self._metrics.append(kind, step, values))
        self.tracker.scalars(values, step)

    def write_steps(self) -> None:
        """Bring steps.csv up to the present step: before each checkpoint, so that none knows more steps than the file."""
        self._try(STEPS, self._step_log.write)

    def show_inputs(self, state: RunState) -> None:
        """A grid of the next training images as the network sees them, with their targets."""
        if not self._pictures_wanted:
            return
        positions = np.arange(state.position, state.position + self._pictures_wanted)
        keys = [SampleKey(*map(int, key)) for key in zip(positions, *state.sampler.keys(positions))]
        self.tracker.image("train/input", grid([self._task.view.picture(self._task.train[k]) for k in keys]), state.step)

    def after_evaluation(self, state: RunState, evaluation: Evaluation, better: bool) -> None:
        """A row in history.csv, a table, curves, and predictions beside truth."""
        trained = {f"train/{name}": value for name, value in state.take_losses().items()}
        if not self._world.main:
            return
        metrics = evaluation.metrics
        self._tell_what_follows(state)
        for line in evaluation.warnings():
            self.console.line(f"warning: {line}")
        self._last = evaluation, {"step": state.step, "weights": "best" if better else "last"}
        title = f"evaluation after step {state.step}, epoch {state.epoch:.1f}{'  (best so far)' if better else ''}"
        self.console.table(title, Table(*self._task.view.summary(metrics)))
        for remark in self._task.view.remarks(metrics):
            self.console.line(f"warning: {remark}")
        if math.isnan(metrics[state.monitored[0]]):
            line = "is undefined: there is no ground truth; it counts as neither better nor worse"
            self.console.line(f"warning: {state.monitored[0]} {line}")
        row = {"step": state.step, "epoch": round(state.epoch, 4), "samples": state.position}
        row |= {"lr": float(state.optimizer.param_groups[0]["lr"]), **trained, **metrics}
        self._try("history.csv", lambda: self._history.append(row))
        self._record(VAL, state.step, val_scalars(metrics))
        if self._section.trackers:
            watched = self._task.view.watched(evaluation.predictions, metrics)
            for name, counts in watched.curves.items():
                self.tracker.pr_curve(f"val/precision over recall/{name}", counts, state.step)
            for name, picture in watched.pictures.items() if self._pictures_wanted else ():
                self.tracker.image(f"val/{name}", picture, state.step)
        if self._pictures_wanted:
            self.tracker.image("val/truth and prediction", grid(self._pictures(evaluation)), state.step)
        self._try("summary.json", lambda: self._write_summary(state, metrics))

    def _tell_what_follows(self, state: RunState) -> None:
        """What an evaluation has changed for the next step."""
        plateau, last = state.schedule.plateau, state.step >= state.steps
        if plateau is not None and plateau.lowered > self._lowered and not last:
            self._lowered = plateau.lowered
            lr = state.schedule.at(state.step).lr
            waited = counted(state.schedule.config.patience, "evaluation")
            why = f"no better {state.monitored[0]} than {plateau.best:.4g} in {waited}"
            self.console.line(f"{why}: the learning rate is lowered to {lr:g}")
        if state.sampler.since == state.position and state.balance is not None and not last:
            self.console.table("images that show a class, by the AP of this evaluation", state.balance.plan())

    def _try(self, name: str, write: Callable[[], object]) -> None:
        """A full disk must not end the training; the next evaluation writes the whole file again."""
        try:
            write()
        except OSError as e:
            self.console.line(f"warning: {self._folder / name}: not written ({e.strerror}); training continues")

    def report(self, step: int, digest: str) -> None:
        """At the end of a run: what is kept of the last evaluation, and the task's report on it, in `report/` of the run folder
        and, its pictures, at the trackers. `digest` is that of the evaluated weights."""
        if self._last is None:
            return
        (evaluation, about), folder = self._last, self._folder / "report"
        about |= {"digest": digest}
        outcome = self._task.outcome(evaluation.predictions, evaluation.metrics, about)
        if outcome is not None:
            self._try(FILE, lambda: write_outcome(self._folder / FILE, outcome))
        found = findings_of(self._task.view, evaluation.predictions, outcome, evaluation.metrics, about)
        self._try("report", lambda: write_findings(folder, found))
        try:
            self._try("report", lambda: self._task.view.report(folder, evaluation.predictions, self._history.table))
        except ImportError as e:
            self.console.line(
                f"report/ has only the page: {e.name} is not installed; pip install 'ddptrain[report]' for all figures"
            )
        for path in sorted(p for p in folder.glob("*") if p.suffix in (".png", ".jpg")) if self._section.trackers else ():
            self.tracker.image(f"val/report/{path.stem}", load(path), step)
        final = val_scalars({name: evaluation.metrics[name] for name in self._task.monitors if name in evaluation.metrics})
        self.tracker.hparams(self._settings, final, step)
        self._finished = True

    def write_page(self) -> None:
        """When the run has ended: its page, of all that is in its folder now."""
        if self._world.main:
            self._try("report/report.html", lambda: write_page(self._folder))

    def _pictures(self, evaluation: Evaluation) -> list[np.ndarray]:
        keys = [SampleKey(0, number, index) for number, shard in enumerate(evaluation.predictions) for index in sorted(shard)]
        count = self._pictures_wanted
        chosen = keys[:: max(1, len(keys) // count)][:count]  # spread over all datasets
        return [self._task.view.picture(self._task.val_samples[k], evaluation.predictions[k.dataset][k.index]) for k in chosen]

    def _write_summary(self, state: RunState, metrics: Mapping[str, float]) -> None:
        by_dataset: dict[str, dict[str, float]] = {}
        flat: dict[str, float] = {}
        for key, value in metrics.items():
            if key.startswith("dataset/"):
                _, name, metric = key.split("/", 2)
                by_dataset.setdefault(name, {})[metric] = value
            else:
                flat[key] = value
        write_summary(
            self._folder / "summary.json",
            {
                **flat,
                "monitor": state.monitored[0],
                "best": state.best,
                "best_step": state.best_steps.get(state.monitored[0]),
                "step": state.step,
                "steps": state.steps,
                "reason": state.early_end,
                "epoch": state.epoch,
                "samples": state.position,
                "skipped_steps": state.skipped,
                "replaced_samples": state.replaced,
                "images_per_second": self._images_per_second,
                "mixture": self.ledger.summary(state.samples_by_dataset, by_dataset, state.pasted_by_dataset),
                "datasets": by_dataset,
                **({} if state.balance is None else {"classes": state.balance.summary()}),
            },
        )
