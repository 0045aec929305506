"""Everything that learns or counts during a run, and its form in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddptrain import distributed
from ddptrain.checkpoint.weights import load_initial
from ddptrain.config.batch import Split
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.engine.balance import ClassBalance
from ddptrain.engine.monitored import is_better
from ddptrain.engine.norms import Norms
from ddptrain.engine.step import Stepper
from ddptrain.engine.step_report import Launched, StepReport
from ddptrain.optim.build import follow_names, load_optimizer, trained_names
from ddptrain.optim.ema import Ema
from ddptrain.optim.plateau import Plateau
from ddptrain.optim.schedule import Schedule
from ddptrain.structures import Batch
from ddptrain.system.printable import counted

COUNTERS = ("step", "skipped", "position", "bests", "best_steps", "stale", "unjudged", "judged", "replaced")
BY_DATASET = ("loss_by_dataset", "samples_by_dataset", "pasted_by_dataset")
SUMS = (*BY_DATASET, "parts", "updates")
"""Members of a state that a checkpoint holds under their names."""


@dataclass
class RunState:
    """Model, optimizer, averages and counters of one run.

    Attributes:
        model: neither wrapped in DDP nor compiled; `stepper.gradients.model` may be.
        steps: length of the run; samples_per_epoch: length of an epoch.
        step: updates made; skipped: steps that made none (their samples are spent).
        position: samples of the global stream that are spent.
        monitored: metrics by which checkpoints are compared; the first, the task's own, decides about patience.
        bests: best value of each of them so far; best_steps: the step of each, as its checkpoint is named; stale: evaluations
            since the first one's, but for those in which it was undefined.
        unjudged: an evaluation of this step is due; judged: the last step that was evaluated, -1 before the first.
        frozen: parts of the model that stay in eval mode.
        notes: lines for the log about the start of the run.
        replaced: samples that stood in for unreadable ones.
        loss_by_dataset, samples_by_dataset, pasted_by_dataset: sums over the run, by dataset; losses of skipped steps are left
            out. Pasted are the objects that copy-paste has added.
        parts: sums of the loss parts over the `updates` since the last evaluation, by name.
        balance: weights and counts of the classes that are drawn, where the task has them.
        recounted: the step of the checkpoint as it counted, where steps are recounted in batches of another size; else None.
        changed: the config is not the one with which the checkpoint was written.
        norms: which steps are measured; None for none.
    """

    model: nn.Module
    stepper: Stepper
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    sampler: DistributedWeightedSampler
    ema: Ema | None
    split: Split
    steps: int
    samples_per_epoch: int
    patience: int | None
    monitored: Sequence[str]
    frozen: Sequence[nn.Module] = ()
    notes: list[str] = field(default_factory=list)
    step: int = 0
    skipped: int = 0
    position: int = 0
    bests: dict[str, float] = field(default_factory=dict)
    best_steps: dict[str, int] = field(default_factory=dict)
    stale: int = 0
    unjudged: bool = False
    judged: int = -1
    replaced: int = 0
    loss_by_dataset: list[float] = field(default_factory=list)
    samples_by_dataset: list[float] = field(default_factory=list)
    pasted_by_dataset: list[float] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    updates: int = 0
    recounted: int | None = None
    changed: bool = False
    balance: ClassBalance | None = None
    norms: Norms | None = None

    @property
    def epoch(self) -> float:
        """Epochs that are spent."""
        return self.position / self.samples_per_epoch

    @property
    def evaluated_model(self) -> nn.Module:
        """The averaged weights, or the weights themselves if no average is kept."""
        return self.ema.model if self.ema is not None else self.model

    @property
    def best(self) -> float | None:
        """Best value of the task's own metric, None before there is one."""
        return self.bests.get(self.monitored[0])

    @property
    def out_of_patience(self) -> bool:
        """True when too many evaluations brought nothing better."""
        return self.patience is not None and self.stale >= self.patience

    @property
    def early_end(self) -> str:
        """Why the run ends before its last step, in one line; empty where it does not."""
        if self.step >= self.steps or not self.out_of_patience:
            return ""
        best = "" if self.best is None else f" than {self.best:.4g}"
        return f"no better {self.monitored[0]}{best} in {counted(self.stale, 'evaluation')} (train.patience={self.patience})"

    def advance(self, batches: Sequence[Batch], stop: bool = False) -> StepReport:
        """Make the next step over this rank's micro batches, and count it; `stop` is this rank's wish to stop after it."""
        return self.settle(self.launch(batches, stop))

    def launch(self, batches: Sequence[Batch], stop: bool = False, after: Launched | None = None) -> Launched:
        """Start the next step, or the one after that which is launched and, as is likely, updates."""
        ahead = after is not None
        self.schedule.apply(self.optimizer, self.step + ahead)
        measurement = None if self.norms is None else self.norms.measurement(self.step + ahead + 1)
        with self.stepper.launching:
            launched = self.stepper.launch(batches, self.step + self.skipped + ahead, stop, after, measurement)
            if launched.updated is not None and self.ema is not None:
                with self.stepper.part("update"):
                    self.ema.update(self.model, self.step + ahead + 1, launched.updated)
            if launched.updated is not None and measurement is not None:
                measurement.after(self.ema, launched.ready)
        return launched

    def settle(self, launched: Launched) -> StepReport:
        """Wait for a step and count it; the average follows an update that the host has made."""
        report = self.stepper.read(launched)
        if report.updated and self.ema is not None and launched.updated is None:
            with self.stepper.part("update"):
                self.ema.update(self.model, self.step + 1)
        if report.updated and launched.measurement is not None:
            report.norms = launched.measurement.read(report.grad_norm, self.ema)
        self.count(report)
        return report

    def count(self, report: StepReport) -> None:
        """Advance the clock: the step for an update, the skip counter for a skipped one."""
        if report.updated:
            self.step += 1
            self.loss_by_dataset = [a + b for a, b in zip(self.loss_by_dataset, report.loss_by_dataset)]
            self.updates += 1
            for name, value in report.parts.items():
                self.parts[name] = self.parts.get(name, 0.0) + value
        else:
            self.skipped += 1
        if self.balance is not None:
            self.balance.count(self.position, self.split.global_batch)
        self.position += self.split.global_batch
        self.replaced += report.replaced
        self.samples_by_dataset = [a + b for a, b in zip(self.samples_by_dataset, report.samples_by_dataset)]
        self.pasted_by_dataset = [a + b for a, b in zip(self.pasted_by_dataset, report.pasted_by_dataset)]

    def take_losses(self) -> dict[str, float]:
        """The training loss, a mean over the updates since the last call: `loss`, and its parts by name."""
        parts = {name: total / self.updates for name, total in self.parts.items()}
        self.parts, self.updates = {}, 0
        return {"loss": sum(parts.values()), **parts} if parts else {}

    def train_mode(self) -> None:
        """Put the model into train mode, all but its frozen parts (whose running statistics must not move)."""
        self.model.train()
        for part in self.frozen:
            part.eval()

    def share_weights(self) -> None:
        """Take rank 0's fresh weights: a network need not be a function of the seed alone."""
        for model in (self.model, *([self.ema.model] if self.ema is not None else [])):
            distributed.share_weights(model)

    def start_from(self, source: Path, classes: Sequence[str], strict: bool) -> None:
        """Take the weights of another run, see `load_initial`."""
        self.notes += load_initial(self.model, source, classes, strict)
        if self.ema is not None:
            self.ema.load_state_dict(self.model.state_dict())

    def judge(self, metrics: Mapping[str, float]) -> list[str]:
        """Record an evaluation, and take what follows from it for the next step; returns the monitored metrics that are the
        best so far. An undefined one (nan: the datasets have no truth) is neither better nor worse."""
        self.unjudged, self.judged = False, self.step
        if self.schedule.plateau is not None:
            self.schedule.plateau.judge(metrics[self.monitored[0]], lower_is_better=self.monitored[0] == "loss")
        if self.balance is not None:
            self.balance.judge(metrics, self.position)
        better = [name for name in self.monitored if is_better(name, metrics[name], self.bests.get(name))]
        self.bests |= {name: metrics[name] for name in better}
        self.best_steps |= dict.fromkeys(better, self.step)
        if self.monitored[0] in better:
            self.stale = 0
        elif not math.isnan(metrics[self.monitored[0]]):
            self.stale += 1
        return better

    @property
    def _followers(self) -> dict[str, ClassBalance | Plateau]:
        """What follows the evaluations, by its name in a checkpoint."""
        parts = {"balance": self.balance, "plateau": self.schedule.plateau}
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        """Plain types and tensors; tensors are the live ones, not copies."""
        return {
            **{name: getattr(self, name) for name in (*COUNTERS, *SUMS)},
            "global_batch": self.split.global_batch,
            "micro_batch": self.split.micro_batch,
            "ranks": self.split.world_size,
            "datasets": list(self.sampler.mixture.names),
            "normalizer": self.stepper.normalizer,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "trained": trained_names(self.optimizer, self.model),
            "scaler": self.stepper.scaler.state_dict() if self.stepper.scaler is not None else None,
            "sampler": self.sampler.fingerprint,
            **{name: part.state_dict() for name, part in self._followers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint of a run with the same model and update rule.

        The optimizer's settings (decay, momentum) are those of the config. With another global batch the stream goes on at
        the same position, and the steps before it are counted as if they had been of the new size, so that schedule and
        length of the run in epochs still hold. Sums by dataset follow the datasets' names.
        """
        self.model.load_state_dict(state["model"])
        self._load_optimizer(state["optimizer"], state.get("trained"))
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"] if state["ema"] is not None else state["model"])
        if self.stepper.scaler is not None and state["scaler"] is not None:
            self.stepper.scaler.load_state_dict(state["scaler"])
        self.stepper.normalizer = state["normalizer"]
        for key in ("position", "bests", "stale", "replaced"):
            setattr(self, key, state[key])
        self.unjudged = state.get("unjudged", False)  # older checkpoints were written after the evaluation
        before, now = state["global_batch"], self.split.global_batch
        self.step, self.skipped = (round(state[key] * before / now) for key in ("step", "skipped"))
        self.best_steps = {name: round(step * before / now) for name, step in state.get("best_steps", {}).items()}
        self.recounted = None if before == now else state["step"]
        self.judged = state.get("judged", -1) if before == now else -1
        for name, part in self._followers.items():
            if name in state:
                part.load_state_dict(state[name])
        self.parts, self.updates = dict(state.get("parts", {})), state.get("updates", 0)
        for key in BY_DATASET:
            known = dict(zip(state["datasets"], state.get(key, ())))  # older checkpoints know no pasted objects
            setattr(self, key, [known.get(name, 0.0) for name in self.sampler.mixture.names])

    def _load_optimizer(self, state: dict[str, Any], before: Sequence[str] | None) -> None:
        """Take over the optimizer's state by the names of its parameters, which older checkpoints do not have."""
        now = trained_names(self.optimizer, self.model)
        if before is not None and before != now:
            state = follow_names(self.optimizer, state, before, now)
            new, gone = (len(set(a) - set(b)) for a, b in ((now, before), (before, now)))
            self.notes.append(
                f"warning: resume: freeze has changed: the optimizer starts from scratch for {new} of the "
                f"{counted(len(now), 'trained tensor')}, and {gone} are no longer trained"
            )
        load_optimizer(self.optimizer, state)
