"""The state with which a run begins."""

from __future__ import annotations

import torch

from ddptrain import distributed
from ddptrain.config.batch import Split
from ddptrain.distributed import World
from ddptrain.engine.balance import ClassBalance
from ddptrain.engine.monitored import monitored
from ddptrain.engine.network import as_called, build_network
from ddptrain.engine.state import RunState
from ddptrain.engine.step import Stepper
from ddptrain.models.norms import SYNC_BATCH_NORMS
from ddptrain.optim.build import build_optimizer
from ddptrain.optim.ema import Ema
from ddptrain.optim.freeze import freeze
from ddptrain.optim.schedule import Schedule
from ddptrain.tasks.base import Task
from ddptrain.tasks.stream import run_length


def build_state(task: Task, world: World, split: Split) -> RunState:
    """A fresh state: weights from the seed, step 0; those of `init_from` are taken by `RunState.start_from`."""
    config = task.config
    torch.manual_seed(config.seed)
    model = build_network(task)
    frozen = freeze(model, config.freeze)
    model = model.to(world.device)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(config.optimizer, model, config.train.global_batch)
    ema = Ema(model, config.ema) if config.ema.enabled else None
    mixture = task.sampler.mixture
    samples_per_epoch = mixture.samples_per_epoch
    steps = run_length(config.train, samples_per_epoch)
    tree, datasets = distributed.TreeSum(world.rank, world.size, split.micro_batches), len(mixture.names)
    overlap = not any(isinstance(m, SYNC_BATCH_NORMS) for m in model.modules())
    gradients = distributed.build_gradients(as_called(model, config.model), world, tree, config.train.reduction, overlap)
    train = config.train
    stepper = Stepper(
        model, task.loss, optimizer, gradients, tree, datasets, world.device, config.seed, train.clip_norm, train.precision,
        at_step=task.at_step,
    )  # fmt: skip
    state = RunState(
        model=model,
        stepper=stepper,
        optimizer=optimizer,
        schedule=Schedule(config.schedule, config.optimizer, steps, samples_per_epoch / split.global_batch),
        sampler=task.sampler,
        ema=ema,
        split=split,
        steps=steps,
        samples_per_epoch=samples_per_epoch,
        patience=config.train.patience,
        monitored=monitored(config.checkpoint.monitor, task.monitors),
        frozen=frozen,
        loss_by_dataset=[0.0] * datasets,
        samples_by_dataset=[0.0] * datasets,
        pasted_by_dataset=[0.0] * datasets,
        balance=None if task.balance is None else ClassBalance(task.balance, task.sampler, task.classes),
    )
    state.train_mode()
    return state
