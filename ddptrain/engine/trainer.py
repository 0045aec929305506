"""The loop: fetch, step, log, evaluate, save, in the order in which they happen.

The step (optimizer update) is the only clock. `position` counts samples of the global stream that all ranks share; it
alone says what comes next, so a resumed run continues where the stopped one was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ddptrain import distributed
from ddptrain.config import CheckpointConfig, EvalConfig, RunConfig
from ddptrain.config.batch import split_batch
from ddptrain.data.loading.loader import Wait
from ddptrain.data.loading.workers import start_server
from ddptrain.data.packed.build import Talk
from ddptrain.distributed import World
from ddptrain.engine.arithmetic import arithmetic
from ddptrain.engine.bad_steps import BadSteps
from ddptrain.engine.batches import Supply, batches_from
from ddptrain.engine.build import build_state
from ddptrain.engine.evaluate import evaluate
from ddptrain.engine.micro_batch import choose_micro_batch
from ddptrain.engine.rank_check import check_ranks
from ddptrain.engine.reporting import RunReporter
from ddptrain.engine.run_folder import RunFolder
from ddptrain.engine.start_report import report_start
from ddptrain.engine.state import RunState
from ddptrain.engine.step_report import Launched, StepReport
from ddptrain.engine.stop import StopFlag
from ddptrain.reporting.trackers.build import check_installed
from ddptrain.structures import Batch
from ddptrain.system.exact import exact
from ddptrain.system.lock import RunLock
from ddptrain.system.printable import say, warn
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task
from ddptrain.tasks.pixels import cache_pixels


@dataclass(frozen=True)
class Run:
    """What a run is made of."""

    task: Task
    world: World
    state: RunState
    folder: RunFolder
    reporter: RunReporter
    stop: StopFlag
    lock: RunLock

    @property
    def wait(self) -> Wait:
        """How loaders wait: as long as ranks do for each other, less after a stop signal."""
        line = self.reporter.console.line
        return Wait(
            self.task.config.train.timeout_s, lambda: self.stop.signal is not None, lambda text: line(f"warning: {text}")
        )


def train(config: RunConfig, stop: StopFlag, notes: Sequence[str] = ()) -> int:
    """Train one run, from its start or its newest checkpoint, to its end or a stop signal.

    Args:
        notes: lines about the config for the start of the log.

    Returns:
        The exit status, see `ddptrain/system/status.py`.

    Raises:
        UserError: on every rank alike, before anything is written.
    """
    world = distributed.discover(config.train.device)
    split = split_batch(config.train.global_batch, config.train.micro_batch, world.size)
    with ExitStack() as stack:
        if world.device.type == "cuda" and config.data.workers:
            start_server()  # while the ranks meet and the datasets are read
        stack.enter_context(arithmetic(config.train, world.device))
        stack.enter_context(distributed.process_group(world, config.train.timeout_s, stop))
        for note in filter(None, (world.note, world.lacking if world.local_rank == 0 else "")):
            warn(note)
        lock = stack.enter_context(RunLock(config.folder, warn, lambda: stop.signal))
        stop.on_leave.append(lambda why: lock.release())
        distributed.agree(lambda: check_installed(config.monitor.trackers) if world.main else None, "checking the trackers")
        distributed.agree(lambda: lock.acquire() if world.main else None, "the lock of the run folder")
        task = distributed.agree(lambda: build_task(config), "reading the datasets")
        if config.train.micro_batch == "auto":
            choose_micro_batch(task, world)
            split = split_batch(config.train.global_batch, task.config.train.micro_batch, world.size)
        config = task.config  # which has what was auto
        if (where := config.data.cache) != "none":
            waits = say if world.local_rank == 0 else lambda line: None
            talk = Talk(say, waits, lambda: stop.signal)
            task.notes += distributed.agree(lambda: cache_pixels(task, where, talk), "packing the images")
        state = distributed.agree(lambda: build_state(task, world, split), "building the model")
        state.share_weights()
        folder = stack.enter_context(RunFolder(task, world, state, lock))
        stop.on_leave.insert(0, folder.abandon)
        folder.open()
        state.notes[:0] = notes
        reporter = distributed.agree(lambda: RunReporter(task, world, state, stack), "opening the logs")
        distributed.agree(lambda: report_start(task, world, state, reporter), "opening the logs")
        run = Run(task, world, state, folder, reporter, stop, lock)
        load = partial(batches_from, state, task, world.rank, run.wait, reporter.pace.costs)
        batches = stack.enter_context(Supply(state, load, reporter.pace.batches))
        stack.enter_context(distributed.last_word(stop))
        reporter.show_inputs(state)
        stopped = run_steps(run, batches)
        reporter.pace.close()
        if not stopped:
            reporter.report(state.step, folder.digest())
        code = folder.finish(stopped, reporter.console.last)
        if not stopped:
            reporter.write_page()
        return code


def run_steps(run: Run, batches: Iterator[Batch]) -> str:
    """Step over this rank's batches to the end of the run or to a stop; returns the reason of the stop, or an empty string."""
    config, world, state, folder, reporter, stop = run.task.config, run.world, run.state, run.folder, run.reporter, run.stop
    bad_steps = BadSteps(run.task, world, reporter.console.line)
    if state.unjudged:  # the evaluation after this checkpoint did not come to its end
        state.schedule.apply(state.optimizer, max(state.step - 1, 0))  # the rates that the checkpoint was written with
        _judge(run, save=True)
    for step in _steps(run, batches):
        report = step.report
        reporter.after_step(state, report)
        bad_steps.after_step(state, report, step.batches)
        if step.ahead:
            continue
        if not stop.saves:
            folder.reserve()
            stop.saves = True

        last = state.step == state.steps
        # a step that was skipped has left the weights of the one before
        state.unjudged = state.judged != state.step and (last or due(config.eval, state, report.updated))
        save = last or report.stop or due(config.checkpoint, state, report.updated)
        if save:
            with reporter.pace.pause():
                reporter.write_steps()
                folder.save()
        if report.stop and not last:
            return distributed.first_true(stop.reason, "agreeing on the stop")
        if state.unjudged:
            with reporter.pace.pause():
                _judge(run, save)
    return ""


