"""The loop: fetch, step, log, evaluate, save, in the order in which they happen.

The step (optimizer update) is the only clock. `position` counts samples of the global stream that all ranks share; it
alone says what comes next, so a resumed run goes on where the stopped one was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from ddptrain import distributed, seeding
from ddptrain.config import RunConfig
from ddptrain.config.batch import split_batch
from ddptrain.data.loading.loader import Wait, train_loader
from ddptrain.distributed import World
from ddptrain.engine.bad_steps import Incidents
from ddptrain.engine.evaluate import evaluate
from ddptrain.engine.rank_check import check_ranks
from ddptrain.engine.reporting import Monitor
from ddptrain.engine.run_folder import Saver
from ddptrain.engine.state import RunState, build_state
from ddptrain.engine.step import StepReport
from ddptrain.engine.stop import StopFlag
from ddptrain.structures import Batch
from ddptrain.system.lock import RunLock
from ddptrain.system.printable import warn
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task, with_classes


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
        stack.enter_context(distributed.process_group(world, config.train.timeout_s, stop))
        if world.note:
            warn(world.note)
        lock = stack.enter_context(RunLock(config.folder, warn, lambda: stop.signal))
        stop.on_leave.append(lock.release)
        distributed.agree(lambda: lock.acquire() if world.main else None, "the lock of the run folder")
        config = distributed.agree(lambda: with_classes(config), "reading the classes of the datasets")
        task = distributed.agree(lambda: build_task(config), "reading the datasets")
        state = distributed.agree(lambda: build_state(config, task, world, split), "building the model")
        saver = stack.enter_context(Saver(config, world, state, task, lock))
        saver.open()
        state.notes[:0] = notes
        monitor = stack.enter_context(distributed.agree(lambda: Monitor(config, task, world, state), "opening the logs"))
        loader = stack.enter_context(
            train_loader(
                task.train,
                state.sampler.keys,
                position=state.position,
                steps=None,
                global_batch=split.global_batch,
                accumulation=split.accumulation,
                rank=world.rank,
                world_size=world.size,
                workers=config.data.workers,
                pin_memory=world.device.type == "cuda",
                wait=_patience(config, monitor, stop),
            )
        )
        monitor.show_inputs(state)
        stopped = run_steps(config, task, world, state, loader, saver, monitor, stop, lock)
        if not stopped:
            monitor.report()
        return saver.finish(stopped, monitor.console.line)


def run_steps(
    config: RunConfig,
    task: Task,
    world: World,
    state: RunState,
    loader: Iterable[Batch],
    saver: Saver,
    monitor: Monitor,
    stop: StopFlag,
    lock: RunLock,
) -> str:
    """Step to the end of the run or to a stop; returns the name of the signal that stopped it, or nothing."""
    batches = monitor.timing.wait_for(loader)
    incidents = Incidents(config, task.train, world, monitor.console.line)
    wait = _patience(config, monitor, stop)
    first = True

    def judge(always: bool) -> None:
        """Evaluate, and save what it found; the steps themselves are saved before, so that no failure here costs any."""
        better = _evaluate(config, task, world, state, monitor, wait)
        if better or always or state.out_of_patience:
            saver.save(best=better)

    if state.unjudged:  # the evaluation after this checkpoint did not come to its end
        state.schedule.apply(state.optimizer, max(state.step - 1, 0))  # the rates that the checkpoint was written with
        judge(always=True)
    while state.step < state.steps and not state.out_of_patience:
        seeding.seed_torch(config.seed, state.step + state.skipped, world.rank)
        state.schedule.apply(state.optimizer, state.step)
        micro = [next(batches).to(world.device) for _ in range(state.split.accumulation)]
        if first:
            check_ranks(config, world, state, micro)
        lock.check()
        before = state.position
        report = state.stepper(micro, stop=stop.requested)
        state.count(report)
        monitor.after_step(state, report)
        incidents.after_step(state, report, micro)

        if first:
            saver.reserve()
            first, stop.saves = False, True

        last = state.step == state.steps
        state.unjudged = last or _due(config.eval.every_steps, config.eval.every_epochs, state, before, report)
        save = last or report.stop or _due(config.checkpoint.every_steps, config.checkpoint.every_epochs, state, before, report)
        if save:
            with monitor.timing.pause():
                saver.save()
        if report.stop and not last:
            return distributed.first_true(stop.reason, "agreeing on the stop")
        if state.unjudged:
            with monitor.timing.pause():
                judge(always=save)
    return ""


def _patience(config: RunConfig, monitor: Monitor, stop: StopFlag) -> Wait:
    """How loaders wait: as long as ranks do for each other, less after a stop signal."""
    return Wait(config.train.timeout_s, lambda: stop.signal is not None, lambda line: monitor.console.line(f"warning: {line}"))


def _due(every_steps: int | None, every_epochs: float | None, state: RunState, before: int, report: StepReport) -> bool:
    """True when this step passed a multiple of the interval; steps win over epochs, both null mean never."""
    if every_steps is not None:
        return report.updated and state.step % every_steps == 0
    if every_epochs is None:
        return False
    interval = every_epochs * state.samples_per_epoch
    return int(state.position // interval) > int(before // interval)


def _evaluate(config: RunConfig, task: Task, world: World, state: RunState, monitor: Monitor, wait: Wait) -> list[str]:
    """Evaluate the averaged weights; the monitored metrics by which they are the best so far."""
    monitor.console.status("evaluating")
    evaluation = evaluate(
        task,
        state.evaluated_model,
        world,
        batch=config.eval.batch or config.train.micro_batch,
        workers=config.data.workers,
        precision=config.train.precision,
        max_bad_images=config.eval.max_bad_images,
        wait=wait,
    )
    state.train_mode()
    better = state.judge(evaluation.metrics)
    monitor.after_evaluation(state, evaluation, state.monitored[0] in better)
    monitor.console.status("")
    return better
