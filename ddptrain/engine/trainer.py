"""The loop: fetch, step, log, evaluate, save, in the order in which they happen.

The step (optimizer update) is the only clock. `position` counts samples of the global stream that all ranks share; it
alone says what comes next, so a resumed run goes on where the stopped one was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ddptrain import distributed
from ddptrain.config import RunConfig
from ddptrain.config.batch import split_batch
from ddptrain.data.loading.ahead import on_device
from ddptrain.data.loading.batches import train_loader
from ddptrain.data.loading.loader import Wait
from ddptrain.data.loading.workers import start_server
from ddptrain.distributed import World
from ddptrain.engine.arithmetic import arithmetic
from ddptrain.engine.bad_steps import BadSteps
from ddptrain.engine.evaluate import evaluate
from ddptrain.engine.rank_check import check_ranks
from ddptrain.engine.reporting import RunReporter
from ddptrain.engine.run_folder import RunFolder
from ddptrain.engine.start_report import report_start
from ddptrain.engine.state import RunState, build_state
from ddptrain.engine.step import StepReport
from ddptrain.engine.stop import StopFlag
from ddptrain.structures import Batch
from ddptrain.system.lock import RunLock
from ddptrain.system.printable import warn
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task


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
        distributed.agree(lambda: lock.acquire() if world.main else None, "the lock of the run folder")
        task = distributed.agree(lambda: build_task(config), "reading the datasets")
        config = task.config  # which lists the classes, where they were auto
        state = distributed.agree(lambda: build_state(task, world, split), "building the model")
        state.share_weights()
        folder = stack.enter_context(RunFolder(task, world, state, lock))
        stop.on_leave.insert(0, folder.abandon)
        folder.open()
        state.notes[:0] = notes
        reporter = distributed.agree(lambda: RunReporter(task, world, state, stack), "opening the logs")
        distributed.agree(lambda: report_start(task, world, state, reporter), "opening the logs")
        run = Run(task, world, state, folder, reporter, stop, lock)
        loader = stack.enter_context(
            train_loader(
                task.train,
                state.sampler.keys,
                position=state.position,
                steps=None,
                global_batch=split.global_batch,
                micro_batch=split.micro_batch,
                rank=world.rank,
                world_size=world.size,
                workers=config.data.workers,
                pin_memory=world.device.type == "cuda",
                wait=run.wait,
            )
        )
        stack.enter_context(distributed.last_word(stop))
        reporter.show_inputs(state)
        stopped = run_steps(run, loader)
        if not stopped:
            reporter.report(state.step)
        return folder.finish(stopped, reporter.console.line)


def run_steps(run: Run, loader: Iterable[Batch]) -> str:
    """Step to the end of the run or to a stop; returns the reason of the stop, or an empty string."""
    config, world, state, folder, reporter, stop = run.task.config, run.world, run.state, run.folder, run.reporter, run.stop
    batches = on_device(reporter.timing.wait_for(loader), world.device)
    bad_steps = BadSteps(run.task, world, reporter.console.line)
    if state.unjudged:  # the evaluation after this checkpoint did not come to its end
        state.schedule.apply(state.optimizer, max(state.step - 1, 0))  # the rates that the checkpoint was written with
        _judge(run, save=True)
    done = 0
    while state.step < state.steps and not state.out_of_patience:
        micro = [next(batches) for _ in range(state.split.accumulation)]
        if not done:
            check_ranks(config.model_dump_json(), world, state, micro)
        run.lock.check()
        before = state.position
        done += 1
        report = state.advance(micro, stop.is_due(done))
        reporter.after_step(state, report)
        bad_steps.after_step(state, report, micro)

        if done == 1:
            folder.reserve()
            stop.saves = True

        last = state.step == state.steps
        state.unjudged = last or _due(config.eval.every_steps, config.eval.every_epochs, state, before, report)
        save = last or report.stop or _due(config.checkpoint.every_steps, config.checkpoint.every_epochs, state, before, report)
        if save:
            with reporter.timing.pause():
                reporter.write_steps()
                folder.save()
        if report.stop and not last:
            return distributed.first_true(stop.reason, "agreeing on the stop")
        if state.unjudged:
            with reporter.timing.pause():
                _judge(run, save)
    return ""


def _due(every_steps: int | None, every_epochs: float | None, state: RunState, before: int, report: StepReport) -> bool:
    """True when this step passed a multiple of the interval; steps win over epochs, both null mean never."""
    if every_steps is not None:
        return report.updated and state.step % every_steps == 0
    if every_epochs is None:
        return False
    interval = every_epochs * state.samples_per_epoch
    return int(state.position // interval) > int(before // interval)


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