class Step(NamedTuple):
    """A step that was made; `ahead`: the next one is on its way, so that nothing can be saved or evaluated now."""

    report: StepReport
    batches: list[Batch]
    ahead: bool


def _steps(run: Run, batches: Iterator[Batch]) -> Iterator[Step]:
    """The steps of the run, each counted.

    Where the device itself decides about the update, a step is waited for only once the next one is launched, unless the run
    may pause between them; all ranks decide alike. What is launched behind a step without update makes none either, and
    is launched again.
    """
    state, lock = run.state, run.lock
    taken: list[list[Batch]] = []  # the batches of the step that is waited for, and of the next one
    made, stopping = 0, False

    def launch(number: int, after: Launched | None = None) -> Launched:
        if len(taken) < number:
            taken.append([next(batches) for _ in range(state.split.accumulation)])
        if not made:
            check_ranks(run.task.config.model_dump_json(), run.world, state, taken[0])
        lock.check()
        return state.launch(taken[number - 1], run.stop.is_due(made + number), after)

    first: Launched | None = None
    while first is not None or (state.step < state.steps and not state.out_of_patience):
        first = first or launch(1)
        ahead = first.updated is not None and not stopping and not _may_pause(run, made + 1)
        second = launch(2, first) if ahead else None
        report = state.settle(first)
        made += 1
        stopping = report.stop = stopping or report.stop
        first = second if report.updated else None
        yield Step(report, taken.pop(0), first is not None)


def _may_pause(run: Run, made: int) -> bool:
    """Whether the run may save, evaluate or end after the next step, the one of this process with number `made`."""
    config, state = run.task.config, run.state
    ends = made == 1 or made == run.stop.limit or state.step + 1 == state.steps
    return ends or due(config.eval, state, ahead=1) or due(config.checkpoint, state, ahead=1)


def due(section: EvalConfig | CheckpointConfig, state: RunState, updated: bool = True, ahead: int = 0) -> bool:
    """True when the step just made, or the one so many ahead, passes a multiple of the interval; steps win over epochs, both
    null mean never."""
    if section.every_steps is not None:
        return updated and (state.step + ahead) % section.every_steps == 0
    if section.every_epochs is None:
        return False
    interval, each = exact(section.every_epochs) * state.samples_per_epoch, state.split.global_batch
    position = state.position + ahead * each
    return int(position // interval) > int((position - each) // interval)


def _judge(run: Run, save: bool) -> None:
    """Evaluate the averaged weights, and save the outcome with them: if asked to, if they are the best so far, or at an early
    end. The steps themselves are saved before, so that no failure here costs any."""
    state, reporter = run.state, run.reporter
    reporter.console.status("evaluating")
    evaluation = evaluate(run.task, state.evaluated_model, run.world, run.wait)
    state.train_mode()
    better = state.judge(evaluation.metrics)
    reporter.after_evaluation(state, evaluation, state.monitored[0] in better)
    reporter.console.status("")
    if better or save or state.out_of_patience:
        run.folder.save(best=better)
