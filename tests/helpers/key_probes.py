"""What a run makes of its config, as values that can be compared: the probes of `test_every_key.py`.

Each builds a part of a run as training does, and trains as little as it can: most of them not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddptrain import distributed
from ddptrain.config import RunConfig
from ddptrain.config.batch import split_batch
from ddptrain.engine import evaluate as engine_evaluate
from ddptrain.engine import trainer
from ddptrain.engine.build import build_state
from ddptrain.engine.state import RunState
from ddptrain.engine.stop import StopFlag
from ddptrain.optim.build import build_optimizer
from ddptrain.optim.ema import Ema
from ddptrain.optim.schedule import Schedule
from ddptrain.structures import Batch, SampleKey
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task, new_task
from launch import batch, job, sbatch
from launch.job import Job
from launch.submission import pythons

STEPS = 12
"""Length of a run in a probe of rates."""


def digest(value: Any) -> str:
    """A hash of nested plain values, arrays and tensors."""
    hashed = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, Tensor):
            value = value.detach().float().numpy()
        if isinstance(value, np.ndarray):
            hashed.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        elif isinstance(value, Mapping):
            take(list(value.items()))
        elif isinstance(value, (list, tuple)):
            hashed.update(f"[{len(value)}".encode())
            for item in value:
                take(item)
        else:
            hashed.update(repr(value).encode())

    take(value)
    return hashed.hexdigest()


def folder(config: RunConfig) -> Any:
    """Where the run is written."""
    return config.folder


def task_of(config: RunConfig) -> Task:
    """The run's task with its datasets."""
    return build_task(config)


def samples(config: RunConfig) -> Any:
    """Names and numbers of the datasets, the keys of the stream, and some samples of training and validation."""
    task = task_of(config)
    positions = np.arange(10)
    keys = [SampleKey(*map(int, key)) for key in zip(positions, *task.sampler.keys(positions))]
    made = [task.train[k] for k in keys]
    seen = [task.val_samples[SampleKey(0, d, i)] for d, (_, n) in enumerate(task.val) for i in range(min(n, 1))]
    mixture = task.sampler.mixture
    said = [mixture.names, mixture.sizes, mixture.samples_per_epoch, list(task.val), keys]
    windows = [[part.images, part.targets, part.to_native] for s in seen for part in s.windows]
    return digest([said, *([s.image, s.targets, s.annotated, s.native_size] for s in (*made, *seen)), windows])


def _batch(task: Task, part: str) -> Batch:
    """Some samples of training or of validation."""
    if part == "val":
        keys = [SampleKey(0, 0, i) for i in range(2)]
        return task.val_samples.collate([task.val_samples[k] for k in keys])
    positions = np.arange(4)
    keys = [SampleKey(*map(int, key)) for key in zip(positions, *task.sampler.keys(positions))]
    return task.train.collate([task.train[k] for k in keys])


_NETWORKS: dict[str, nn.Module] = {}


def _network(config: RunConfig, task: Task) -> nn.Module:
    """The same weights for all that differ in something else; torchvision's detectors hold limits of the evaluation."""
    key = digest([config.model.model_dump(), config.eval.model_dump(), config.data.image_size, config.classes, config.task])
    if key not in _NETWORKS:
        torch.manual_seed(0)
        _NETWORKS[key] = task.build_model()
    return _NETWORKS[key]


def loss(config: RunConfig) -> Any:
    """The loss of a training batch, with its parts and its normalizer."""
    task = task_of(config)
    model = _network(config, task).train()
    torch.manual_seed(1)
    with torch.no_grad():
        found = task.loss(model, task.at_step(_batch(task, "train"), 1))
    return digest([found.total, found.normalizer, found.parts])


def predictions(config: RunConfig) -> Any:
    """The predictions of a validation batch, and the names of the metrics of all."""
    task = task_of(config)
    model = _network(config, task).eval()
    with torch.no_grad():
        found = task.predict(model, _batch(task, "val"))
        metrics = task.metrics([dict(enumerate(found[: task.val[0][1]])), *({} for _ in task.val[1:])])
    return digest([found, sorted(metrics)])


def network(config: RunConfig) -> Any:
    """The layers of the model with their settings, its tensors, and those that are trained; without values."""
    with torch.device("meta"):
        model = new_task(config).build_model()
    settings = [(getattr(m, "p", None), getattr(m, "drop_prob", None)) for m in model.modules()]
    tensors = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    return digest([repr(model), settings, tensors, [p.requires_grad for p in model.parameters()]])


def updates(config: RunConfig) -> Any:
    """Rates, decay, weights and their average over the updates of a small model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    optimizer = build_optimizer(config.optimizer, model, config.train.global_batch)
    schedule = Schedule(config.schedule, config.optimizer, STEPS, 4.0)
    ema = Ema(model, config.ema) if config.ema.enabled else None
    seen: list[Any] = []
    for step in range(STEPS):
        if schedule.plateau is not None:
            schedule.plateau.judge(1 - 0.1**step, lower_is_better=False)
        rates = schedule.apply(optimizer, step)
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if ema is not None:
            ema.update(model, step + 1)
        seen += [rates.lr, rates.bias_lr if config.optimizer.name == "sgd" else 0]
    return digest([seen, model.state_dict(), ema.state_dict() if ema else None])


def state(config: RunConfig) -> Any:
    """Length, split, rules and layout of a run's state."""
    world = distributed.discover("cpu")
    split = split_batch(config.train.global_batch, config.train.micro_batch, 1)
    state: RunState = build_state(task_of(config), world, split)
    if config.init_from is not None:
        state.start_from(Path(config.init_from), config.classes, config.init_strict)
    stepper = state.stepper
    frozen = [name for name, p in state.model.named_parameters() if not p.requires_grad]
    layouts = [p.is_contiguous(memory_format=torch.channels_last) for p in state.model.parameters() if p.dim() == 4]
    rules = [state.patience, state.monitored, stepper.clip_norm, stepper.precision, stepper.scaler is None]
    return digest([state.steps, asdict(split), rules, frozen, layouts, state.ema is None])


def due(config: RunConfig) -> Any:
    """The steps of a run of 40 at which it is evaluated and saved."""
    steps = []
    for section in (config.eval, config.checkpoint):
        for step in range(1, 41):
            now: Any = SimpleNamespace(
                step=step, position=step * 8, samples_per_epoch=40, split=SimpleNamespace(global_batch=8)
            )
            if trainer.due(section, now):
                steps.append(step)
    return steps


def evaluation(config: RunConfig) -> Any:
    """What an evaluation asks of its loader, and how many images it may lack, in numbers."""
    numbers: list[int | None] = []

    def loader(*args: Any, **options: Any) -> Any:
        numbers.extend(v for v in options.values() if isinstance(v, int))
        return nullcontext([])

    shapes: dict[str, Any] = {"val_shapes": None, "val_batch": None}
    task: Any = SimpleNamespace(config=config, val=[], val_samples=None, metrics=lambda predictions: {}, **shapes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_evaluate, "eval_loader", loader)
        patch.setattr(engine_evaluate, "refuse_bad", lambda lines, samples, most: numbers.append(most))
        engine_evaluate.evaluate(task, nn.Identity(), distributed.discover("cpu"))
    return numbers


def run(config: RunConfig) -> Any:
    """Train for a few steps: the files that are there, and what the log says."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.setattr(trainer.RunReporter, "report", lambda *given: None)  # figures, which take the longest
        assert trainer.train(config, StopFlag()) == 0
    files = sorted(p.relative_to(config.folder).as_posix() for p in config.folder.rglob("*") if "tfevents" not in p.name)
    events = sum(p.stat().st_size // 1000 for p in config.folder.rglob("*tfevents*"))
    log = re.findall(r"step (\d+)/", (config.folder / "log.txt").read_text())
    return [files, events, log]


def submission(config: RunConfig, tmp: Path) -> Any:
    """The batch script, the parameters of sbatch, the plan of the agents and the budgets of a Slurm job."""
    slurm = config.slurm
    cpus = slurm.cpus_per_task or slurm.ranks * (config.data.workers + 1)
    mine = Job(
        name=config.name, folder=str(tmp), run=str(tmp), module="m", arguments=("train",), cwd=str(tmp),
        slurm=slurm.model_dump(mode="json"), cpus=cpus, **pythons(slurm),
    )  # fmt: skip
    job.write(mine)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.setenv("SLURM_JOB_ID", "7")
        patch.setenv("SLURM_JOB_NODELIST", "localhost")
        patch.setattr(batch.cluster, "hostnames", lambda text: text.split(","))
        batch.prepare(tmp)
    plan = json.loads(batch.plan_path(tmp, 0).read_text())
    for key in ("token", "ports"):
        del plan[key]
    budgets = []
    for kind in ("stopped", "crashed"):
        ends = {str(i): {"kind": kind, "step": 0, "signal": "", "bad": [], "time": 0} for i in range(6)}
        (tmp / "ends.json").write_text(json.dumps(ends))
        budgets.append(batch.over_budget(mine))
    (tmp / "ends.json").unlink()
    return [sbatch.text(mine), sbatch.options(mine), plan, budgets]
